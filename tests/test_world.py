"""The worlds behind synthetic://shapes: drawn from a seed, the same each time, with nothing impossible in them."""

from __future__ import annotations

import colorsys
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.stream.world import COLORS, SHAPES, World, make_world

seeds = st.integers(0, 2**31)


def worlds(num: int) -> list[World]:
    return [make_world(seed) for seed in range(num)]


@given(seeds, st.sampled_from([4.0, 16.0, 90.0]), st.sampled_from([0.5, 1.0]), st.integers(0, 4))
@settings(max_examples=40)
def test_a_seed_makes_one_world(seed: int, duration_s: float, step_s: float, max_things: int) -> None:
    world = make_world(seed, duration_s=duration_s, step_s=step_s, max_things=max_things)
    assert world == make_world(seed, duration_s=duration_s, step_s=step_s, max_things=max_things)
    assert min(max_things, 1) <= len(world.things) <= max_things
    assert world.backgrounds[0].start_s == 0
    names = [thing.name for thing in world.things]
    assert len(set(names)) == len(names), "two objects of one name could not be told apart"
    for thing in world.things:
        assert thing.color in COLORS and thing.shape in SHAPES
        assert 0 <= thing.appear_s < max(duration_s, step_s) and thing.appear_s < thing.leave_s
        assert math.isclose(thing.appear_s / step_s, round(thing.appear_s / step_s), abs_tol=1e-9)
        for time_s in (0.0, thing.move_start_s, (thing.move_start_s + thing.move_end_s) / 2, duration_s):
            x, y = thing.place(time_s)
            low = thing.radius - 1e-9
            assert low <= x <= world.aspect - low and low <= y <= 1 - low


def test_seeds_make_different_worlds() -> None:
    made = worlds(50)
    assert len({world.things for world in made}) == len(made)


def test_objects_come_together_in_some_worlds_and_one_by_one_in_others() -> None:
    starts = [[thing.appear_s for thing in world.things] for world in worlds(100) if len(world.things) > 1]
    together = sum(len(set(s)) == 1 for s in starts)
    apart = sum(len(set(s)) == len(s) for s in starts)
    assert together > 10 and apart > 10


def test_all_that_can_be_drawn_is_drawn() -> None:
    made = worlds(150)
    things = [thing for world in made for thing in world.things]
    assert {thing.color for thing in things} == set(COLORS)
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.entry for thing in things} == {"pop", "slide", "fade"}
    assert {len(world.things) for world in made} == {1, 2, 3, 4}
    assert any(thing.leave_s <= 16 for thing in things) and any(thing.leave_s > 16 for thing in things)
    assert any(thing.start_xy == thing.end_xy for thing in things)
    assert any(len(world.backgrounds) > 1 for world in made)


def test_colours_are_what_their_names_say() -> None:
    for world in worlds(100):
        for thing in world.things:
            hue, saturation, value = colorsys.rgb_to_hsv(*thing.rgb)
            if thing.color == "white":
                assert saturation < 0.1 and value > 0.9
                continue
            low, high = {
                "red": (-15, 15),
                "green": (90, 155),
                "blue": (200, 250),
                "yellow": (45, 65),
                "purple": (265, 306),
            }[thing.color]
            degrees = hue * 360 if hue * 360 <= high else hue * 360 - 360
            assert low <= degrees <= high and saturation > 0.4 and value > 0.4


def test_a_move_goes_straight_from_start_to_end_and_then_stays() -> None:
    thing = next(t for w in worlds(50) for t in w.things if t.start_xy != t.end_xy)
    assert thing.place(thing.move_start_s - 5) == thing.start_xy
    half = thing.place((thing.move_start_s + thing.move_end_s) / 2)
    assert half == pytest.approx([(a + b) / 2 for a, b in zip(thing.start_xy, thing.end_xy, strict=True)])
    assert thing.place(thing.move_end_s + 5) == pytest.approx(thing.end_xy)


def test_an_aspect_that_is_given_is_kept() -> None:
    assert make_world(3, aspect=2.0).aspect == 2.0


@pytest.mark.parametrize(
    "wrong", [{"duration_s": 0.0}, {"step_s": -1.0}, {"max_things": 5}, {"max_things": -1}, {"duration_s": math.nan}]
)
def test_an_impossible_world_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"a world needs duration_s > 0, step_s > 0 and 0 to 4 things; got"):
        make_world(0, **wrong)  # type: ignore[arg-type]

"""Wide worlds: drawn from a seed, hard to watch, and with nothing in them that cannot be seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.stream import open_source
from millpond.stream.render import render
from millpond.stream.ticker_glyphs import paint_ticker
from millpond.stream.wide_world import MOST_THINGS, make_wide_world
from millpond.stream.world import COLORS, TICKER_SHARE, Ticker, World

# Shapes: H height, W width, N moments, O objects.

seeds = st.integers(0, 2**31)
SIZE = 96


def worlds(num: int) -> list[World]:
    return [make_wide_world(seed) for seed in range(num)]


@given(seeds, st.sampled_from([4.0, 64.0, 86_400.0]), st.sampled_from([0.5, 1.0]), st.integers(0, MOST_THINGS))
@settings(max_examples=40)
def test_a_seed_makes_one_world_with_no_more_things_than_asked_for(
    seed: int, duration_s: float, step_s: float, max_things: int
) -> None:
    world = make_wide_world(seed, duration_s=duration_s, step_s=step_s, max_things=max_things)
    assert world == make_wide_world(seed, duration_s=duration_s, step_s=step_s, max_things=max_things)
    assert len(world.things) <= max_things
    names = [thing.name for thing in world.things]
    assert len(set(names)) == len(names)
    floor = 1.0 if world.extras.ticker is None else 1 - TICKER_SHARE
    for thing in world.things:
        assert 0 <= thing.appear_s < thing.leave_s and thing.appear_s < duration_s
        assert math.isclose(thing.appear_s / step_s, round(thing.appear_s / step_s), abs_tol=1e-6)
        for x, y in (thing.start_xy, thing.end_xy):
            assert thing.radius - 1e-9 <= x <= world.aspect - thing.radius + 1e-9
            assert thing.radius - 1e-9 <= y <= floor - thing.radius + 1e-9


@given(seeds)
@settings(max_examples=25)
def test_whatever_is_there_can_be_seen(seed: int) -> None:
    world = make_wide_world(seed)
    times_s = [float(n) for n in range(16)]
    cover_NO = render(world, times_s, width=SIZE, height=SIZE).cover_NOHW.sum((2, 3))
    for number, thing in enumerate(world.things):
        for n, time_s in enumerate(times_s):
            if thing.appear_s <= time_s < thing.leave_s:
                # About two patches of 8 by 8 pixels at least, whatever else is in the picture.
                assert cover_NO[n, number] > 40, (thing, time_s)


def test_all_that_makes_a_world_hard_occurs_and_is_missing_in_others() -> None:
    made = worlds(120)
    for name in ("grain", "shake", "drift", "ticker", "distractors"):
        given_ = [bool(getattr(world.extras, name)) for world in made]
        assert 10 < sum(given_) < 100, name
    things = [thing for world in made for thing in world.things]
    assert sum(thing.leave_s - thing.appear_s <= 3 for thing in things) > 40, "some come once and are soon gone"
    areas = [
        render(w, [t.appear_s], width=SIZE, height=SIZE).cover_NOHW[0, 0].sum() for w in made for t in w.things[:1]
    ]
    assert sum(area < 4 * 64 for area in areas) > 20, "some are as small as four patches"
    assert max(len(world.things) for world in made) == 6
    assert all(thing.color not in COLORS for world in made for thing in world.extras.distractors)


def test_a_shaking_camera_moves_the_scene_and_not_the_ticker() -> None:
    world = next(w for w in worlds(300) if w.extras.shake == 0.02 and w.extras.ticker and not w.noise and not w.flicker)
    ticker = world.extras.ticker
    assert ticker is not None
    begin = round(SIZE * (1 - TICKER_SHARE))
    one, other = render(world, [0.0, 0.001], width=SIZE, height=SIZE).rgb_NHW3
    assert (one[:begin] != other[:begin]).any()
    assert (one[begin:] == other[begin:]).all()


def test_digits_are_told_apart_and_stand_in_their_columns() -> None:
    painted = []
    for digit in range(10):
        picture_1HW3 = np.zeros((1, SIZE, SIZE, 3), np.float32)
        paint_ticker(Ticker(3, (0.0,), (11 * digit,), True), picture_1HW3, np.zeros(1))
        strip_HW = picture_1HW3[0, -16:, :, 0]
        ink = strip_HW > 0.5
        assert not picture_1HW3[0, :-16].any()
        assert ink[:, 48:64].any() and ink[:, 64:80].any() and not ink[:, :48].any() and not ink[:, 80:].any()
        assert (strip_HW[:, 48:64] == strip_HW[:, 64:80]).all()
        painted.append(strip_HW[:, 48:64])
    gaps = [np.abs(one - other).sum() for n, one in enumerate(painted) for other in painted[:n]]
    assert min(gaps) > 5


def test_a_number_shows_from_its_start_on() -> None:
    ticker = Ticker(0, (0.0, 2.0, 5.0), (3, 88, 41), True)
    assert [ticker.reading(t) for t in (0.0, 1.9, 2.0, 4.9, 5.0, 99.0)] == ["03", "03", "88", "88", "41", "41"]


def test_a_source_paints_the_wide_world_of_its_seed() -> None:
    with open_source("synthetic://shapes?seed=4&wide=1&duration_s=3&rate_hz=1&width=96&height=96&objects=8") as source:
        pictures = [frame.rgb_HW3 for frame in source]
    world = make_wide_world(4, duration_s=3.0, max_things=8, aspect=1.0)
    assert (np.stack(pictures) == render(world, [0.0, 1.0, 2.0], width=96, height=96).rgb_NHW3).all()


@pytest.mark.parametrize("wrong", [{"duration_s": 0.0}, {"step_s": -1.0}, {"max_things": 9}, {"duration_s": math.nan}])
def test_an_impossible_world_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"a wide world needs .* got"):
        make_wide_world(0, **wrong)  # type: ignore[arg-type]

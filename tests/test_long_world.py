"""Long worlds: full of events from the first minute to the last, and never more at once than can be counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.stream import SourceError, open_source
from millpond.stream.long_world import MOST_LONG_THINGS, make_long_world
from millpond.stream.render import render
from millpond.stream.wide_world import MOST_THINGS, make_wide_world
from millpond.stream.world import COLORS, SHAPES, TICKER_SHARE

seeds = st.integers(0, 2**31)


@given(seeds, st.sampled_from([60.0, 600.0, 86_400.0]), st.sampled_from([0.5, 1.0]), st.integers(0, MOST_LONG_THINGS))
@settings(max_examples=40)
def test_a_seed_makes_one_world_of_things_that_come_and_go(
    seed: int, duration_s: float, step_s: float, max_things: int
) -> None:
    world = make_long_world(seed, duration_s=duration_s, step_s=step_s, max_things=max_things)
    assert world == make_long_world(seed, duration_s=duration_s, step_s=step_s, max_things=max_things)
    assert len({thing.name for thing in world.things}) == len(world.things) <= max_things
    floor = 1.0 if world.extras.ticker is None else 1 - TICKER_SHARE
    longest_s = max(3 * step_s, 6 * duration_s / max(1, max_things))
    for thing in world.things:
        assert 0 <= thing.appear_s < thing.leave_s <= duration_s, "it is gone at the end"
        assert thing.leave_s - thing.appear_s <= longest_s + 1e-6
        assert math.isclose(thing.appear_s / step_s, round(thing.appear_s / step_s), abs_tol=1e-6)
        for x, y in (thing.start_xy, thing.end_xy):
            assert thing.radius - 1e-9 <= x <= world.aspect - thing.radius + 1e-9
            assert thing.radius - 1e-9 <= y <= floor - thing.radius + 1e-9
        at_once = [t for t in world.things if t.appear_s <= thing.appear_s < t.leave_s]
        assert len(at_once) <= 6


def test_things_come_all_through_a_day() -> None:
    for seed in range(20):
        came_s = [thing.appear_s for thing in make_long_world(seed, duration_s=86_400.0).things]
        assert len(came_s) >= 10
        counts, _ = np.histogram(came_s, bins=4, range=(0, 86_400))
        assert counts.min() >= 1, "a quarter of a day without anything new"
    tickers = [make_long_world(seed, duration_s=86_400.0).extras.ticker for seed in range(40)]
    numbers = [len(ticker.numbers) for ticker in tickers if ticker is not None]
    assert 20 < len(numbers) < 40 and min(numbers) > 10


@given(seeds)
@settings(max_examples=8)
def test_whatever_is_there_can_be_seen(seed: int) -> None:
    world = make_long_world(seed, duration_s=600.0, max_things=12)
    for number, thing in enumerate(world.things):
        at_s = [thing.appear_s, thing.leave_s - 1]
        cover_N = render(world, at_s, width=96, height=96).cover_NOHW[:, number].sum((1, 2))
        assert cover_N.min() > 40, thing


def test_a_source_has_a_long_world_where_more_is_asked_for_than_fits_at_once() -> None:
    uri = "synthetic://shapes?seed=4&wide=1&duration_s=600&rate_hz=1&width=96&height=96&objects={}"
    with open_source(uri.format(MOST_THINGS)) as few, open_source(uri.format(MOST_THINGS + 1)) as many:
        assert few.world == make_wide_world(4, duration_s=600.0, max_things=8, aspect=1.0)  # type: ignore[attr-defined]
        assert many.world == make_long_world(4, duration_s=600.0, max_things=9, aspect=1.0)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("query", "match"),
    [
        ("objects=5", "objects must be at most 4 where wide=0; got 5"),
        ("wide=1&objects=19", "objects must be a whole number from 0 to 18; got '19'"),
        ("wide=1&objects=18&duration_s=20", "a long world needs .* got max_things=18, duration_s=20.0"),
    ],
)
def test_a_source_refuses_what_no_world_can_hold(query: str, match: str) -> None:
    with pytest.raises(SourceError, match=match):
        open_source(f"synthetic://shapes?{query}")


@pytest.mark.parametrize(
    "wrong", [{"duration_s": 0.0}, {"step_s": -1.0}, {"max_things": 19}, {"duration_s": math.nan}, {"duration_s": 15.0}]
)
def test_an_impossible_world_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"a long world needs .* got"):
        make_long_world(0, **wrong)  # type: ignore[arg-type]


def test_there_is_always_a_name_of_nothing_that_has_come() -> None:
    assert len(COLORS) * len(SHAPES) - MOST_LONG_THINGS >= 6

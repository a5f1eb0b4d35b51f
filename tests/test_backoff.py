"""Waits grow, stop growing, and are never the same for all."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.stream.backoff import Backoff

BACKOFFS = st.builds(
    lambda first_s, times, jitter: Backoff(first_s, first_s * times, jitter),
    st.floats(1e-3, 60),
    st.floats(1, 1000),
    st.floats(0, 1),
)


def test_without_chance_waits_double_up_to_the_longest() -> None:
    run = Backoff(1.0, 10.0, jitter=0.0).start()
    assert [run.draw() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    run.reset()
    assert [run.draw() for _ in range(2)] == [1.0, 2.0]


def test_a_slow_wait_is_the_longest_and_leaves_the_others_as_they_are() -> None:
    run = Backoff(1.0, 10.0, jitter=0.0).start()
    assert [run.draw(), run.draw_slow(), run.draw()] == [1.0, 10.0, 2.0]


@given(backoff=BACKOFFS, seed=st.integers(), moves=st.lists(st.sampled_from(["draw", "draw", "slow", "reset"])))
def test_a_wait_is_never_longer_than_asked_nor_shorter_than_chance_may_make_it(
    backoff: Backoff, seed: int, moves: list[str]
) -> None:
    run = backoff.start(random.Random(seed))
    whole_s = backoff.first_s
    for move in moves:
        if move == "reset":
            run.reset()
            whole_s = backoff.first_s
            continue
        wait_s = run.draw() if move == "draw" else run.draw_slow()
        asked_s = whole_s if move == "draw" else backoff.longest_s
        assert asked_s * (1 - backoff.jitter) * (1 - 1e-9) <= wait_s <= asked_s
        if move == "draw":
            whole_s = min(2 * whole_s, backoff.longest_s)


def test_it_goes_on_for_ever() -> None:
    run = Backoff(0.5, 30.0).start()
    assert all(math.isfinite(wait_s) and 0 < wait_s <= 30.0 for wait_s in (run.draw() for _ in range(5000)))


def test_many_that_fail_at_once_do_not_come_back_at_once() -> None:
    backoff = Backoff(8.0, 60.0, jitter=0.5)
    waits_s = [backoff.start().draw() for _ in range(200)]
    assert len({round(wait_s, 1) for wait_s in waits_s}) > 20
    assert max(waits_s) - min(waits_s) > 2.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0.0, 1.0), "0 < first_s <= longest_s, finite; got first_s=0.0"),
        ((2.0, 1.0), "got first_s=2.0, longest_s=1.0"),
        ((1.0, math.inf), "longest_s=inf"),
        ((math.nan, 1.0), "first_s=nan"),
        ((1.0, 2.0, 1.5), "jitter is a share, 0 to 1; got jitter=1.5"),
    ],
)
def test_wrong_waits(arguments: tuple[float, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Backoff(*arguments)

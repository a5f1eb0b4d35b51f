"""When reuse rests and when it comes back, by times that are given to it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from millpond.encoders.reuse.pace import Costs, Trial


def test_costs_are_the_least_that_was_measured() -> None:
    costs = Costs()
    assert costs.whole_s == costs.dense_s == math.inf
    for seconds in (9.0, 1.0, 3.0):
        costs.whole_took(seconds, compared_s=0.25)
    assert (costs.whole_s, costs.dense_s) == (1.0, 0.75)
    costs.dense_took(0.5)
    assert (costs.whole_s, costs.dense_s) == (1.0, 0.5)
    assert costs.partial_s(50, 100) == 0.5, "in proportion, until it was measured"
    costs.partial_took(20, 0.3)
    costs.partial_took(20, 5.0)
    assert costs.partial_s(10, 100) == costs.partial_s(20, 100) == 0.3
    assert math.isclose(costs.partial_s(40, 100), 0.6)
    costs.partial_took(40, 0.4)
    assert costs.partial_s(40, 100) == 0.4
    costs.forget_partial()
    assert costs.partial_s(50, 100) == 0.5


@given(st.lists(st.tuples(st.integers(1, 700), st.floats(1e-4, 3.0)), min_size=1, max_size=40))
def test_more_rows_never_cost_less(measured: list[tuple[int, float]]) -> None:
    costs = Costs()
    for num_rows, seconds in measured:
        costs.partial_took(num_rows, seconds)
    expected = [costs.partial_s(rows, 729) for rows in range(1, 730)]
    assert expected == sorted(expected) and expected[0] > 0


def rest(trial: Trial, dense_s: float = 1.0) -> int:
    num_rested = 0
    while trial.is_resting:
        trial.dense_took(dense_s)
        num_rested += 1
    return num_rested


def try_out(trial: Trial, seconds: float, dense_s: float = 1.0) -> int:
    """Blocks with reuse, up to the first control."""
    num_tried = 0
    while not trial.wants_control:
        trial.took(seconds, dense_s)
        num_tried += 1
        assert num_tried < 100
    return num_tried


def test_what_is_slower_rests_and_longer_each_time() -> None:
    trial, rests = Trial(), []
    for _ in range(4):
        assert try_out(trial, 1.1) == 6
        assert not trial.is_resting
        trial.dense_took(1.0)
        rests.append(rest(trial))
    assert rests == [64, 256, 1024, 1024]


def test_what_is_much_slower_is_held_against_a_dense_block_soon() -> None:
    assert try_out(Trial(), 1.2) == 3


def test_what_only_seemed_slow_goes_on() -> None:
    trial = Trial()
    assert try_out(trial, 2.0) == 3
    trial.dense_took(4.0)  # the machine is busy, and a dense block takes longer still
    assert not trial.is_resting and not trial.wants_control
    assert try_out(trial, 2.0) == 12, "and is not suspected again at once"


@given(st.lists(st.floats(0.01, 1.0), max_size=100))
def test_what_is_not_slower_is_never_suspected(seconds: list[float]) -> None:
    trial = Trial()
    for one in seconds:
        trial.took(one, dense_s=1.0)
        assert not trial.wants_control and not trial.is_resting


def test_one_slow_block_is_no_reason() -> None:
    trial = Trial()
    for number in range(60):
        trial.took(50.0 if number % 4 == 0 else 0.2, dense_s=1.0)
        assert not trial.wants_control


def test_what_was_fast_again_rests_shortly_the_next_time() -> None:
    trial = Trial()
    try_out(trial, 1.2)
    trial.dense_took(1.0)
    assert rest(trial) == 64
    for _ in range(8):
        trial.took(0.1, dense_s=1.0)
    try_out(trial, 5.0)
    trial.dense_took(1.0)
    assert rest(trial) == 64

"""When reuse rests and when it comes back, by times that are given to it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from millpond.encoders.reuse.pace import Costs, Trial


def test_costs_are_what_was_measured() -> None:
    costs = Costs()
    assert costs.whole_s == costs.dense_s == math.inf
    costs.whole_took(9.0, compared_s=0.5)  # pays for what is made once
    assert (costs.whole_s, costs.dense_s) == (9.0, 8.5)
    for _ in range(3):
        costs.whole_took(1.0, compared_s=0.25)
    assert (costs.whole_s, costs.dense_s) == (1.0, 0.75)
    assert costs.partial_s(50, 100) == 0.5, "in proportion, until it was measured"
    for rows in (10, 20, 40):
        costs.partial_took(rows, 0.1 + 0.01 * rows)
    assert math.isclose(costs.partial_s(30, 100), 0.4)
    costs.dense_took(0.9)
    assert costs.dense_s == 0.9 and costs.whole_s == 1.0


def test_one_number_of_rows_is_scaled() -> None:
    costs = Costs()
    for _ in range(4):
        costs.partial_took(10, 0.2)
    assert math.isclose(costs.partial_s(20, 100), 0.4)


@given(st.lists(st.tuples(st.integers(1, 700), st.floats(1e-4, 3.0)), min_size=3, max_size=40), st.integers(1, 729))
def test_an_expectation_is_never_negative(measured: list[tuple[int, float]], rows: int) -> None:
    costs = Costs()
    for num_rows, seconds in measured:
        costs.partial_took(num_rows, seconds)
    assert 0 <= costs.partial_s(rows, 729) < math.inf


def test_what_is_slower_rests_and_longer_each_time() -> None:
    trial, rests = Trial(), []
    for _ in range(4):
        num_tried = 1
        while not trial.took(1.2, dense_s=1.0):
            num_tried += 1
            assert num_tried < 10
        num_rested = 0
        while trial.is_resting:
            trial.rested()
            num_rested += 1
        rests.append(num_rested)
    assert rests == [64, 256, 1024, 1024]


def test_what_is_much_slower_rests_at_once() -> None:
    trial = Trial()
    assert not trial.took(1.2, dense_s=1.0) and not trial.took(1.2, dense_s=1.0)
    assert trial.took(1.2, dense_s=1.0) and trial.is_resting
    other = Trial()
    assert [other.took(1.1, dense_s=1.0) for _ in range(6)] == [False] * 5 + [True]


@given(st.lists(st.floats(0.01, 1.0), max_size=100))
def test_what_is_not_slower_never_rests(seconds: list[float]) -> None:
    trial = Trial()
    assert not any(trial.took(one, dense_s=1.0) for one in seconds) and not trial.is_resting


def test_what_was_fast_again_rests_shortly_the_next_time() -> None:
    trial = Trial()
    while not trial.took(1.2, dense_s=1.0):
        pass
    while trial.is_resting:
        trial.rested()
    for _ in range(8):
        trial.took(0.1, dense_s=1.0)
    while not trial.took(5.0, dense_s=1.0):
        pass
    num_rested = 0
    while trial.is_resting:
        trial.rested()
        num_rested += 1
    assert num_rested == 64

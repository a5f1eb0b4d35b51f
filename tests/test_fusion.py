"""Fusion of ranked lists, and the picking of few that differ: order, bounds, determinism."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory.fusion import closeness, fuse, pick
from millpond.stream import Span

units = st.integers(0, 30)
rankings = st.lists(st.lists(units, unique=True, max_size=15), max_size=5)


@given(rankings=rankings, data=st.data())
def test_scores_are_sums_of_one_over_rank(rankings: list[list[int]], data: st.DataObject) -> None:
    weights = data.draw(
        st.none() | st.lists(st.floats(0, 10), min_size=len(rankings), max_size=len(rankings)), label="weights"
    )
    scores = fuse(rankings, weights)
    assert set(scores) == {unit for ranking in rankings for unit in ranking}
    for unit, score in scores.items():
        expected = sum(
            (1.0 if weights is None else weights[i]) / (61 + ranking.index(unit))
            for i, ranking in enumerate(rankings)
            if unit in ranking
        )
        assert score == pytest.approx(expected)
    order = data.draw(st.permutations(range(len(rankings))))
    turned = fuse([rankings[i] for i in order], None if weights is None else [weights[i] for i in order])
    assert turned == scores  # exactly: the order of the lists does not matter


@given(ranking=st.lists(units, unique=True, min_size=1), others=rankings)
def test_one_list_stays_in_its_order_and_being_named_never_hurts(ranking: list[int], others: list[list[int]]) -> None:
    alone = fuse([ranking])
    assert sorted(alone, key=alone.__getitem__, reverse=True) == ranking
    without, with_it = fuse(others), fuse([*others, ranking])
    assert all(with_it[unit] > without.get(unit, 0.0) for unit in ranking)


def test_two_lists_that_agree_outweigh_one_that_is_sure() -> None:
    scores = fuse([["a", "c"], ["b", "c"], ["d"]])
    assert max(scores, key=scores.__getitem__) == "c"
    assert fuse([[], []]) == fuse([]) == {}
    assert fuse([["a"], ["b"]], [1.0, 2.0])["b"] == 2 * fuse([["a"]])["a"]


spans = st.builds(lambda start_s, for_s: Span(start_s, start_s + for_s), st.integers(0, 200), st.integers(0, 5))
held = st.dictionaries(units, st.tuples(st.floats(0, 1), spans), max_size=20)
Held = dict[int, tuple[float, Span]]


@given(held=held, num_units=st.integers(0, 25), diversity=st.floats(0, 1))
def test_picks_that_many_different_ones_and_the_best_first(held: Held, num_units: int, diversity: float) -> None:
    scores = {unit: score for unit, (score, _) in held.items()}
    times = {unit: span for unit, (_, span) in held.items()}
    chosen = pick(scores, times, num_units, diversity)
    assert len(chosen) == len(set(chosen)) == min(num_units, len(held))
    assert set(chosen) <= set(held)
    if chosen:
        assert scores[chosen[0]] == max(scores.values())
        # Fewer are the first of more.
        assert pick(scores, times, num_units - 1, diversity) == chosen[: num_units - 1]
    if len(set(times.values())) == len(held):  # else only their order tells two apart
        assert pick(dict(reversed(scores.items())), times, num_units, diversity) == chosen


@given(held=held, num_units=st.integers(0, 25))
def test_without_diversity_the_best_are_picked_the_earlier_of_two_alike(held: Held, num_units: int) -> None:
    scores = {unit: score for unit, (score, _) in held.items()}
    times = {unit: span for unit, (_, span) in held.items()}
    best = sorted(scores, key=lambda unit: (-scores[unit], times[unit]))[:num_units]
    chosen = pick(scores, times, num_units, 0.0)
    assert [(scores[u], times[u]) for u in chosen] == [(scores[u], times[u]) for u in best]


@given(held=held, diversity=st.floats(0, 1))
def test_each_step_takes_the_largest_marginal_relevance(held: Held, diversity: float) -> None:
    scores = {unit: score for unit, (score, _) in held.items()}
    times = {unit: span for unit, (_, span) in held.items()}
    chosen = pick(scores, times, len(held), diversity)
    best = max(scores.values(), default=1.0) or 1.0

    def worth(unit: int, before: list[int]) -> float:
        alike = max(closeness(times[unit], times[other]) for other in before)
        return (1 - diversity) * scores[unit] / best - diversity * alike

    for step in range(1, len(chosen)):
        before, left = chosen[:step], chosen[step:]
        assert worth(chosen[step], before) >= max(worth(unit, before) for unit in left) - 1e-12


def test_diversity_spreads_over_time_and_over_what_is_shown() -> None:
    scores = {i: 1.0 - 0.01 * i for i in range(10)}  # ten good moments within a second
    scores |= {100: 0.5, 200: 0.4}
    times = {i: Span(0.1 * i, 0.1 * i) for i in scores}
    times |= {100: Span(100.0, 100.0), 200: Span(200.0, 200.0)}
    assert pick(scores, times, 3, 0.0) == [0, 1, 2]
    assert pick(scores, times, 3, 0.5) == [0, 100, 200]
    same_place = lambda a, b: float(a % 2 == b % 2)  # noqa: E731
    assert pick(scores, times, 2, 0.5, same_place) == [0, 1]
    assert pick(scores, times, 2, 1.0, same_place)[1] % 2 == 1


@given(a=spans, b=spans)
def test_closeness_is_a_similarity(a: Span, b: Span) -> None:
    assert 0 <= closeness(a, b) == closeness(b, a) <= 1
    assert closeness(a, a) == 1.0
    further = Span(b.start_s + 1000, b.end_s + 1000)
    assert closeness(a, further) < 1e-30
    assert closeness(Span(0, 1), Span(11, 12)) == pytest.approx(math.exp(-1))


def test_refuses() -> None:
    span = {"a": Span(0.0, 0.0)}
    with pytest.raises(ValueError, match="one weight; got 1 for 2 rankings"):
        fuse([["a"], ["b"]], [1.0])
    with pytest.raises(ValueError, match=r"nor k negative; got \[-1.0\] and k=60"):
        fuse([["a"]], [-1.0])
    with pytest.raises(ValueError, match="names each unit once; got one of 3 with 2 units"):
        fuse([["a", "b", "a"]])
    with pytest.raises(ValueError, match="diversity must be from 0 to 1; got nan"):
        pick({"a": 1.0}, span, 1, math.nan)
    with pytest.raises(ValueError, match="num_units must not be negative; got -1"):
        pick({"a": 1.0}, span, -1, 0.5)
    with pytest.raises(ValueError, match="scores must be finite and not negative; got inf for 'a'"):
        pick({"a": math.inf}, span, 1, 0.5)
    with pytest.raises(ValueError, match="needs a span; got none for 'b'"):
        pick({"a": 1.0, "b": 0.5}, span, 1, 0.5)

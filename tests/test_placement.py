"""Placement: streams stay, workers are alike busy, and no more moves than that takes."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.pipeline.cluster.placement import place

WORKERS = ("a", "b", "c", "d")
worker_sets = st.dictionaries(st.sampled_from(WORKERS), st.sampled_from([0.0, 1.0]), max_size=4)
homes = st.dictionaries(st.integers(0, 11).map(str), st.sampled_from([*WORKERS, "gone"]), max_size=12)


def spread(placed: dict[str, str], workers: dict[str, float]) -> int:
    on = Counter(placed.values())
    each = [on[worker] for worker in workers if workers[worker]]
    return max(each) - min(each)


def num_moves(placed: dict[str, str], now: dict[str, str], workers: dict[str, float]) -> int:
    return sum(workers.get(now.get(stream, ""), 0) > 0 and now[stream] != placed[stream] for stream in placed)


@given(homes, st.integers(0, 5), worker_sets)
@settings(max_examples=200)
def test_streams_of_one_weight(now: dict[str, str], num_new: int, workers: dict[str, float]) -> None:
    streams = dict.fromkeys([*now, *(f"new{i}" for i in range(num_new))], 1.0)
    placed = place(streams, workers, now)
    if not any(workers.values()):
        assert placed == {}
        return
    assert list(placed) == list(streams)
    assert all(workers[worker] for worker in placed.values()), "a stream is on a worker that is dead"
    assert spread(placed, workers) <= 1
    # Nothing moves twice: placed as they are, they stay.
    assert place(streams, workers, placed) == placed


@given(st.lists(st.sampled_from("abcx"), min_size=1, max_size=6), st.sampled_from(["ab", "abc", "bc"]))
@settings(max_examples=60)
def test_no_fewer_moves_would_do(homes_: list[str], alive: str) -> None:
    workers = dict.fromkeys(alive, 1.0)
    now = {str(i): home for i, home in enumerate(homes_)}
    streams = dict.fromkeys(now, 1.0)
    ways = [dict(zip(streams, way, strict=True)) for way in product(alive, repeat=len(streams))]
    fewest = min(num_moves(way, now, workers) for way in ways if spread(way, workers) <= 1)
    assert num_moves(place(streams, workers, now), now, workers) == fewest


@given(
    st.dictionaries(st.integers(0, 14).map(str), st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=1),
    st.dictionaries(st.sampled_from(WORKERS), st.sampled_from([0, 1.0, 4.0]), min_size=1),
    homes,
    st.sets(st.integers(0, 14).map(str)),
    st.randoms(use_true_random=False),
)
@settings(max_examples=200)
def test_streams_and_workers_of_all_kinds(streams, workers, now, pinned, random) -> None:  # type: ignore[no-untyped-def]
    placed = place(streams, workers, now, pinned=pinned)
    if not any(workers.values()):
        assert placed == {}
        return

    def load(worker: str, but: float = 0.0) -> float:
        return (sum(streams[s] for s in streams if placed[s] == worker) + but) / workers[worker]

    held = {stream for stream in pinned & streams.keys() if workers.get(now.get(stream, ""), 0) > 0}
    assert all(placed[stream] == now[stream] for stream in held)
    for stream, worker in placed.items():
        if stream in held:
            continue
        for other in (w for w in workers if workers[w] and w != worker):
            after = max(load(worker, -streams[stream]), load(other, streams[stream]))
            assert after >= load(worker) * (1 - 1e-6), f"moving {stream} to {other} would help {worker}"
    assert place(streams, workers, placed, pinned=pinned) == placed
    shuffled = [random.sample(list(x.items()), len(x)) for x in (streams, workers, now)]
    assert place(*(dict(items) for items in shuffled), pinned=pinned) == placed, "the order of the arguments shows"


def test_only_a_dead_workers_streams_move_where_the_others_have_room() -> None:
    streams = {f"s{i:04}": 1.0 for i in range(1000)}
    workers = {f"w{i:02}": 1.0 for i in range(64)}
    before = place(streams, workers, {})
    lost = {stream for stream, worker in before.items() if worker == "w07"}
    after = place(streams, {**workers, "w07": 0.0}, before)
    assert {stream for stream in streams if after[stream] != before[stream]} == lost
    assert spread(after, {**workers, "w07": 0.0}) <= 1
    back = place(streams, workers, after)
    assert sum(back[stream] != after[stream] for stream in streams) == 1000 // 64
    assert spread(back, workers) <= 1


def test_a_new_stream_goes_where_least_is_that_must_stay() -> None:
    now = {"1": "a", "2": "a", "3": "a", "4": "b"}
    placed = place(dict.fromkeys([*now, "new"], 1.0), {"a": 1.0, "b": 1.0}, now, pinned=now)
    assert placed == {**now, "new": "b"}


def test_a_worker_may_be_said_to_live_with_a_bool() -> None:
    assert place({"x": 1, "y": 1}, {"a": True, "b": False}, {"x": "b"}) == {"x": "a", "y": "a"}


def test_a_worker_that_carries_more_gets_more() -> None:
    placed = place(dict.fromkeys("12345678", 1.0), {"big": 3.0, "small": 1.0}, {})
    assert Counter(placed.values()) == {"big": 6, "small": 2}


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_weights_that_mean_nothing_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"weight of stream 'x' .* got"):
        place({"x": weight}, {"a": 1.0}, {})


@pytest.mark.parametrize("capacity", [-1.0, math.inf, math.nan])
def test_capacities_that_mean_nothing_are_refused(capacity: float) -> None:
    with pytest.raises(ValueError, match=r"capacity of worker 'a' .* got"):
        place({"x": 1.0}, {"a": capacity}, {})

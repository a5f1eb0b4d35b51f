"""Events: a stream is cut where it changes, within limits, by a cutter that does not grow."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.memory.events import Event, EventCutter, unit
from millpond.stream import Span

# Shapes: D channels of a block's vector.


def scene(number: int, step: int) -> torch.Tensor:
    """A vector of the scene, a little different at each step."""
    made = torch.Generator().manual_seed(number)
    own_D = torch.randn(32, generator=made)
    made.manual_seed(1000 * number + step)
    return own_D + 0.1 * torch.randn(32, generator=made)


def cut(vectors: list[torch.Tensor], cutter: EventCutter) -> list[Event]:
    closed = [cutter.see(Span(t, t + 1), vector_D) for t, vector_D in enumerate(vectors)]
    return [event for event in (*closed, cutter.close()) if event is not None]


def test_scenes_are_events() -> None:
    lengths = [10, 7, 23, 12]
    vectors = [scene(number, step) for number, length in enumerate(lengths) for step in range(length)]
    events = cut(vectors, EventCutter())
    assert [event.num_blocks for event in events] == lengths
    assert [event.span for event in events] == [Span(0, 10), Span(10, 17), Span(17, 40), Span(40, 52)]
    assert [event.number for event in events] == [0, 1, 2, 3]


def test_a_cut_is_known_one_block_late() -> None:
    cutter = EventCutter()
    vectors = [scene(number, step) for number in range(2) for step in range(10)]
    closed = [cutter.see(Span(t, t + 1), vector_D) for t, vector_D in enumerate(vectors)]
    assert [t for t, event in enumerate(closed) if event is not None] == [11]


def test_settled_names_the_event_of_the_block_before() -> None:
    cutter = EventCutter(number=5)
    settled = []
    for t in range(20):
        cutter.see(Span(t, t + 1), scene(t // 10, t))
        settled.append(cutter.settled)
    cutter.close()
    assert settled == [None] + [5] * 10 + [6] * 9 and cutter.settled == 6


@pytest.mark.parametrize("noise", [0.0, 1e-4, 0.02])
def test_a_still_scene_is_cut_at_its_longest_only(noise: float) -> None:
    torch.manual_seed(0)
    still_D = torch.randn(32)
    vectors = [still_D + noise * torch.randn(32) for _ in range(150)]
    assert [event.num_blocks for event in cut(vectors, EventCutter(max_blocks=64))] == [64, 64, 22]


def test_a_clock_that_goes_back_begins_an_event() -> None:
    cutter = EventCutter()
    first_D = scene(0, 0)
    assert cutter.see(Span(100, 101), first_D) is None
    assert cutter.see(Span(101, 102), first_D) is None
    assert cutter.see(Span(0, 1), first_D) == Event(0, Span(100, 102), 2)
    assert cutter.close() == Event(1, Span(0, 1), 1)


def test_closing_twice_closes_once() -> None:
    cutter = EventCutter()
    assert cutter.close() is None
    cutter.see(Span(0, 1), scene(0, 0))
    assert cutter.close() == Event(0, Span(0, 1), 1)
    assert cutter.close() is None
    cutter.see(Span(1, 2), scene(0, 1))
    assert cutter.close() == Event(1, Span(1, 2), 1)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.integers(-3, 9), st.integers(0, 3)), max_size=60),
    st.integers(1, 5),
    st.integers(0, 6),
)
def test_events_cover_the_stream_within_their_limits(
    steps: list[tuple[int, int]], min_blocks: int, more_blocks: int
) -> None:
    cutter = EventCutter(min_blocks=min_blocks, max_blocks=min_blocks + more_blocks)
    events, spans, now_s = [], [], 0.0
    for step_s, number in steps:
        now_s += step_s
        spans.append(Span(now_s, now_s + 0.5))
        event = cutter.see(spans[-1], scene(number, len(spans)))
        if event is not None:
            events.append(event)
    last = cutter.close()
    events += [last] if last is not None else []
    assert sum(event.num_blocks for event in events) == len(spans)
    assert [event.number for event in events] == list(range(len(events)))
    assert all(1 <= event.num_blocks <= min_blocks + more_blocks for event in events)
    at = 0
    for event in events:
        own = spans[at : at + event.num_blocks]
        assert event.span == Span(own[0].start_s, max(span.end_s for span in own))
        assert all(a.start_s <= b.start_s for a, b in pairwise(own)), "the clock went back inside"
        at += event.num_blocks
        goes_on = at < len(spans) and spans[at].start_s >= own[-1].start_s
        if goes_on:
            assert event.num_blocks >= min_blocks


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_unit_vector_has_length_one_whatever_it_was(scale: float) -> None:
    assert unit(torch.tensor([3.0, 4.0]) * scale).tolist() == pytest.approx([0.6, 0.8])


def test_zeros_stay_zeros() -> None:
    assert unit(torch.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("vector", "sentence"),
    [
        (torch.tensor([1.0, float("nan")]), r"got NaN or infinity at Span\(1.000"),
        (torch.tensor([float("inf"), 1.0]), "got NaN or infinity"),
        (torch.zeros(2, 2), "got shape"),
        (torch.zeros(3), "one length; got 3 at .* after 2"),
    ],
)
def test_a_vector_that_is_none_is_refused_and_changes_nothing(vector: torch.Tensor, sentence: str) -> None:
    cutter = EventCutter()
    cutter.see(Span(0, 1), torch.ones(2))
    with pytest.raises(ValueError, match=sentence):
        cutter.see(Span(1, 2), vector)
    assert cutter.close() == Event(0, Span(0, 1), 1)


@pytest.mark.parametrize(
    ("settings_", "sentence"),
    [
        ({"min_blocks": 0}, "got 0 and 64"),
        ({"min_blocks": 9, "max_blocks": 8}, "got 9 and 8"),
        ({"similarity": 1.5}, "got 1.5"),
        ({"depth": -1.0}, "got -1.0"),
        ({"number": -1}, "got -1"),
    ],
)
def test_settings_are_checked(settings_: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        EventCutter(**settings_)  # type: ignore[arg-type]

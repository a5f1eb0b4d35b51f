"""Turns: what an engine with many streams does next. Questions, then narrations, then frames; nothing starves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Load:
    """What one stream has to be done. Made by the hub, read by `next_turn`.

    num_waiting: frames that wait to be taken.
    age_s: of its newest processed frame; infinity before the first.
    num_questions: those that wait; one that is being answered is none of them.
    wants_narration: whether a narration is due.
    is_busy: an answer or narration of it is being decoded: it takes neither frames nor questions now.
    waited_s: how long its oldest question, or else its due narration, has waited: who waited longest goes first.
    num_since_frame: answers and narrations of it that were begun since its last frame.
    """

    stream_id: str
    num_waiting: int
    age_s: float
    num_questions: int = 0
    wants_narration: bool = False
    is_busy: bool = False
    waited_s: float = 0.0
    num_since_frame: int = 0

    def __post_init__(self) -> None:
        for name in ("num_waiting", "num_questions", "num_since_frame"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} counts things and must be 0 or more; got {getattr(self, name)}")
        for name in ("age_s", "waited_s"):
            # A clock that was set back makes a stream look young; it must not stop the others.
            if isnan(getattr(self, name)):
                raise ValueError(f"{name} must be a number of seconds; got nan")


class Turn(NamedTuple):
    """What is done in one turn, as ids of streams, who goes first before the others. No stream is in it twice."""

    questions: tuple[str, ...]
    narrations: tuple[str, ...]
    frames: tuple[str, ...]


def next_turn(
    loads: Sequence[Load],
    *,
    max_frames: int,
    max_answers: int,
    num_answering: int,
    num_since_frames: int,
    patience: int = 4,
) -> Turn:
    """What to do next: one step of all that is being decoded, and beside it what is in the turn.

    1. Questions, one of a stream, who waited longest first, while fewer than `max_answers` are being decoded.
    2. Narrations, likewise, where no question could be begun; they leave one place free for a question.
    3. Frames, one of a stream, the stream with the oldest newest frame first, at most `max_frames`: where nothing is
       being decoded or begun, or where `patience` turns have passed without any.

    A stream that was answered since its last frame takes the one that waits before it is answered again. So a question
    costs a frame at most a few turns, and no number of questions stops a stream. The same loads give the same turn, in
    whatever order they come.

    num_answering: answers and narrations that are being decoded.
    num_since_frames: turns that have passed since frames were taken.
    """
    for name, given, least in (
        ("max_frames", max_frames, 1),
        ("max_answers", max_answers, 1),
        ("num_answering", num_answering, 0),
        ("num_since_frames", num_since_frames, 0),
        ("patience", patience, 1),
    ):
        if given < least:
            raise ValueError(f"{name} must be {least} or more; got {given}")
    free = [load for load in loads if not load.is_busy]
    askable = [load for load in free if not (load.num_waiting and load.num_since_frame)]
    asked = [load for load in askable if load.num_questions]
    questions = _first(asked, max_answers - num_answering)
    narrations: tuple[str, ...] = ()
    if not asked:
        # A narration takes as long as an answer: with all places taken by them, a question would wait for one.
        num_places = max(max_answers - 1, 1) - num_answering
        narrations = _first((load for load in askable if load.wants_narration), num_places)
    is_idle = not (questions or narrations or num_answering)
    if not is_idle and num_since_frames < patience:
        return Turn(questions, narrations, ())
    taken = {*questions, *narrations}
    due = [load for load in free if load.num_waiting and load.stream_id not in taken]
    due.sort(key=lambda load: (-load.age_s, load.stream_id))
    return Turn(questions, narrations, tuple(load.stream_id for load in due[:max_frames]))


def _first(loads: Iterable[Load], num_places: int) -> tuple[str, ...]:
    """Who waited longest."""
    ordered = sorted(loads, key=lambda load: (-load.waited_s, load.stream_id))
    return tuple(load.stream_id for load in ordered[: max(num_places, 0)])

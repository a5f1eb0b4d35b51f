"""The ways to show a stream to a method: streamed into a session, or looked back at when something is asked."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ...stream import Frame
from ..answer import Answer, Timing
from ..engine import Engine
from ..question import Question
from ..session import Session
from .method import Show, Told, Viewing

# How many frames a uniform choice is made from, for each that is chosen. With 4, a chosen frame lies at most an eighth
# of the distance between two of them beside its place.
_STOCK = 4


@dataclass(frozen=True, kw_only=True)
class Streamed(Show):
    """Every frame goes into one session as it comes, and questions are put to that."""

    def start(self, engine: Engine, stream_id: str) -> Viewing:
        return _Streamed(engine, stream_id)


class _Streamed(Viewing):
    def __init__(self, engine: Engine, stream_id: str) -> None:
        self._session = engine.session(stream_id)

    def see(self, frame: Frame) -> None:
        self._session.push(frame)

    def ask(self, question: Question) -> Told:
        return _told(self._session, self._session.ask_question(question))

    def close(self) -> None:
        self._session.close()


@dataclass(frozen=True, kw_only=True)
class LookedBack(Show):
    """Nothing is read until something is asked; then frames of the past are, anew for each question, in a session of
    their own. The settings must let that session hold so many: see `recent_frames`.

    num_frames: how many are read, at most.
    choose: "last": the newest; "uniform": spread evenly from the first to the newest, both among them. Of a long past
        one in 2^k frames is kept to choose from, so what is held stays bounded.
    """

    num_frames: int
    choose: Literal["last", "uniform"]

    def __post_init__(self) -> None:
        if isinstance(self.num_frames, bool) or not isinstance(self.num_frames, int) or self.num_frames < 1:
            raise ValueError(f"num_frames must be a whole number, at least 1; got {self.num_frames!r}")
        if self.choose not in ("last", "uniform"):
            raise ValueError(f"choose must be 'last' or 'uniform'; got {self.choose!r}")

    def start(self, engine: Engine, stream_id: str) -> Viewing:
        stock = Newest(self.num_frames) if self.choose == "last" else Spread(self.num_frames)
        return _LookedBack(engine, stream_id, stock)


class Newest:
    """The last frames of a stream."""

    def __init__(self, num_frames: int) -> None:
        self._frames: deque[Frame] = deque(maxlen=num_frames)

    def add(self, frame: Frame) -> None:
        self._frames.append(frame)

    @property
    def chosen(self) -> list[Frame]:
        return list(self._frames)

    @property
    def held(self) -> list[Frame]:
        return list(self._frames)


class Spread:
    """Frames spread evenly over all of a stream so far, from a bounded stock of it.

    stride 1   0 1 2 3 4 5 6 7 | 8     full: every other one leaves, and from now on every other one enters
    stride 2   0   2   4   6     8 10 12 14 | 16
    """

    def __init__(self, num_frames: int) -> None:
        self._num_frames = num_frames
        self._stock: list[Frame] = []
        self._newest: Frame | None = None
        self._stride = 1
        self._num_added = 0

    def add(self, frame: Frame) -> None:
        if self._num_added % self._stride == 0:
            if len(self._stock) == 2 * _STOCK * self._num_frames:
                self._stock = self._stock[::2]
                self._stride *= 2
            self._stock.append(frame)
        self._num_added += 1
        self._newest = frame

    @property
    def chosen(self) -> list[Frame]:
        """As many as are wanted, or all there are, the first and the newest among them; one alone is the newest."""
        held = self.held
        num_chosen = min(self._num_frames, len(held))
        if num_chosen < 2:
            return held[-1:]
        return [held[round(place)] for place in np.linspace(0, len(held) - 1, num_chosen)]

    @property
    def held(self) -> list[Frame]:
        if self._newest is None or self._stock[-1] is self._newest:
            return list(self._stock)
        return [*self._stock, self._newest]


class _LookedBack(Viewing):
    def __init__(self, engine: Engine, stream_id: str, stock: Newest | Spread) -> None:
        self._engine, self._stream_id, self._stock = engine, stream_id, stock

    def see(self, frame: Frame) -> None:
        self._stock.add(frame)

    def ask(self, question: Question) -> Told:
        began_s = time.perf_counter()
        session = self._engine.session(self._stream_id)
        try:
            for frame in self._stock.chosen:
                session.push(frame)
            pushed_s = time.perf_counter() - began_s
            answer = session.ask_question(question)
            timing = Timing(pushed_s + answer.timing.ttft_s, pushed_s + answer.timing.total_s)
            told = _told(session, replace(answer, timing=timing))
        finally:
            session.close()
        return told._replace(held_bytes=told.held_bytes + sum(frame.rgb_HW3.nbytes for frame in self._stock.held))

    def close(self) -> None:
        self._stock = Newest(1)


def _told(session: Session, answer: Answer) -> Told:
    return Told(answer, session.memory.num_bytes, session.num_bytes)

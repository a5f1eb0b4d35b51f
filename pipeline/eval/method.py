"""EvalMethod: one row of what is compared: the settings of an engine, and how it is given frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ...stream import Frame
from ..answer import Answer
from ..config import EngineConfig
from ..engine import Engine
from ..question import Question


class Told(NamedTuple):
    """An answer, and what stood behind it.

    kv_bytes: keys and values kept for the stream, at rest and in every context. held_bytes: all that is kept for it.
    """

    answer: Answer
    kv_bytes: int
    held_bytes: int


class Viewing(ABC):
    """One stream as a method sees it. Made by `Show.start`, driven by the runner: frames in order of time, questions in
    between. Not thread-safe.

    Promises, checked for every row: an answer rests on frames that were shown before it was asked, and on no question
    asked before; what is held does not grow without bound, but where the method is to keep everything.
    """

    @abstractmethod
    def see(self, frame: Frame) -> None:
        """Takes the next frame. What it costs now is the method's cost per frame."""

    @abstractmethod
    def ask(self, question: Question) -> Told:
        """Answers after the frames seen so far; the stream goes on afterwards as if nothing had been asked. The
        answer's timing counts all work from the question on. ValueError where the method cannot answer: nothing was
        seen, or what it would look at does not fit."""

    @abstractmethod
    def close(self) -> None:
        """Lets everything go. Idempotent."""


class Show(ABC):
    """How a method is given frames: a frozen dataclass of its settings, which are part of a result's fingerprint."""

    @abstractmethod
    def start(self, engine: Engine, stream_id: str) -> Viewing:
        """A fresh stream. The id is free in the engine, and so are ids that begin with it."""


def unchanged(base: EngineConfig) -> EngineConfig:
    """The settings as they were given: what Millpond does by default."""
    return base


@dataclass(frozen=True, kw_only=True)
class EvalMethod:
    """One way of watching that is compared with others. Made by METHODS' rows and by users, read by the runner.

    name: a word; results carry it, and files are named by it.
    about: one sentence, for tables and --help.
    config: from the settings that all methods of a run share (model, fps, answer length) to this one's.
    show: how it is given frames; see showing.py.
    """

    name: str
    about: str
    show: Show
    config: Callable[[EngineConfig], EngineConfig] = unchanged

    def __post_init__(self) -> None:
        if not self.name or not all(part.isalnum() for part in self.name.split("-")):
            raise ValueError(f"a method's name is words of letters and digits, joined by '-'; got {self.name!r}")
        if not self.about.strip():
            raise ValueError(f"method {self.name!r} needs a sentence that says what it is; got {self.about!r}")
        if not isinstance(self.show, Show):
            raise ValueError(f"method {self.name!r} needs a Show, as showing.py has them; got {self.show!r}")

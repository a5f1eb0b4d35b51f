"""Answering: questions of many sessions on their way to their answers, decoded together; others join at any time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .answer import Answer
from .generate import Decoding, Prompt
from .question import Question
from .session import Asked, Session

if TYPE_CHECKING:
    from .engine import Engine


@dataclass(frozen=True, slots=True, eq=False)
class Asking:
    """One question on its way in. Made by whoever asks.

    key: comes back with the answer.
    on_text: called with the text so far, as it grows.
    asked_s: when it was asked, on `time.perf_counter`'s clock; times to the answer count from there.
    """

    key: Hashable
    session: Session
    question: Question
    on_text: Callable[[str], None] | None = None
    asked_s: float = field(default_factory=time.perf_counter)


class Answered(NamedTuple):
    """What came of a question: an answer, or why there is none."""

    key: Hashable
    answer: Answer | None
    error: Exception | None = None


class _Going(NamedTuple):
    asking: Asking
    asked: Asked


class Answering:
    """Sessions that are being asked, each with its questions in order. Not thread-safe: the engine's thread's.

        begin: [tail of every session, one packed read] -> first questions
        step:  one token for every answer on its way; a session's next question begins where one is done

    What is not read for good yet is read for the questions only, and taken back after a session's last one. Until then
    the session is busy: no frame is read into it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._decoding = Decoding(engine.model)
        self._going: dict[int, _Going] = {}
        self._waiting: dict[Session, deque[Asking]] = {}

    def __len__(self) -> int:
        """How many answers are being decoded."""
        return len(self._going)

    @property
    def keys(self) -> list[Hashable]:
        """Of the questions that are being decoded."""
        return [asking.key for asking, _ in self._going.values()]

    def is_busy(self, session: Session) -> bool:
        """Whether a question of it is not answered yet."""
        return session in self._waiting

    def begin(self, askings: Sequence[Asking]) -> list[Answered]:
        """Starts on questions of sessions that are not busy. Returns those that cannot be answered."""
        waiting: dict[Session, deque[Asking]] = {}
        for asking in askings:
            if self.is_busy(asking.session):
                raise ValueError(
                    f"{asking.session!r} is being asked already; got {asking.question!r}; ask when it is done"
                )
            waiting.setdefault(asking.session, deque()).append(asking)
        begun: list[Session] = []
        try:
            for session in waiting:
                session.begin_tail()
                begun.append(session)
            for session, blocks in self._engine.read_rows([(session, session.tail()) for session in waiting]):
                session.add_tail(blocks)
        except BaseException:
            for session in begun:
                session.drop_tail()
            raise
        self._waiting |= waiting
        return [failed for session in waiting for failed in self._advance(session)]

    def step(self) -> list[Answered]:
        """One token more of every answer. Returns what is done, and what turned out to have no answer."""
        done: list[Answered] = []
        for number, generated in self._decoding.step():
            asking, asked = self._going.pop(number)
            done.append(Answered(asking.key, asked.finish(generated)))
            done += self._advance(asking.session)
        return done

    def stop(self, error: Exception, *, only: Session | None = None) -> list[Answered]:
        """Gives up all questions, or those of one session, with this as the reason."""
        given_up: list[Asking] = []
        for number, (asking, _) in tuple(self._going.items()):
            if only in (None, asking.session):
                self._decoding.drop(number)
                del self._going[number]
                given_up.append(asking)
        for session in tuple(self._waiting):
            if only in (None, session):
                given_up += self._waiting.pop(session)
                session.drop_tail()
        return [Answered(asking.key, None, error) for asking in given_up]

    def give_up(self, key: Hashable, error: Exception) -> list[Answered]:
        """Gives up one question that is being decoded, with this as the reason; none where there is no such."""
        for number, (asking, _) in tuple(self._going.items()):
            if asking.key is key:
                self._decoding.drop(number)
                del self._going[number]
                return [Answered(key, None, error), *self._advance(asking.session)]
        return []

    def _advance(self, session: Session) -> list[Answered]:
        """Begins the session's next question; returns those on the way to it that cannot be answered."""
        failed: list[Answered] = []
        waiting = self._waiting[session]
        while waiting:
            asking = waiting.popleft()
            try:
                asked = session.prepare(asking.question, asking.asked_s)
            except ValueError as error:
                failed.append(Answered(asking.key, None, error))
                continue
            prompt = Prompt(asked.context, asked.text, asked.max_new_tokens, asking.on_text)
            self._going[self._decoding.add(prompt)] = _Going(asking, asked)
            return failed
        del self._waiting[session]
        session.drop_tail()
        return failed

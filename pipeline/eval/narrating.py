"""Narrating: a session that speaks of its own accord, and is asked afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from ...stream import Frame
from ..engine import Engine
from ..question import Question
from ..session import Session
from .method import Show, Told, Viewing


@dataclass(frozen=True, kw_only=True)
class Narrating(Show):
    """Every frame goes into one session, which says what is new whenever its settings say that it is time: see
    `NarrationConfig`. What it said is lines of its log, and a question recalls these as any other does: a model that
    can read notes reads them, and one that cannot is shown the moments they are about."""

    def start(self, engine: Engine, stream_id: str) -> Viewing:
        return _Narrating(engine.session(stream_id))


class _Narrating(Viewing):
    def __init__(self, session: Session) -> None:
        self._session = session

    def see(self, frame: Frame) -> None:
        self._session.push(frame)
        self._session.narrate()

    def ask(self, question: Question) -> Told:
        answer = self._session.ask_question(question)
        return Told(answer, self._session.memory.num_bytes, self._session.num_bytes)

    def close(self) -> None:
        self._session.close()

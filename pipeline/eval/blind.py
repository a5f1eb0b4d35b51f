"""Blind: a method that is told the time and shown nothing. What it gets right, words alone give away."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...stream import Frame
from ..engine import Engine
from ..question import Question
from .method import Show, Told, Viewing


@dataclass(frozen=True, kw_only=True)
class Blind(Show):
    """Every frame is black when `watching` is given it."""

    watching: Show

    def start(self, engine: Engine, stream_id: str) -> Viewing:
        return _Blind(self.watching.start(engine, stream_id))


class _Blind(Viewing):
    def __init__(self, viewing: Viewing) -> None:
        self._viewing = viewing

    def see(self, frame: Frame) -> None:
        self._viewing.see(replace(frame, rgb_HW3=np.zeros_like(frame.rgb_HW3)))

    def ask(self, question: Question) -> Told:
        return self._viewing.ask(question)

    def close(self) -> None:
        self._viewing.close()

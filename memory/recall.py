"""Recall: what a question brings back of older blocks."""

from __future__ import annotations

from dataclasses import dataclass

from ..stream import Span
from .block import KVBlock


@dataclass(frozen=True, slots=True)
class Recall:
    """Made by Memory, read by `Memory.context` and sessions, written by nobody: what a question brings back.

    blocks: in order of time, all older than the recent window.
    scores: one for each block, as the retriever gave it.
    num_missed: how many were chosen but had been lost by their tier.
    parts: where blocks are put together from several: the spans of those.
    """

    blocks: tuple[KVBlock, ...] = ()
    scores: tuple[float, ...] = ()
    num_missed: int = 0
    parts: tuple[Span, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.scores):
            raise ValueError(
                f"a recall has one score for each block; got {len(self.scores)} for {len(self.blocks)} blocks"
            )
        starts_s = [block.span.start_s for block in self.blocks]
        if starts_s != sorted(starts_s):
            raise ValueError(f"recalled blocks must be in order of time; got starts {starts_s[:20]}")

    @property
    def spans(self) -> tuple[Span, ...]:
        """What was brought back, in order of time."""
        return tuple(block.span for block in self.blocks) if self.parts is None else self.parts

    def __repr__(self) -> str:
        return f"Recall({len(self.blocks)} blocks, {self.num_missed} missed)"

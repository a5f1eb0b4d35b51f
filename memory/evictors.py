"""Evictors: which block leaves when the budget is full."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

from ..stream import Span
from ..stream.table import Table
from .block import BlockId


@dataclass(frozen=True)
class Evictor(ABC):
    """A frozen recipe that names the next block to go.

    Promises, checked for every row: it names one of the blocks that it is shown; the same blocks give the
    same answer; it changes nothing.
    """

    @abstractmethod
    def choose(self, older: Mapping[BlockId, Span], novelty: Callable[[BlockId], float | None]) -> BlockId:
        """The block to let go.

        Args:
            older: of these; older than the recent window, in order of time, one at least.
            novelty: how novel each is, 0 to 2; None where the retriever does not know.
        """


@dataclass(frozen=True)
class OldestEvictor(Evictor):
    """First in, first out.

    Baseline: a sliding window.
    Differs from the paper: None.
    """

    def choose(self, older: Mapping[BlockId, Span], novelty: Callable[[BlockId], float | None]) -> BlockId:
        return next(iter(older))


@dataclass(frozen=True)
class LeastNovelEvictor(Evictor):
    """Of the older half, the block in which least is novel: what happened stays, and what went on and on goes.

    Of two as novel, and of those whose novelty the retriever does not know, the older goes.

    Baseline: `oldest`.
    Differs from the paper: None.

    among: of how many of the oldest at most, at least 1; one less than so many stay for as long as nothing more novel
        gets that old.
    """

    among: int = 256

    def __post_init__(self) -> None:
        if self.among < 1:
            raise ValueError(f"among must be at least 1; got {self.among}")

    def choose(self, older: Mapping[BlockId, Span], novelty: Callable[[BlockId], float | None]) -> BlockId:
        oldest = islice(older, max(1, min(self.among, len(older) // 2)))
        return min(oldest, key=lambda block_id: novelty(block_id) or 0.0)


EVICTORS: Table[Evictor] = Table(
    "evictor",
    __package__ or "",
    {"least_novel": "evictors:LeastNovelEvictor", "oldest": "evictors:OldestEvictor"},
)

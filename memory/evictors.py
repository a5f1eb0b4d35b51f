"""Evictors: which block leaves when the budget is full."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

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
    def choose(self, older: Mapping[BlockId, Span]) -> BlockId:
        """The block to let go, of these: older than the recent window, in order of time, one at least."""


@dataclass(frozen=True)
class OldestEvictor(Evictor):
    """First in, first out.

    Baseline: a sliding window.
    Differs from the paper: None.
    """

    def choose(self, older: Mapping[BlockId, Span]) -> BlockId:
        return next(iter(older))


EVICTORS: Table[Evictor] = Table("evictor", __package__ or "", {"oldest": "evictors:OldestEvictor"})

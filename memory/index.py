"""Index: the contract of what a retriever remembers of the blocks that it may name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Set
from typing import NamedTuple

from torch import Tensor

from .block import BlockId, KVBlock, KVSpec

# Shapes: L layers, K key/value heads, D channels per head.


class Scored(NamedTuple):
    """A block and how well it fits the question; larger is better, comparable within one answer only."""

    id: BlockId
    score: float


class Index(ABC):
    """What a retriever remembers of one memory's older blocks. Not thread-safe: one per Memory.

    Promises, checked for every row: `best` changes nothing and names only blocks that are here, each once,
    best first; a dropped block is never named and nothing refers to its tensors; `num_bytes` is what it
    holds, `num_bytes_with` foretells it, and `check` recounts it; an index that is emptied holds nothing.
    """

    @abstractmethod
    def add(self, block: KVBlock) -> None:
        """Takes the block in; ValueError for an id that is here already."""

    @abstractmethod
    def drop(self, block_id: BlockId) -> None:
        """Forgets the block; KeyError where it is not here."""

    @abstractmethod
    def best(self, query_LKD: Tensor | None, num_blocks: int, among: Collection[BlockId] | None = None) -> list[Scored]:
        """At most `num_blocks` blocks that fit the query best, of those in `among` or of all."""

    @property
    @abstractmethod
    def ids(self) -> Set[BlockId]:
        """Ids of the blocks that it knows."""

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Bytes held, room for rows to come included."""

    @abstractmethod
    def num_bytes_with(self, spec: KVSpec) -> int:
        """What `num_bytes` will be after one more block of this spec."""

    @abstractmethod
    def check(self) -> None:
        """Recounts from scratch; RuntimeError with the numbers where the books do not balance."""

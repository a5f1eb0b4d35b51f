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
    """What a retriever remembers of one memory's older blocks: a row each. Not thread-safe: one per Memory.

    A row is kept with the block's record, so that an index is filled anew without unpacking a block.

    Promises, checked for every row of RETRIEVERS: `describe`, `accepts` and `best` change nothing; `accepts` takes
    what `describe` made; what is answered does not depend on the order in which blocks came and went; `best` names
    only blocks that are here, each once, best first, the newer first where two fit alike; a dropped block is never
    named, and nothing refers to a block's tensors; `num_bytes` is what it holds, `num_bytes_with` foretells it, and
    `check` recounts it; an index that is emptied holds nothing.
    """

    @abstractmethod
    def describe(
        self, block: KVBlock, before: Tensor | None = None, after: KVBlock | Tensor | None = None
    ) -> Tensor | None:
        """The block's row: small, on the CPU, in storage of its own. None where this index needs none.

        before: the row of the block that came before, where that is known. after: the block that came next, or its row
        where it is exact no more.
        """

    @abstractmethod
    def accepts(self, row: Tensor | None, spec: KVSpec) -> bool:
        """Whether `add` takes the row for a block of this spec; one that another recipe made must be made anew."""

    @abstractmethod
    def add(self, block_id: BlockId, row: Tensor | None, start_s: float) -> None:
        """Takes the block in; ValueError for an id that is here already, and for a row that does not belong.

        start_s: when the block begins, in stream time.
        """

    @abstractmethod
    def drop(self, block_id: BlockId) -> None:
        """Forgets the block; KeyError where it is not here."""

    @abstractmethod
    def best(self, query_LKD: Tensor | None, num_blocks: int, among: Collection[BlockId] | None = None) -> list[Scored]:
        """At most `num_blocks` blocks that fit the query best, of those in `among` or of all."""

    def best_by_layer(
        self, query_LKD: Tensor, num_blocks: int, among: Collection[BlockId] | None = None
    ) -> list[list[Scored]]:
        """What each layer of the query would choose for itself; here all choose alike."""
        return [self.best(query_LKD, num_blocks, among)] * len(query_LKD)

    def novelty(self, block_id: BlockId) -> float | None:
        """How novel a block that is here is, 0 to 2; None where this index does not know."""
        return None

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

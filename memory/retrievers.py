"""Retrievers: which older blocks a question needs. They are handed a query vector and never call a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Set
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..stream.table import Table
from .block import BlockId, KVBlock, KVSpec
from .index import Index, Scored
from .key_index import KeyIndex

# Shapes: L layers, K key/value heads, D channels per head.


@dataclass(frozen=True)
class Retriever(ABC):
    """A frozen recipe; `start` gives the index that one memory fills.

    needs_query: whether `best` needs the question's query, or does without (None).
    """

    needs_query: ClassVar[bool]

    @abstractmethod
    def start(self) -> Index:
        """An empty index."""


@dataclass(frozen=True)
class ByKeyRetriever(Retriever):
    """The blocks whose mean key points where the question's mean query points.

    1. A block's representative is the mean over its tokens of the keys before rotation, per layer and head.
    2. The score is the cosine of that with the question's mean query before rotation, averaged over layers
       and heads.

    Paper: Streaming Video Question-Answering with In-context Video KV-Cache Retrieval (arXiv 2503.00540)
    Differs from the paper: one choice for all layers, where ReKV's each choose their own; a true cosine,
    where its code takes the dot product; keys as they are, where ReKV repeats them for every query head (7
    times the bytes on a 7B model); the recent window is always in the context, where ReKV's must be
    retrieved; the index is bounded in bytes.
    """

    needs_query: ClassVar[bool] = True

    def start(self) -> Index:
        return KeyIndex()


@dataclass(frozen=True)
class RecentRetriever(Retriever):
    """The newest of the older blocks, whatever is asked.

    Baseline: a longer window.
    Differs from the paper: None.
    """

    needs_query: ClassVar[bool] = False

    def start(self) -> Index:
        return _RecentIndex()


class _RecentIndex(Index):
    """Ids in the order in which they came; costs no tensor bytes."""

    def __init__(self) -> None:
        self._order: dict[BlockId, None] = {}

    def add(self, block: KVBlock) -> None:
        if block.id in self._order:
            raise ValueError(f"block {block.id} is in this index already; drop it before adding it again")
        self._order[block.id] = None

    def drop(self, block_id: BlockId) -> None:
        del self._order[block_id]

    def best(self, query_LKD: Tensor | None, num_blocks: int, among: Collection[BlockId] | None = None) -> list[Scored]:
        wanted = self._order.keys() if among is None else set(among)
        newest = (i for i in reversed(self._order) if i in wanted)
        return [Scored(i, float(-age)) for age, i in zip(range(num_blocks), newest, strict=False)]

    @property
    def ids(self) -> Set[BlockId]:
        return self._order.keys()

    @property
    def num_bytes(self) -> int:
        return 0

    def num_bytes_with(self, spec: KVSpec) -> int:
        return 0

    def check(self) -> None:
        """Nothing is counted, so nothing can be off."""


RETRIEVERS: Table[Retriever] = Table(
    "retriever",
    __package__ or "",
    {"by_key": "retrievers:ByKeyRetriever", "recent": "retrievers:RecentRetriever"},
)

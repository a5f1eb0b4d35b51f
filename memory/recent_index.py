"""RecentIndex: blocks in order of time, for who wants the newest."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Set

from torch import Tensor

from .block import BlockId, KVBlock, KVSpec
from .index import Index, Scored

# Shapes: L layers, K key/value heads, D channels per head.


class RecentIndex(Index):
    """Needs no rows and no queries, takes any, and costs no tensor bytes; scores are 0, -1, -2 and so on."""

    def __init__(self) -> None:
        self._order: list[tuple[float, BlockId]] = []
        self._start_by_id: dict[BlockId, float] = {}

    @property
    def ids(self) -> Set[BlockId]:
        return self._start_by_id.keys()

    @property
    def num_bytes(self) -> int:
        return 0

    def num_bytes_with(self, spec: KVSpec) -> int:
        return 0

    def describe(
        self, block: KVBlock, before: Tensor | None = None, after: KVBlock | Tensor | None = None
    ) -> Tensor | None:
        return None

    def accepts(self, row: Tensor | None, spec: KVSpec) -> bool:
        return True

    def add(self, block_id: BlockId, row: Tensor | None, start_s: float) -> None:
        if block_id in self._start_by_id:
            raise ValueError(f"block {block_id} is in this index already; drop it before adding it again")
        self._start_by_id[block_id] = start_s
        bisect.insort(self._order, (start_s, block_id))

    def drop(self, block_id: BlockId) -> None:
        start_s = self._start_by_id.pop(block_id)
        del self._order[bisect.bisect_left(self._order, (start_s, block_id))]

    def best(self, query_LKD: Tensor | None, num_blocks: int, among: Collection[BlockId] | None = None) -> list[Scored]:
        wanted = self._start_by_id.keys() if among is None else set(among)
        newest = (block_id for _, block_id in reversed(self._order) if block_id in wanted)
        return [Scored(block_id, float(-age)) for age, block_id in zip(range(num_blocks), newest, strict=False)]

    def check(self) -> None:
        if sorted((start_s, block_id) for block_id, start_s in self._start_by_id.items()) != self._order:
            raise RuntimeError(f"the index knows {len(self._start_by_id)} blocks, and orders {len(self._order)} others")

"""KeyIndex: the mean keys of all older blocks, side by side, so that a question meets them in one product."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Set
from typing import NamedTuple

import torch
from torch import Tensor

from .block import BlockId, KVBlock, KVSpec
from .index import Index, Scored
from .owned import storage_bytes

# Shapes: L layers, K key/value heads, D channels per head, N rows, C = L * K * D.

_FIRST_ROWS = 8


class _Place(NamedTuple):
    """Where a row is: the number of its chunk, and the row that the chunk begins with."""

    chunk: int
    first_row: int


def _place(row: int) -> _Place:
    """By arithmetic, since every chunk but the first is as large as all before it."""
    chunk = (row // _FIRST_ROWS).bit_length()
    return _Place(chunk, _FIRST_ROWS << (chunk - 1) if chunk else 0)


class KeyIndex(Index):
    """Unit mean keys, one row of C channels a block, in a few chunks.

        chunk 0: rows 0..7 | chunk 1: rows 8..15 | chunk 2: rows 16..31 | ...

    Growing copies nothing, and the chunks are so few that a question costs a handful of matrix-vector
    products. Freed rows are used again, lowest first, so the last chunk empties and is given back when blocks
    become fewer.
    """

    def __init__(self) -> None:
        self._chunks_NC: list[Tensor] = []
        self._num_used: list[int] = []  # rows in use, by chunk
        self._row_by_id: dict[BlockId, int] = {}
        self._free_rows: list[int] = []  # a heap
        self._num_bytes = 0
        self._shape_LKD: tuple[int, ...] | None = None

    @property
    def ids(self) -> Set[BlockId]:
        return self._row_by_id.keys()

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    @property
    def _num_rows(self) -> int:
        return len(self._row_by_id) + len(self._free_rows)

    def num_bytes_with(self, spec: KVSpec) -> int:
        if self._free_rows:
            return self._num_bytes
        row_bytes = spec.num_layers * spec.num_kv_heads * spec.head_dim * torch.float32.itemsize
        return self._num_bytes + max(_FIRST_ROWS, self._num_rows) * row_bytes

    def add(self, block: KVBlock) -> None:
        if block.id in self._row_by_id:
            raise ValueError(f"block {block.id} is in this index already; drop it before adding it again")
        mean_LKD = block.k_LKTD.mean(dim=2, dtype=torch.float32).cpu()
        if self._shape_LKD is None:
            self._shape_LKD = tuple(mean_LKD.shape)
        self._check_shape(mean_LKD, f"the keys of block {block.id}")
        if not self._free_rows:
            self._grow(mean_LKD.numel())
        row = heapq.heappop(self._free_rows)
        chunk, first_row = _place(row)
        # A block whose keys are not finite scores nothing, rather than above everything.
        self._chunks_NC[chunk][row - first_row] = _unit(mean_LKD).nan_to_num(0.0, 0.0, 0.0).flatten()
        self._num_used[chunk] += 1
        self._row_by_id[block.id] = row

    def drop(self, block_id: BlockId) -> None:
        row = self._row_by_id.pop(block_id)
        heapq.heappush(self._free_rows, row)
        self._num_used[_place(row).chunk] -= 1
        self._shrink()

    def best(self, query_LKD: Tensor | None, num_blocks: int, among: Collection[BlockId] | None = None) -> list[Scored]:
        if query_LKD is None:
            raise ValueError("retriever 'by_key' got no query; give it the question's, or use 'recent'")
        if self._shape_LKD is None:
            return []
        self._check_shape(query_LKD, "a query")
        query_LKD = query_LKD.detach().to(device="cpu", dtype=torch.float32)
        if not bool(query_LKD.isfinite().all()):
            raise ValueError("a query must be finite; got NaN or infinity, look at the model's dtype")
        num_layers, num_heads, _ = self._shape_LKD
        query_C = (_unit(query_LKD) / (num_layers * num_heads)).flatten()
        ids = list(self._row_by_id if among is None else among)
        rows_N = torch.tensor([self._row_by_id[i] for i in ids], dtype=torch.int64)
        scores_N = torch.cat([chunk_NC @ query_C for chunk_NC in self._chunks_NC])[rows_N]
        top = scores_N.topk(min(num_blocks, len(ids)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return [Scored(ids[at], score) for at, score in pairs]

    def check(self) -> None:
        counted_bytes = storage_bytes(self._chunks_NC)
        if counted_bytes != self._num_bytes:
            raise RuntimeError(f"the index's books say {self._num_bytes} bytes; it holds {counted_bytes}")
        num_rows = sum(len(chunk_NC) for chunk_NC in self._chunks_NC)
        if sorted([*self._row_by_id.values(), *self._free_rows]) != list(range(num_rows)):
            raise RuntimeError(
                f"the index has {num_rows} rows, but {len(self._row_by_id)} used ones "
                f"and {len(self._free_rows)} free ones"
            )
        num_used = [0] * len(self._chunks_NC)
        for row in self._row_by_id.values():
            num_used[_place(row).chunk] += 1
        if num_used != self._num_used:
            raise RuntimeError(f"the index's books say {self._num_used} used rows by chunk; it has {num_used}")

    def _grow(self, num_channels: int) -> None:
        first_row = self._num_rows
        chunk_NC = torch.zeros(max(_FIRST_ROWS, first_row), num_channels)
        self._chunks_NC.append(chunk_NC)
        self._num_used.append(0)
        self._num_bytes += storage_bytes([chunk_NC])
        self._free_rows = list(range(first_row, first_row + len(chunk_NC)))  # sorted, so a heap

    def _shrink(self) -> None:
        """Gives back last chunks that are empty, where half of what remains is free.

        With less than that free, the next blocks would only bring them back.
        """
        while self._chunks_NC and not self._num_used[-1]:
            num_rows_left = self._num_rows - len(self._chunks_NC[-1])
            if 2 * len(self._row_by_id) > num_rows_left:
                break
            self._num_bytes -= storage_bytes([self._chunks_NC.pop()])
            self._num_used.pop()
            self._free_rows = [row for row in self._free_rows if row < num_rows_left]
            heapq.heapify(self._free_rows)
        if not self._chunks_NC:
            self._shape_LKD = None

    def _check_shape(self, x_LKD: Tensor, what: str) -> None:
        if tuple(x_LKD.shape) != self._shape_LKD:
            raise ValueError(
                f"{what} must have the shape (layers, kv heads, channels) {self._shape_LKD} of the keys held "
                f"here; got {tuple(x_LKD.shape)}: one memory holds one model's blocks"
            )


def _unit(x_LKD: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x_LKD, dim=-1)

"""KeyRows: one row of keys for each block, side by side, so that a question meets them in a few products."""

from __future__ import annotations

import math
from collections.abc import Collection, Set
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .block import BlockId
from .index import Scored
from .owned import storage_bytes

# Shapes: H heads (a head of a layer, or a whole layer), D channels per head, N rows, n rows of one chunk,
# K vectors that rows are multiplied with.

_FIRST_ROWS = 8
# Chunks of 8, 8, 16, ... 256 rows make one tile, and every later chunk is one: see `dots`.
_TILE_ROWS = 512


class HeldRow(NamedTuple):
    """A row as it is kept. is_fit: whether its keys were finite, so that it may be named."""

    x_HD: Tensor
    is_fit: bool


class _Chunk(NamedTuple):
    x_HnD: Tensor
    square_Hn: Tensor  # squared lengths, float32
    start_n: Tensor
    id_n: Tensor
    fit_n: Tensor

    @property
    def num_rows(self) -> int:
        return len(self.id_n)


class KeyRows:
    """Rows in bfloat16, by block id, without gaps: the last row takes the place of one that is dropped.

        chunk 0: rows 0..7 | 1: 8..15 | 2: 16..31 | ... | 6: 256..511 | 7: 512..1023 | 8: 1024..1535 | ...

    Growing copies nothing, and the room that waits for rows to come is at most as much as there are rows, and at
    most 512 rows. Not thread-safe: one per index.
    """

    def __init__(self) -> None:
        self._chunks: list[_Chunk] = []
        self._row_by_id: dict[BlockId, int] = {}
        self._num_bytes = 0

    @property
    def ids(self) -> Set[BlockId]:
        return self._row_by_id.keys()

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    @property
    def shape_HD(self) -> tuple[int, int] | None:
        """Heads and channels of the rows held; None where there are none."""
        if not self._chunks:
            return None
        num_heads, _, head_dim = self._chunks[0].x_HnD.shape
        return num_heads, head_dim

    def num_bytes_with(self, num_heads: int, head_dim: int) -> int:
        """What `num_bytes` will be after one more row of this shape."""
        if len(self._row_by_id) < self._num_rows:
            return self._num_bytes
        return self._num_bytes + self._next_rows * (num_heads * (2 * head_dim + 4) + 8 + 8 + 1)

    def add(self, block_id: BlockId, x_HD: Tensor, start_s: float) -> bool:
        """Keeps the row; returns whether it is fit. One that is not finite stands for its block, and is never named."""
        if block_id in self._row_by_id:
            raise ValueError(f"block {block_id} is in this index already; drop it before adding it again")
        if not math.isfinite(start_s):
            raise ValueError(f"block {block_id} must start at a finite second; got {start_s}")
        if len(self._row_by_id) == self._num_rows:
            self._grow(*x_HD.shape)
        chunk, at = self._place(len(self._row_by_id))
        is_fit = bool(x_HD.isfinite().all())
        chunk.x_HnD[:, at] = x_HD if is_fit else 0.0
        chunk.square_Hn[:, at] = chunk.x_HnD[:, at].float().square().sum(dim=-1)
        chunk.start_n[at], chunk.id_n[at], chunk.fit_n[at] = start_s, block_id, is_fit
        self._row_by_id[block_id] = len(self._row_by_id)
        return is_fit

    def get(self, block_id: BlockId) -> HeldRow:
        """The row, as a view; KeyError where it is not here."""
        chunk, at = self._place(self._row_by_id[block_id])
        return HeldRow(chunk.x_HnD[:, at], bool(chunk.fit_n[at]))

    def drop(self, block_id: BlockId) -> None:
        """Forgets the row; KeyError where it is not here."""
        row = self._row_by_id.pop(block_id)
        last_row = len(self._row_by_id)
        if row != last_row:
            to, to_at = self._place(row)
            last, last_at = self._place(last_row)
            to.x_HnD[:, to_at], to.square_Hn[:, to_at] = last.x_HnD[:, last_at], last.square_Hn[:, last_at]
            for to_n, last_n in zip(to[2:], last[2:], strict=True):
                to_n[to_at] = last_n[last_at]
            self._row_by_id[BlockId(int(last.id_n[last_at]))] = row
        self._shrink()

    def dots(self, w_HKD: Tensor) -> np.ndarray:
        """float32 [H, K, N]: the products of every row with K vectors for each head.

        In tiles of one shape, whatever the chunks are: so equal rows have equal products, to the bit, wherever they
        stand, and a memory that was opened again answers as it did before.
        """
        num_heads, num_vectors, head_dim = w_HKD.shape
        num_rows = len(self._row_by_id)
        out_HKN = torch.empty(num_heads, num_vectors, num_rows)
        tile_HnD = torch.zeros(num_heads, _TILE_ROWS, head_dim)
        chunks = iter(self._chunks)
        for first_row in range(0, num_rows, _TILE_ROWS):
            filled, until = 0, min(_TILE_ROWS, self._num_rows - first_row)
            while filled < until:
                x_HnD = next(chunks).x_HnD
                tile_HnD[:, filled : filled + x_HnD.shape[1]] = x_HnD
                filled += x_HnD.shape[1]
            num_used = min(_TILE_ROWS, num_rows - first_row)
            out_HKn = torch.bmm(w_HKD, tile_HnD.transpose(1, 2))
            out_HKN[:, :, first_row : first_row + num_used] = out_HKn[:, :, :num_used]
        return out_HKN.numpy()

    @property
    def square_HN(self) -> np.ndarray:
        """float32: squared length of every head of every row."""
        return self._column([chunk.square_Hn for chunk in self._chunks])

    @property
    def start_N(self) -> np.ndarray:
        """float64: the seconds at which the blocks start."""
        return self._column([chunk.start_n for chunk in self._chunks])

    @property
    def id_N(self) -> np.ndarray:
        """int64: the blocks' ids."""
        return self._column([chunk.id_n for chunk in self._chunks])

    @property
    def fit_N(self) -> np.ndarray:
        """bool: which rows may be named."""
        return self._column([chunk.fit_n for chunk in self._chunks])

    def best(self, score_N: np.ndarray, num_blocks: int, among: Collection[BlockId] | None = None) -> list[Scored]:
        """At most `num_blocks` fit rows of the highest scores, best first; of two alike the later block."""
        id_N = self.id_N
        allowed_N = self.fit_N & np.isfinite(score_N)
        if among is not None:
            allowed_N &= np.isin(id_N, np.fromiter(among, np.int64, len(among)))
        rows = np.flatnonzero(allowed_N)
        num_blocks = min(num_blocks, len(rows))
        if num_blocks < 1:
            return []
        least = np.partition(score_N[rows], len(rows) - num_blocks)[len(rows) - num_blocks]
        rows = rows[score_N[rows] >= least]
        order = np.lexsort((id_N[rows], self.start_N[rows], score_N[rows]))[::-1][:num_blocks]
        return [Scored(BlockId(int(id_N[row])), float(score_N[row])) for row in rows[order]]

    def check(self) -> None:
        """Recounts from scratch; RuntimeError with the numbers where the books do not balance."""
        counted_bytes = storage_bytes(tensor for chunk in self._chunks for tensor in chunk)
        if counted_bytes != self._num_bytes:
            raise RuntimeError(f"the index's books say {self._num_bytes} bytes; it holds {counted_bytes}")
        num_rows = sum(chunk.num_rows for chunk in self._chunks)
        num_ids = len(self._row_by_id)
        if num_ids > num_rows or (num_ids == 0) != (num_rows == 0):
            raise RuntimeError(f"the index has room for {num_rows} rows, and says that it holds {num_ids}")
        if num_ids and self.id_N.tolist() != [
            block_id for block_id, _ in sorted(self._row_by_id.items(), key=lambda item: item[1])
        ]:
            raise RuntimeError(f"the index's {num_ids} rows are of other blocks than its books say")

    @property
    def _num_rows(self) -> int:
        """Rows that there is room for."""
        num_chunks = len(self._chunks)
        if num_chunks <= _NUM_SMALL:
            return _FIRST_ROWS << (num_chunks - 1) if num_chunks else 0
        return (num_chunks - _NUM_SMALL + 1) * _TILE_ROWS

    @property
    def _next_rows(self) -> int:
        """Rows of the chunk that would come next: as many as there are, within limits."""
        return max(_FIRST_ROWS, min(_TILE_ROWS, self._num_rows))

    def _place(self, row: int) -> tuple[_Chunk, int]:
        """The chunk that a row is in, and where there, by arithmetic."""
        if row >= _TILE_ROWS:
            return self._chunks[_NUM_SMALL - 1 + row // _TILE_ROWS], row % _TILE_ROWS
        number = (row // _FIRST_ROWS).bit_length()
        return self._chunks[number], row - (_FIRST_ROWS << (number - 1) if number else 0)

    def _column(self, parts: list[Tensor]) -> np.ndarray:
        """Side by side along their last dimension, without the room that is unused."""
        joined: np.ndarray = torch.cat(parts, dim=-1)[..., : len(self._row_by_id)].numpy()
        return joined

    @torch.inference_mode(False)  # so that rows may be written in any mode
    def _grow(self, num_heads: int, head_dim: int) -> None:
        num_rows = self._next_rows
        chunk = _Chunk(
            x_HnD=torch.zeros(num_heads, num_rows, head_dim, dtype=torch.bfloat16),
            square_Hn=torch.zeros(num_heads, num_rows),
            start_n=torch.zeros(num_rows, dtype=torch.float64),
            id_n=torch.zeros(num_rows, dtype=torch.int64),
            fit_n=torch.zeros(num_rows, dtype=torch.bool),
        )
        self._chunks.append(chunk)
        self._num_bytes += storage_bytes(chunk)

    def _shrink(self) -> None:
        """Gives the last chunk back once half as many rows could still come: with less room, it would soon be back."""
        while self._chunks:
            num_rows_left = self._num_rows - self._chunks[-1].num_rows
            if self._row_by_id and len(self._row_by_id) + self._chunks[-1].num_rows // 2 > num_rows_left:
                break
            self._num_bytes -= storage_bytes(self._chunks.pop())


# How many chunks come before the first that is a tile of its own: 8, 8, 16, ... up to half a tile.
_NUM_SMALL = (_TILE_ROWS // _FIRST_ROWS).bit_length()

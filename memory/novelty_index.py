"""NoveltyIndex: how novel something in each block is, and MixedIndex, which takes turns with what fits the question."""

from __future__ import annotations

from collections.abc import Collection, Set
from itertools import chain, zip_longest
from typing import TypeGuard

import torch
from torch import Tensor

from .block import BlockId, KVBlock, KVSpec
from .index import Index, Scored
from .key_index import KeyIndex, spread_layers, visual_keys
from .key_rows import KeyRows

# Shapes: L layers, S layers that are looked at, K key/value heads, T tokens, D channels per head, C = S * K * D
# channels of a token.

MOST_NOVEL = 2.0
_SHAPE = (1, 2)


def novelty(before: KVBlock, block: KVBlock, max_layers: int) -> Tensor:
    """float32, 0 to 2: how little the most novel token of `block` looks like any of the block before.

    1 less the cosine of its keys with those of the token most like it, wherever that is in the picture: averaged over
    heads and layers, and the largest over the visual tokens. What moves is not novel; what comes is, as small as it
    may be.
    """
    old_TC, new_TC = _unit_tokens(before, max_layers), _unit_tokens(block, max_layers)
    return (1 - (new_TC @ old_TC.T).amax(dim=1).min()).clamp(0.0, MOST_NOVEL)


class NoveltyIndex(Index):
    """Rows are [1, 2]: how novel the block is, which is its score, and how novel the one is that came next.

    The second is what the next block's row begins with: it is found while both are exact, and outlives that. A block
    of which nobody knows what came before is as novel as any.

    max_layers: layers whose keys are compared, evenly spaced; all of a model that has fewer than twice that.
    """

    def __init__(self, max_layers: int) -> None:
        self._max_layers = max_layers
        self._rows = KeyRows()
        self._novelty_by_id: dict[BlockId, float] = {}  # the same, to be asked for one by one

    @property
    def ids(self) -> Set[BlockId]:
        return self._rows.ids

    @property
    def num_bytes(self) -> int:
        return self._rows.num_bytes

    def num_bytes_with(self, spec: KVSpec) -> int:
        return self._rows.num_bytes_with(*_SHAPE)

    def describe(self, block: KVBlock, before: Tensor | None = None, after: KVBlock | Tensor | None = None) -> Tensor:
        row = torch.full(_SHAPE, MOST_NOVEL, dtype=torch.bfloat16)
        if before is not None:
            row[0, 0] = before[0, 1]
        if after is not None:
            row[0, 1] = after[0, 0] if isinstance(after, Tensor) else novelty(block, after, self._max_layers)
        return row

    def accepts(self, row: Tensor | None, spec: KVSpec) -> bool:
        return _is_novelty(row)

    def add(self, block_id: BlockId, row: Tensor | None, start_s: float) -> None:
        if not _is_novelty(row):
            raise ValueError(f"the row of block {block_id} must be what describe() made of it; {_got(row)}")
        self._rows.add(block_id, row.detach().cpu(), start_s)
        self._novelty_by_id[block_id] = float(row[0, 0])

    def drop(self, block_id: BlockId) -> None:
        self._rows.drop(block_id)
        del self._novelty_by_id[block_id]

    def novelty(self, block_id: BlockId) -> float:
        return self._novelty_by_id[block_id]

    def best(self, query_LKD: Tensor | None, num_blocks: int, among: Collection[BlockId] | None = None) -> list[Scored]:
        if not self._rows.ids:
            return []
        score_N = self._rows.dots(torch.tensor([[[1.0, 0.0]]]))[0, 0]
        return self._rows.best(score_N, num_blocks, among)

    def check(self) -> None:
        self._rows.check()
        held = {block_id: float(self._rows.get(block_id).x_HD[0, 0]) for block_id in self._rows.ids}
        if held != self._novelty_by_id:
            raise RuntimeError(f"{len(held)} blocks are held, and {len(self._novelty_by_id)}, or others, in the books")


class MixedIndex(Index):
    """Takes turns: the most novel block, the one that fits the question best, the next of each, and so on, none twice.

    Rows are [1 + S, K, D]: the first two values are a row of `by_novelty`, what follows their layer is one of `by_key`.
    """

    def __init__(self, by_novelty: NoveltyIndex, by_key: KeyIndex) -> None:
        self._by_novelty, self._by_key = by_novelty, by_key

    @property
    def ids(self) -> Set[BlockId]:
        return self._by_key.ids

    @property
    def num_bytes(self) -> int:
        return self._by_novelty.num_bytes + self._by_key.num_bytes

    def num_bytes_with(self, spec: KVSpec) -> int:
        return self._by_novelty.num_bytes_with(spec) + self._by_key.num_bytes_with(spec)

    def describe(self, block: KVBlock, before: Tensor | None = None, after: KVBlock | Tensor | None = None) -> Tensor:
        before = None if before is None else _novelty_row(before)
        after = _novelty_row(after) if isinstance(after, Tensor) else after
        keys_SKD = self._by_key.describe(block)
        first_1KD = torch.zeros_like(keys_SKD[:1])
        first_1KD[0, :1, :2] = self._by_novelty.describe(block, before, after)
        return torch.cat([first_1KD, keys_SKD])

    def accepts(self, row: Tensor | None, spec: KVSpec) -> bool:
        return _is_mixed(row) and self._by_key.accepts(row[1:], spec)

    def add(self, block_id: BlockId, row: Tensor | None, start_s: float) -> None:
        if not _is_mixed(row):
            raise ValueError(f"the row of block {block_id} must be what describe() made of it; {_got(row)}")
        self._by_key.add(block_id, row[1:], start_s)
        self._by_novelty.add(block_id, _novelty_row(row), start_s)

    def drop(self, block_id: BlockId) -> None:
        self._by_key.drop(block_id)
        self._by_novelty.drop(block_id)

    def novelty(self, block_id: BlockId) -> float:
        return self._by_novelty.novelty(block_id)

    def best(self, query_LKD: Tensor | None, num_blocks: int, among: Collection[BlockId] | None = None) -> list[Scored]:
        novel = self._by_novelty.best(None, num_blocks, among)
        fitting = self._by_key.best(query_LKD, num_blocks, among)
        turns = chain.from_iterable(zip_longest(novel, fitting))
        ids = dict.fromkeys(scored.id for scored in turns if scored is not None)
        return [Scored(block_id, float(-place)) for place, block_id in enumerate(list(ids)[:num_blocks])]

    def check(self) -> None:
        self._by_key.check()
        self._by_novelty.check()
        if self._by_key.ids != self._by_novelty.ids:
            raise RuntimeError(
                f"{len(self._by_key.ids)} blocks are known by their keys, and {len(self._by_novelty.ids)}, or others, "
                "by what is novel in them"
            )


def _unit_tokens(block: KVBlock, max_layers: int) -> Tensor:
    """float32 [T, C]: keys of the visual tokens, so that a product of two is their mean cosine over heads."""
    keys_SKTD = visual_keys(block, spread_layers(block.k_LKTD.shape[0], max_layers)).float()
    num_heads = keys_SKTD.shape[0] * keys_SKTD.shape[1]
    return torch.nn.functional.normalize(keys_SKTD, dim=-1).permute(2, 0, 1, 3).flatten(1) / num_heads**0.5


def _is_novelty(row: Tensor | None) -> TypeGuard[Tensor]:
    if row is None or row.dtype != torch.bfloat16 or tuple(row.shape) != _SHAPE:
        return False
    return bool(((row >= 0) & (row <= MOST_NOVEL)).all())


def _is_mixed(row: Tensor | None) -> TypeGuard[Tensor]:
    """Whether the first layer begins with novelty, and something comes after it."""
    return row is not None and row.ndim == 3 and len(row) > 1 and _is_novelty(_novelty_row(row))


def _novelty_row(row_SKD: Tensor) -> Tensor:
    return row_SKD[0, :1, :2]


def _got(row: Tensor | None) -> str:
    if row is None:
        return "got none"
    begins = row.flatten()[:2].tolist()
    return f"novelty is from 0 to {MOST_NOVEL:g}; got {row.dtype} of shape {tuple(row.shape)} that begins with {begins}"

"""InfiniPot-V: what has changed since, and what carries weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, normalize

from ..block import KVBlock
from .base import BlockPruner, Picked, best, everything, num_visual
from .places import pairs, places

# Shapes: L layers, K key/value heads, V visual tokens, M of them that lie where another block has one, D channels per
# head.


@dataclass(frozen=True, kw_only=True)
class InfiniPotV(BlockPruner):
    """Keeps the tokens least like what came after them at their place, then those with the longest values.

    1. Temporal redundancy: minus the mean cosine of a token's key and the keys at its place in the blocks that follow.
       The first temporal_tokens stay.
    2. Value norm: |v|, averaged over pool_tokens neighbours. It fills the rest of keep_tokens.

    Paper: InfiniPot-V: Memory-Constrained KV Cache Compression for Streaming Video Understanding (arXiv 2506.15745)
    Differs from the paper: a block is pruned once, as it leaves the recent window, where the paper prunes 32 frames
        together, again and again; one selection for all layers and heads, value norms in units of their mean in a
        head; neighbours in a row, the same number in all layers, where the paper pools by layer in one to three
        dimensions; keys before rotation; of the blocks that follow, the first following_blocks.

    keep_tokens: visual tokens that a block keeps.
    temporal_tokens: how many of them go by temporal redundancy, keep_tokens at most; None: half, as in the paper.
    following_blocks: how many of the blocks that follow count, at least 1.
    pool_tokens: how many tokens in a row share their value norm; odd, at least 1.
    """

    temporal_tokens: int | None = None
    following_blocks: int = 2
    pool_tokens: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temporal_tokens is not None and self.temporal_tokens < 0:
            raise ValueError(f"temporal_tokens must not be negative, or None; got {self.temporal_tokens}")
        if self.following_blocks < 1:
            raise ValueError(f"following_blocks must be at least 1; got {self.following_blocks}")
        if self.pool_tokens < 1 or self.pool_tokens % 2 == 0:
            raise ValueError(f"pool_tokens must be odd, at least 1; got {self.pool_tokens}")

    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked:
        if num_visual(block) <= self.keep_tokens:
            return Picked(everything(block))
        weight_V = self._weight(block)
        compared = [b for b in following if b.kind == "frame" and num_visual(b)][: self.following_blocks]
        half = self.keep_tokens // 2
        num_first = half if self.temporal_tokens is None else min(self.temporal_tokens, self.keep_tokens)
        if compared and num_first:
            weight_V[best(block, -_likeness(block, compared), num_first)] = torch.inf
        return Picked(best(block, weight_V, self.keep_tokens))

    def _weight(self, block: KVBlock) -> Tensor:
        norm_LKV = block.v_LKTD[:, :, block.visual].float().norm(dim=-1)
        norm_V = (norm_LKV / norm_LKV.mean(-1, keepdim=True).clamp_min(1e-12)).mean((0, 1))
        wide = self.pool_tokens
        return avg_pool1d(norm_V[None], wide, stride=1, padding=wide // 2, count_include_pad=False)[0]


def _likeness(block: KVBlock, others: Sequence[KVBlock]) -> Tensor:
    """Mean cosine to the keys at the same place in the others; 0, as for what is new, where none has that place."""
    ours_3V = places(block)
    unit_LKVD = normalize(block.k_LKTD[:, :, block.visual].float(), dim=-1)
    sum_V, num_V = unit_LKVD.new_zeros(ours_3V.shape[1]), unit_LKVD.new_zeros(ours_3V.shape[1])
    for other in others:
        found = pairs(ours_3V, places(other))
        ours_M, theirs_M = (index.to(unit_LKVD.device) for index in found)
        their_k_LKMD = other.k_LKTD[:, :, other.visual].to(unit_LKVD.device)
        if theirs_M.shape[0] != num_visual(other) or not torch.equal(ours_M, theirs_M):
            their_k_LKMD = their_k_LKMD.index_select(2, theirs_M)
        unit_LKMD = unit_LKVD if ours_M.shape[0] == sum_V.shape[0] else unit_LKVD.index_select(2, ours_M)
        their_k_LKMD = their_k_LKMD.float()
        cosine_LKM = (unit_LKMD * their_k_LKMD).sum(-1) / their_k_LKMD.norm(dim=-1).clamp_min(1e-12)
        sum_V.index_add_(0, ours_M, cosine_LKM.mean((0, 1)))
        num_V.index_add_(0, ours_M, torch.ones_like(ours_M, dtype=num_V.dtype))
    return sum_V / num_V.clamp_min(1)

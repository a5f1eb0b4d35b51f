"""LOOK-M: heavy hitters stay, and the rest is merged into those that are most alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from ..block import KVBlock
from .attention import received
from .base import BlockPruner, Picked, best, everything, num_visual

# Shapes: L layers, K key/value heads, V visual tokens, S tokens kept, E tokens evicted, D channels per head.


@dataclass(frozen=True, kw_only=True)
class LookM(BlockPruner):
    """Keeps words and the most attended visual tokens; each of the others is merged into the kept one most like it.

    1. Words stay (text prior). Visual tokens are ranked by the attention that the block's queries give them.
    2. Per layer and head, each evicted token goes to the kept one whose key has the highest cosine to its own.
    3. Pivot merging: a kept token becomes the mean of itself and of the half-way points between it and those that go
       to it; keys and values alike.

    Paper: LOOK-M: Look-Once Optimization in KV Cache for Multimodal Long-Context Inference (arXiv 2406.18139)
    Differs from the paper: the text prior says that words stay, not that no visual token does, which would empty a
        video memory; nothing is merged into words; attention is that of the block's queries, without a mask or
        positions; the selection is one for all layers and heads, the merging is each head's own; keys before
        rotation; no window of recent tokens, since the recent window is kept whole elsewhere.

    keep_tokens: visual tokens that a block keeps.
    """

    needs_queries: ClassVar[bool] = True

    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked:
        if num_visual(block) <= self.keep_tokens or block.q_LKPD is None:
            return Picked(everything(block))
        k_LKVD, v_LKVD = block.k_LKTD[:, :, block.visual].float(), block.v_LKTD[:, :, block.visual].float()
        score_V = received(block.q_LKPD, block.k_LKTD)[..., block.visual].mean((0, 1))
        index_S = best(block, score_V, self.keep_tokens)
        goes_V = torch.ones_like(score_V, dtype=torch.bool)
        goes_V[index_S] = False
        index_E = goes_V.nonzero().flatten()
        unit_LKVD = normalize(k_LKVD, dim=-1)
        likeness_LKES = unit_LKVD.index_select(2, index_E) @ unit_LKVD.index_select(2, index_S).mT
        goes_to_LKSE = one_hot(likeness_LKES.argmax(-1), index_S.shape[0]).mT.float()
        return Picked(
            index_S,
            _pivoted(k_LKVD.index_select(2, index_S), k_LKVD.index_select(2, index_E), goes_to_LKSE),
            _pivoted(v_LKVD.index_select(2, index_S), v_LKVD.index_select(2, index_E), goes_to_LKSE),
        )


def _pivoted(kept_LKSD: Tensor, evicted_LKED: Tensor, goes_to_LKSE: Tensor) -> Tensor:
    """(c + sum over its n evicted e of (c + e) / 2) / (n + 1)."""
    num_LKS1 = goes_to_LKSE.sum(-1, keepdim=True)
    return (kept_LKSD * (1 + num_LKS1 / 2) + goes_to_LKSE @ evicted_LKED / 2) / (1 + num_LKS1)

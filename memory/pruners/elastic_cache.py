"""Elastic Cache: important tokens are anchors, and the rest is merged into the nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..block import KVBlock
from .attention import received
from .base import BlockPruner, Picked, best, everything, num_visual

# Shapes: L layers, K key/value heads, V visual tokens, S anchors, D channels per head.


@dataclass(frozen=True, kw_only=True)
class ElasticCache(BlockPruner):
    """Keeps the most attended tokens as anchors; each becomes the mean of itself and the others that lie nearest to it.

    1. Importance: attention that the block's queries give each visual token.
    2. The keep_tokens most important ones are anchors.
    3. Every other token is merged into the anchor nearest in order, the earlier one of two: keys and values are means.

    Paper: Efficient Inference of Vision Instruction-Following Models with Elastic Cache (arXiv 2407.18121)
    Differs from the paper: anchors are those of the highest importance, as the paper says, not as its released code
        selects; chosen for all layers and heads together; within a block; no mask in the attention, and no positions;
        keys before rotation, so that means are of like things; words are neither anchors nor merged.

    keep_tokens: anchors of a block.
    """

    needs_queries: ClassVar[bool] = True

    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked:
        if num_visual(block) <= self.keep_tokens or block.q_LKPD is None:
            return Picked(everything(block))
        score_V = received(block.q_LKPD, block.k_LKTD)[..., block.visual].mean((0, 1))
        index_S = best(block, score_V, self.keep_tokens)
        to_V = _nearest(index_S, num_visual(block))
        k_LKTD, v_LKTD = block.k_LKTD[:, :, block.visual], block.v_LKTD[:, :, block.visual]
        return Picked(index_S, _means(k_LKTD, to_V, self.keep_tokens), _means(v_LKTD, to_V, self.keep_tokens))


def _nearest(index_S: Tensor, num_tokens: int) -> Tensor:
    """For each token the number of the anchor nearest to it, the earlier one of two."""
    middle = (index_S[1:] + index_S[:-1]).float() / 2
    # A token right in the middle belongs to the earlier anchor.
    return torch.searchsorted(middle, torch.arange(num_tokens, device=index_S.device).float())


def _means(x_LKVD: Tensor, to_V: Tensor, num_means: int) -> Tensor:
    sums = x_LKVD.new_zeros((*x_LKVD.shape[:2], num_means, x_LKVD.shape[3]), dtype=torch.float32)
    sums.index_add_(2, to_V, x_LKVD.float())
    return sums / torch.bincount(to_V, minlength=num_means)[:, None]

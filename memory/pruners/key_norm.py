"""Key norm: small keys draw attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..block import KVBlock
from .base import ScoredPruner

# Shapes: L layers, K key/value heads, V visual tokens.


@dataclass(frozen=True, kw_only=True)
class KeyNorm(ScoredPruner):
    """Keeps the tokens whose keys are shortest.

    Score: -|k|, in units of the mean length in its layer and head.

    Paper: A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression (arXiv 2406.11430)
    Differs from the paper: one selection for all layers and heads, which is why lengths are made comparable; all
        layers count, where the paper leaves the first two alone; words are not in the running.

    keep_tokens: visual tokens that a block keeps.
    """

    def score(self, block: KVBlock, following: Sequence[KVBlock]) -> Tensor:
        length_LKV = block.k_LKTD[:, :, block.visual].float().norm(dim=-1)
        relative_LKV = length_LKV / length_LKV.mean(-1, keepdim=True).clamp_min(1e-12)
        score_V: Tensor = -relative_LKV.mean((0, 1))
        return score_V

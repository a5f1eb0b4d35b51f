"""LagKV: what stands out, measured with the block that came next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..block import KVBlock
from .base import ScoredPruner

# Shapes: L layers, K key/value heads, V visual tokens, N tokens of the next block, D channels per head.


@dataclass(frozen=True, kw_only=True)
class LagKV(ScoredPruner):
    """Keeps the tokens whose channels lie most unevenly in the ranges that the next block's channels have.

    1. Each channel is put on the scale of its least (0) and largest (1) value in the next block.
    2. A token's score in a head: softmax over tokens of the standard deviation over channels; keys' plus values'.

    Paper: LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens Are Important (arXiv 2504.04704)
    Differs from the paper: a partition is a block's visual tokens; scores are averaged over layers and heads for one
        selection; where no block follows, the block itself is the scale, where the paper keeps the last partition.

    keep_tokens: visual tokens that a block keeps.
    """

    def score(self, block: KVBlock, following: Sequence[KVBlock]) -> Tensor:
        after = following[0] if following and _has_pictures(following[0]) else block
        k_LKV = _unevenness(block.k_LKTD[:, :, block.visual], after.k_LKTD[:, :, after.visual])
        v_LKV = _unevenness(block.v_LKTD[:, :, block.visual], after.v_LKTD[:, :, after.visual])
        return (k_LKV.softmax(-1) + v_LKV.softmax(-1)).mean((0, 1))


def _has_pictures(block: KVBlock) -> bool:
    return block.kind == "frame" and block.visual.stop > block.visual.start


def _unevenness(x_LKVD: Tensor, next_LKND: Tensor) -> Tensor:
    """Standard deviation over channels of what is scaled by the next block's ranges."""
    next_LKND = next_LKND.to(x_LKVD.device)
    # aminmax and std in one call each take ten times as long on a CPU.
    low, high = next_LKND.amin(2, keepdim=True).float(), next_LKND.amax(2, keepdim=True).float()
    scaled_LKVD = (x_LKVD.float() - low).div_((high - low).clamp_min(1e-6))
    deviation_LKV: Tensor = scaled_LKVD.sub_(scaled_LKVD.mean(-1, keepdim=True)).square_().mean(-1).sqrt_()
    return deviation_LKV

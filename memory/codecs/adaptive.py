"""2 bits a number where a block has tokens enough to share scales, keys at 4 bits where it has few."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..block import KVSpec
from .grid import Grid, Layout
from .lossy import LossyCodec

# Shapes: L layers, K key/value heads, T tokens, D channels per head.

_ENOUGH_TOKENS = 16
_KEYS_OF_MANY = Grid(4, group=256)  # over tokens, channel by channel
_KEYS_OF_FEW = Grid(16, group=128)  # over channels, token by token
_VALUES = Grid(4, group=128)


@dataclass(frozen=True)
class AdaptiveCodec(LossyCodec):
    """KIVI's 2 bits for blocks of 16 tokens or more; for smaller ones keys at 4 bits, token by token.

    A scale per channel is shared by the tokens of a block: where a pruner has left 5 or 10 of them it costs more than
    their codes. Token by token, a block's bytes are in proportion to its tokens; keys have channels that stand out in
    all tokens, so they get 16 levels there. Off by at most half a step of 4 levels, 1/3 of the largest magnitude, and
    rounding to the block's dtype.

    Paper: KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache (arXiv 2402.02750)
    Differs from the paper: as `int2` does, with values in groups of 128 channels; and small blocks are its own case.
    """

    name: ClassVar[str] = "adaptive"
    worst_error: ClassVar[float] = 0.34

    def layout(self, spec: KVSpec, num_tokens: int) -> Layout:
        heads = (spec.num_layers, spec.num_kv_heads)
        rows = (num_tokens, spec.head_dim)
        if num_tokens >= _ENOUGH_TOKENS:
            keys = _KEYS_OF_MANY.layout("k", (*heads, *reversed(rows)))
        else:
            keys = _KEYS_OF_FEW.layout("k", (*heads, *rows))
        return keys | _VALUES.layout("v", (*heads, *rows))

    def encode(self, k_LKTD: Tensor, v_LKTD: Tensor) -> dict[str, Tensor]:
        if k_LKTD.shape[2] >= _ENOUGH_TOKENS:
            keys = _KEYS_OF_MANY.encode("k", k_LKTD.mT.contiguous())
        else:
            keys = _KEYS_OF_FEW.encode("k", k_LKTD)
        return keys | _VALUES.encode("v", v_LKTD)

    def decode(self, buffers: Mapping[str, Tensor], spec: KVSpec, num_tokens: int) -> tuple[Tensor, Tensor]:
        heads = (spec.num_layers, spec.num_kv_heads)
        v_LKTD = _VALUES.decode(buffers, "v", (*heads, num_tokens, spec.head_dim))
        if num_tokens >= _ENOUGH_TOKENS:
            return _KEYS_OF_MANY.decode(buffers, "k", (*heads, spec.head_dim, num_tokens)).mT, v_LKTD
        return _KEYS_OF_FEW.decode(buffers, "k", (*heads, num_tokens, spec.head_dim)), v_LKTD

"""Keys per channel, values per token: the shape that int8, int4 and int2 share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..block import KVSpec
from .grid import Grid, Layout
from .lossy import LossyCodec

# Shapes: L layers, K key/value heads, T tokens, D channels per head.


@dataclass(frozen=True)
class KiviCodec(LossyCodec):
    """Min-max codes of keys in groups along tokens, channel by channel, and of values along channels, token by token.

    keys: levels and group (tokens) of keys.
    values: levels and group (channels) of values.
    """

    keys: ClassVar[Grid]
    values: ClassVar[Grid]

    def layout(self, spec: KVSpec, num_tokens: int) -> Layout:
        heads = (spec.num_layers, spec.num_kv_heads)
        return self.keys.layout("k", (*heads, spec.head_dim, num_tokens)) | self.values.layout(
            "v", (*heads, num_tokens, spec.head_dim)
        )

    def encode(self, k_LKTD: Tensor, v_LKTD: Tensor) -> dict[str, Tensor]:
        return self.keys.encode("k", k_LKTD.mT.contiguous()) | self.values.encode("v", v_LKTD)

    def decode(self, buffers: Mapping[str, Tensor], spec: KVSpec, num_tokens: int) -> tuple[Tensor, Tensor]:
        heads = (spec.num_layers, spec.num_kv_heads)
        k_LKDT = self.keys.decode(buffers, "k", (*heads, spec.head_dim, num_tokens))
        return k_LKDT.mT, self.values.decode(buffers, "v", (*heads, num_tokens, spec.head_dim))

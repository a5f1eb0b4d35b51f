"""About 1.5 bits a key and 1.6 bits a value, for video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..block import KVSpec
from .bits import pack_codes, packed_bytes, unpack_codes
from .grid import Grid, Layout
from .lossy import LossyCodec

# Shapes: L layers, K key/value heads, T tokens, D channels per head; H its hard channels, E its easy ones.

_HARD = Grid(4, group=256)
_EASY = Grid(2, group=256, fit="means")
_VALUES = Grid(3, group=256, fit="means")


@dataclass(frozen=True)
class VidKVCodec(LossyCodec):
    """Keys per channel: the half of the channels with the widest range at 2 bits, the others at 1; values ternary.

    Values are per channel too, on three levels, five to a byte (1.6 bits). The outer levels of 1-bit keys and of
    values are means of the outer bins, over 256 tokens. Off by at most half the range of a 1-bit channel: the
    largest magnitude itself, where a channel spans all of it; values alone by 2/3 of it.

    Paper: Plug-and-Play 1.x-Bit KV Cache Quantization for Video Large Language Models (arXiv 2503.16257)
    Differs from the paper: 1-bit channels are quantised as they are, not as an FFT along the channels: the released
        FFT stores both halves of a complex spectrum, 4 bits a number, and a half spectrum takes 2.06, more than
        the 2 bits that it is to beat; hard channels are chosen by block, layer and head, not over all heads at
        once; no tokens are kept at 2 bits for their likeness to a text, which a block at rest does not know; no
        residual window is kept here.
    """

    name: ClassVar[str] = "vidkv"
    worst_error: ClassVar[float] = 1.01

    def layout(self, spec: KVSpec, num_tokens: int) -> Layout:
        heads, easy = (spec.num_layers, spec.num_kv_heads), spec.head_dim // 2
        return (
            _HARD.layout("k_hard", (*heads, spec.head_dim - easy, num_tokens))
            | _EASY.layout("k_easy", (*heads, easy, num_tokens))
            | _VALUES.layout("v", (*heads, spec.head_dim, num_tokens))
            | {"k_is_hard": (torch.uint8, (packed_bytes(spec.num_layers * spec.num_kv_heads * spec.head_dim, 2),))}
        )

    def encode(self, k_LKTD: Tensor, v_LKTD: Tensor) -> dict[str, Tensor]:
        k_LKDT = k_LKTD.mT.contiguous()
        num_hard = k_LKDT.shape[2] - k_LKDT.shape[2] // 2
        range_LKD = k_LKDT.amax(-1) - k_LKDT.amin(-1)
        is_hard_LKD = torch.zeros_like(range_LKD, dtype=torch.uint8)
        is_hard_LKD.scatter_(-1, range_LKD.topk(num_hard).indices, 1)
        k_LKDT = k_LKDT.gather(2, _hard_first(is_hard_LKD)[..., None].expand_as(k_LKDT))
        return (
            _HARD.encode("k_hard", k_LKDT[:, :, :num_hard])
            | _EASY.encode("k_easy", k_LKDT[:, :, num_hard:])
            | _VALUES.encode("v", v_LKTD.mT.contiguous())
            | {"k_is_hard": pack_codes(is_hard_LKD, 2)}
        )

    def decode(self, buffers: Mapping[str, Tensor], spec: KVSpec, num_tokens: int) -> tuple[Tensor, Tensor]:
        heads, easy = (spec.num_layers, spec.num_kv_heads), spec.head_dim // 2
        hard_LKHT = _HARD.decode(buffers, "k_hard", (*heads, spec.head_dim - easy, num_tokens))
        easy_LKET = _EASY.decode(buffers, "k_easy", (*heads, easy, num_tokens))
        place_LKD = _hard_first(unpack_codes(buffers["k_is_hard"], 2, (*heads, spec.head_dim))).argsort(-1)
        k_LKDT = torch.cat([hard_LKHT, easy_LKET], dim=2)
        k_LKDT = k_LKDT.gather(2, place_LKD[..., None].expand_as(k_LKDT))
        return k_LKDT.mT, _VALUES.decode(buffers, "v", (*heads, spec.head_dim, num_tokens)).mT


def _hard_first(is_hard_LKD: Tensor) -> Tensor:
    """The channels of each head, hard ones first, each kind in order."""
    return is_hard_LKD.argsort(dim=-1, descending=True, stable=True)

"""8-bit floats: half of bfloat16, with the cheapest way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..block import KVSpec
from .grid import Layout
from .lossy import LossyCodec

# Shapes: L layers, K key/value heads, T tokens, D channels per head.

_TOP = 448.0  # the largest e4m3 number


@dataclass(frozen=True)
class Fp8Codec(LossyCodec):
    """e4m3 floats, with one scale for each layer and head of the block's keys, and one for its values.

    Off by at most 16/448 of the largest magnitude, and rounding to the block's dtype; small numbers keep three
    bits of their own, unlike in int8.

    Baseline: e4m3 with scales by layer and head.
    Differs from the paper: None.
    """

    name: ClassVar[str] = "fp8"
    worst_error: ClassVar[float] = 0.041

    def layout(self, spec: KVSpec, num_tokens: int) -> Layout:
        heads = (spec.num_layers, spec.num_kv_heads)
        codes = (torch.uint8, (*heads, num_tokens, spec.head_dim))
        scale = (torch.float16, heads)
        return {"k_codes": codes, "v_codes": codes, "k_scale": scale, "v_scale": scale}

    def encode(self, k_LKTD: Tensor, v_LKTD: Tensor) -> dict[str, Tensor]:
        buffers: dict[str, Tensor] = {}
        for name, x_LKTD in (("k", k_LKTD), ("v", v_LKTD)):
            scale_LK = x_LKTD.abs().amax((-2, -1)) * (1 + 2**-10) / _TOP  # rounded up: nothing is clamped far
            scale_LK = scale_LK.half()
            scaled_LKTD = x_LKTD / scale_LK.float().clamp(min=2**-24)[..., None, None]
            codes_LKTD = scaled_LKTD.clamp_(-_TOP, _TOP).to(torch.float8_e4m3fn).view(torch.uint8)
            buffers |= {f"{name}_codes": codes_LKTD.contiguous(), f"{name}_scale": scale_LK}
        return buffers

    def decode(self, buffers: Mapping[str, Tensor], spec: KVSpec, num_tokens: int) -> tuple[Tensor, Tensor]:
        return _widened(buffers, "k"), _widened(buffers, "v")


def _widened(buffers: Mapping[str, Tensor], name: str) -> Tensor:
    codes_LKTD = buffers[f"{name}_codes"].view(torch.float8_e4m3fn)
    return codes_LKTD.float() * buffers[f"{name}_scale"].float()[..., None, None]

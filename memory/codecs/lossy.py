"""LossyCodec: what every codec with an error shares: range, positions, blocks too small to gain, checks."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..block import KVBlock, KVSpec, PackedBlock
from .base import Codec
from .grid import Layout

# Shapes: L layers, K key/value heads, T tokens, D channels per head.

_COUNTED_TOKENS = 1024
_SMALLEST, _LARGEST = 1e-30, 3e38  # magnitudes between which float32 loses nothing on the way


@dataclass(frozen=True)
class LossyCodec(Codec):
    """A codec whose `encode` sees float32 numbers of magnitude below 2, and whose blocks stand alone.

    Each layer and head of keys and of values is divided by a power of two (one byte each), so that float16 scales
    hold what bfloat16 and float32 reach. Every statistic is of one block: nothing is quantised again when
    another block comes. Positions are int16 or int32 where they fit. A block is kept as it is, with small
    positions, where codes and scales would take as many bytes, where it has fewer than `min_tokens`, or where
    its largest magnitude is subnormal in its dtype, below 1e-30 or above 3e38. `worst_error` counts rounding to
    the coarsest dtype, bfloat16 (0.0039).
    """

    min_tokens: ClassVar[int] = 1

    @abstractmethod
    def layout(self, spec: KVSpec, num_tokens: int) -> Layout:
        """dtype and shape of every buffer that `encode` makes."""

    @abstractmethod
    def encode(self, k_LKTD: Tensor, v_LKTD: Tensor) -> dict[str, Tensor]:
        """The buffers of float32 keys and values of magnitude below 2."""

    @abstractmethod
    def decode(self, buffers: Mapping[str, Tensor], spec: KVSpec, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Keys and values again, float32."""

    def pack(self, block: KVBlock) -> PackedBlock:
        gains, pos_dtype = self._survey(block)
        if gains:
            k_LKTD, k_exponent_LK = _to_unit(block.k_LKTD)
            v_LKTD, v_exponent_LK = _to_unit(block.v_LKTD)
            buffers = self.encode(k_LKTD, v_LKTD) | {"k_exponent": k_exponent_LK, "v_exponent": v_exponent_LK}
        else:
            buffers = {"k": block.k_LKTD, "v": block.v_LKTD}
        return self.packed(block, buffers | {"pos": block.pos_3T.to(pos_dtype)})

    def unpack(self, packed: PackedBlock) -> KVBlock:
        self.check_packed_here(packed)
        buffers, spec = packed.buffers, packed.spec
        is_plain = "k" in buffers
        self._check_buffers(packed, is_plain)
        if is_plain:
            k_LKTD, v_LKTD = buffers["k"], buffers["v"]
        else:
            k_LKTD, v_LKTD = self.decode(buffers, spec, packed.num_tokens)
            k_LKTD = _from_unit(k_LKTD, buffers["k_exponent"], spec.dtype)
            v_LKTD = _from_unit(v_LKTD, buffers["v_exponent"], spec.dtype)
        return self.unpacked(packed, k_LKTD, v_LKTD, buffers["pos"].long())

    def bytes_per_token(self, spec: KVSpec) -> float:
        """Of a block of 1024 tokens with int16 positions; scales shared by fewer tokens cost each more."""
        coded = _layout_bytes(self._coded_layout(spec, _COUNTED_TOKENS)) / _COUNTED_TOKENS
        return min(coded, spec.bytes_per_token) + 3 * 2

    def _coded_layout(self, spec: KVSpec, num_tokens: int) -> Layout:
        exponent = (torch.int8, (spec.num_layers, spec.num_kv_heads))
        return self.layout(spec, num_tokens) | {"k_exponent": exponent, "v_exponent": exponent}

    def _survey(self, block: KVBlock) -> tuple[bool, torch.dtype]:
        """Whether codes pay, and the dtype of positions; ValueError for NaN and infinity."""
        ends = [end.double() for x in (block.k_LKTD, block.v_LKTD, block.pos_3T) for end in torch.aminmax(x)]
        k_low, k_high, v_low, v_high, pos_low, pos_high = torch.stack(ends).tolist()  # the one wait for a device
        if not all(math.isfinite(end) for end in (k_low, k_high, v_low, v_high)):
            which = "keys" if not (math.isfinite(k_low) and math.isfinite(k_high)) else "values"
            raise ValueError(
                f"codec {self.name!r} packs finite keys and values; got NaN or infinity in the {which} of the block "
                f"showing {block.span}; drop that block"
            )
        tokens, spec = block.num_tokens, block.spec
        smallest = max(torch.finfo(spec.dtype).tiny, _SMALLEST)
        largest = (max(-k_low, k_high), max(-v_low, v_high))
        in_range = all(x == 0 or smallest <= x <= _LARGEST for x in largest)
        gains = (
            in_range
            and tokens >= self.min_tokens
            and _layout_bytes(self._coded_layout(spec, tokens)) < spec.bytes_per_token * tokens
        )
        for dtype in (torch.int16, torch.int32):
            if torch.iinfo(dtype).min <= pos_low and pos_high <= torch.iinfo(dtype).max:
                return gains, dtype
        return gains, torch.int64

    def _check_buffers(self, packed: PackedBlock, is_plain: bool) -> None:
        spec, tokens = packed.spec, packed.num_tokens
        if is_plain:
            whole = (spec.dtype, (spec.num_layers, spec.num_kv_heads, tokens, spec.head_dim))
            wanted: Layout = {"k": whole, "v": whole}
        else:
            wanted = self._coded_layout(spec, max(tokens, self.min_tokens))  # fewer are never coded: sizes differ
        buffers = packed.buffers
        if set(buffers) != {*wanted, "pos"}:
            raise ValueError(
                f"{packed!r} is damaged: its buffers are {sorted([*wanted, 'pos'])}; got {sorted(buffers)}; drop it"
            )
        pos_dtype = buffers["pos"].dtype
        if pos_dtype not in (torch.int16, torch.int32, torch.int64):
            raise ValueError(f"{packed!r} is damaged: positions are int16, int32 or int64; got {pos_dtype}; drop it")
        wanted["pos"] = (pos_dtype, (3, tokens))
        for name, (dtype, shape) in wanted.items():
            got = buffers[name]
            if got.dtype != dtype or tuple(got.shape) != shape:
                raise ValueError(
                    f"{packed!r} is damaged: buffer {name!r} is {dtype} {shape}; "
                    f"got {got.dtype} {tuple(got.shape)}; drop it"
                )


def _to_unit(x_LKTD: Tensor) -> tuple[Tensor, Tensor]:
    """float32 of magnitude below 2, and the power of two of each layer and head that it was divided by."""
    x_LKTD = x_LKTD.float()
    exponent_LK = torch.frexp(x_LKTD.abs().amax((-2, -1))).exponent
    exponent_LK = (exponent_LK - 1).clamp(-126, 127).to(torch.int8)
    return x_LKTD / _power_of_two(exponent_LK), exponent_LK


def _from_unit(x_LKTD: Tensor, exponent_LK: Tensor, dtype: torch.dtype) -> Tensor:
    x_LKTD = x_LKTD * _power_of_two(exponent_LK)
    largest = min(torch.finfo(dtype).max, torch.finfo(torch.float32).max)
    return x_LKTD.clamp_(-largest, largest).to(dtype).contiguous()


def _power_of_two(exponent_LK: Tensor) -> Tensor:
    return torch.exp2(exponent_LK.float())[..., None, None]


def _layout_bytes(layout: Layout) -> int:
    return sum(math.prod(shape) * dtype.itemsize for dtype, shape in layout.values())

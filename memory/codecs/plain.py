"""The codec that changes nothing: full precision, the reference for the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..block import KVBlock, KVSpec, PackedBlock
from .base import Codec


@dataclass(frozen=True)
class PlainCodec(Codec):
    """Keys, values and positions as they are, bit for bit.

    Baseline: no compression.
    Differs from the paper: None.
    """

    name: ClassVar[str] = "plain"
    worst_error: ClassVar[float] = 0.0

    def pack(self, block: KVBlock) -> PackedBlock:
        return self.packed(block, {"k": block.k_LKTD, "v": block.v_LKTD, "pos": block.pos_3T})

    def unpack(self, packed: PackedBlock) -> KVBlock:
        self.check_packed_here(packed)
        buffers = packed.buffers
        return self.unpacked(packed, buffers["k"], buffers["v"], buffers["pos"])

    def bytes_per_token(self, spec: KVSpec) -> float:
        return spec.bytes_per_token + 3 * 8  # three int64 positions

"""Codec: the contract of how a block is kept at rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..block import KVBlock, KVSpec, PackedBlock

# Shapes: L layers, K key/value heads, T tokens, D channels per head.


@dataclass(frozen=True)
class Codec(ABC):
    """A frozen recipe: a block goes in, fewer bytes (or as many) come out, and the block comes back.

    Promises, checked for every row: `unpack(pack(b))` has the shape, dtype, positions, span, kind and id of
    `b`; keys and values are off by at most `worst_error` times the block's largest magnitude; `num_bytes` of
    what is packed is what its buffers take; the input is not written. Buffers may share storage with it.

    name: its row in CODECS, written into every block that it packs.
    worst_error: largest |unpacked - original| as a share of the largest |original| in that block; 0 is exact.
    """

    name: ClassVar[str]
    worst_error: ClassVar[float]

    @abstractmethod
    def pack(self, block: KVBlock) -> PackedBlock:
        """The block at rest, on the device that it came from."""

    @abstractmethod
    def unpack(self, packed: PackedBlock) -> KVBlock:
        """The block again, on the device of the buffers; ValueError for a block that another codec packed."""

    @abstractmethod
    def bytes_per_token(self, spec: KVSpec) -> float:
        """Bytes of one token at rest, with its positions and its share of scales."""

    def packed(self, block: KVBlock, buffers: Mapping[str, Tensor]) -> PackedBlock:
        """These buffers, with everything that is not in them."""
        return PackedBlock(
            codec=self.name,
            spec=block.spec,
            buffers=buffers,
            num_tokens=block.num_tokens,
            advance=block.advance,
            span=block.span,
            kind=block.kind,
            id=block.id,
            num_before=block.num_before,
            num_after=block.num_after,
        )

    def unpacked(self, packed: PackedBlock, k_LKTD: Tensor, v_LKTD: Tensor, pos_3T: Tensor) -> KVBlock:
        """The block again, with these keys, values and positions."""
        return KVBlock(
            k_LKTD=k_LKTD,
            v_LKTD=v_LKTD,
            pos_3T=pos_3T,
            advance=packed.advance,
            span=packed.span,
            kind=packed.kind,
            id=packed.id,
            num_before=packed.num_before,
            num_after=packed.num_after,
        )

    def check_packed_here(self, packed: PackedBlock) -> None:
        """ValueError unless this codec made it."""
        if packed.codec != self.name:
            raise ValueError(
                f"block {packed.id} was packed by codec {packed.codec!r}, not {self.name!r}; "
                f"unpack it with {packed.codec!r}"
            )

"""Codec: the contract of how a block is kept at rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from ..block import KVBlock, KVSpec, PackedBlock


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

    def check_packed_here(self, packed: PackedBlock) -> None:
        """ValueError unless this codec made it."""
        if packed.codec != self.name:
            raise ValueError(
                f"block {packed.id} was packed by codec {packed.codec!r}, not {self.name!r}; "
                f"unpack it with {packed.codec!r}"
            )

"""Tiers: where packed blocks are kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set
from dataclasses import replace

import torch

from ..stream.table import Table
from .block import BlockId, PackedBlock
from .owned import owned, storage_bytes

_HOST = torch.device("cpu")


class Tier(ABC):
    """Packed blocks by id. It keeps what it is given and counts it; what may stay is Memory's to decide.

    Promises, checked for every row: `get` gives back what was `put`, value for value; after `drop` it gives
    None, and so it does for a block that the tier lost; `drop` of what is not there does nothing; `num_bytes`
    is what is held for the kept blocks, room for others to come included, `num_bytes_with` foretells it, and
    `check` recounts it; a tier that is emptied holds nothing, and `num_bytes_with` is `num_bytes_alone` then;
    nothing refers to a dropped block; what `get` gave stays as it is, whatever is put or dropped later. Not
    thread-safe: one per Memory.
    """

    @abstractmethod
    def put(self, block: PackedBlock) -> None:
        """Keeps the block in storage of its own; ValueError for an id that is here already."""

    @abstractmethod
    def get(self, block_id: BlockId) -> PackedBlock | None:
        """The block, or None where it is not here (any more)."""

    @abstractmethod
    def drop(self, block_id: BlockId) -> None:
        """Lets the block go."""

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Bytes held for all blocks."""

    @abstractmethod
    def num_bytes_with(self, block: PackedBlock) -> int:
        """What `num_bytes` will be after the block is put."""

    @abstractmethod
    def num_bytes_alone(self, block: PackedBlock) -> int:
        """What `num_bytes` would be with the block and nothing else."""

    @property
    @abstractmethod
    def ids(self) -> Set[BlockId]:
        """Ids of the blocks held."""

    @abstractmethod
    def check(self) -> None:
        """Recounts from scratch; RuntimeError with both numbers where the books do not balance."""


class HostTier(Tier):
    """Blocks in ordinary (pageable) memory of the host, each in tensors of its own: the slow twin of the slab.

    Baseline: a dictionary.
    Differs from the paper: None.
    """

    def __init__(self) -> None:
        self._blocks: dict[BlockId, PackedBlock] = {}
        self._num_bytes = 0

    def put(self, block: PackedBlock) -> None:
        if block.id in self._blocks:
            raise ValueError(f"block {block.id} is in this tier already; drop it before putting it again")
        kept = replace(block, buffers={name: owned(t, _HOST) for name, t in block.buffers.items()})
        self._blocks[kept.id] = kept
        self._num_bytes += kept.num_bytes

    def get(self, block_id: BlockId) -> PackedBlock | None:
        return self._blocks.get(block_id)

    def drop(self, block_id: BlockId) -> None:
        block = self._blocks.pop(block_id, None)
        if block is not None:
            self._num_bytes -= block.num_bytes

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    def num_bytes_with(self, block: PackedBlock) -> int:
        return self._num_bytes + block.num_bytes

    def num_bytes_alone(self, block: PackedBlock) -> int:
        return block.num_bytes

    @property
    def ids(self) -> Set[BlockId]:
        return self._blocks.keys()

    def check(self) -> None:
        counted_bytes = sum(storage_bytes(block.buffers.values()) for block in self._blocks.values())
        if counted_bytes != self._num_bytes:
            raise RuntimeError(
                f"the host tier's books say {self._num_bytes} bytes; "
                f"its {len(self._blocks)} blocks hold {counted_bytes}"
            )


TIERS: Table[Tier] = Table(
    "tier",
    __package__ or "",
    {
        "host": "tiers:HostTier",
        "slab": "slab_tier:SlabTier",
        "cascade": "cascade_tier:CascadeTier",
    },
)

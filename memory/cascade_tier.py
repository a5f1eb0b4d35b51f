"""CascadeTier: the newest blocks on the device, as far as its share goes, the others on the host."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Set
from itertools import islice

import torch

from .block import BlockId, PackedBlock
from .slab_tier import SlabTier
from .tiers import Tier


class CascadeTier(Tier):
    """Two slabs: blocks come onto the device, and move to the host, oldest first, when it is full there.

        put -> [device: newest, at most device_bytes] -> [host: the rest]

    A block that alone is more than `device_bytes` goes to the host at once. `get` gives a copy where the block
    is, and moves nothing. What both take is one number: the cap on it is Memory's.

    Baseline: first in, first out, as in a cache of two levels.
    Differs from the paper: None.
    """

    def __init__(self, device_bytes: int = 128 * 2**20, device: torch.device | str | None = None) -> None:
        """
        Args:
            device_bytes: cap on what is on the device, directory included; within Memory's `budget_bytes`.
            device: where; by default the accelerator that CUDA shows first, the host where there is none.
        """
        if isinstance(device_bytes, bool) or not isinstance(device_bytes, int) or device_bytes < 0:
            raise ValueError(f"device_bytes must be a whole number, at least 0; got {device_bytes!r}")
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device_bytes = device_bytes
        self._on_device, self._on_host = SlabTier(device), SlabTier("cpu")
        # Ordered, because in a plain dict finding the first row costs all that were popped before it.
        self._newest: OrderedDict[BlockId, None] = OrderedDict()

    @property
    def ids(self) -> Set[BlockId]:
        return self._on_device.ids | self._on_host.ids

    @property
    def ids_on_device(self) -> Set[BlockId]:
        """Ids of the blocks on the device, oldest first."""
        return self._newest.keys()

    @property
    def num_bytes(self) -> int:
        return self._on_device.num_bytes + self._on_host.num_bytes

    def num_bytes_with(self, block: PackedBlock) -> int:
        if not self._may_be_on_device(block):
            return self._on_device.num_bytes + self._on_host.num_bytes_with(block)
        moving = self._moving_for(block)
        if not moving:
            return self._on_device.num_bytes_with(block) + self._on_host.num_bytes
        host_bytes = self._on_host.num_bytes_with_all(self._on_device.length_bytes(i) for i in moving)
        if len(moving) == len(self._newest):
            return host_bytes + self._on_device.num_bytes_alone(block)
        return host_bytes + self._on_device.num_bytes  # the block fits into what they leave

    def num_bytes_alone(self, block: PackedBlock) -> int:
        tier = self._on_device if self._may_be_on_device(block) else self._on_host
        return tier.num_bytes_alone(block)

    def put(self, block: PackedBlock) -> None:
        if block.id in self._newest or block.id in self._on_host.ids:
            raise ValueError(f"block {block.id} is in this tier already; drop it before putting it again")
        if not self._may_be_on_device(block):
            self._on_host.put(block)
            return
        for block_id in self._moving_for(block):
            moving = self._on_device.get(block_id)
            if moving is not None:
                self._on_host.put(moving)
            self._on_device.drop_untidily(block_id)
            del self._newest[block_id]
        self._on_device.put(block)
        self._newest[block.id] = None

    def get(self, block_id: BlockId) -> PackedBlock | None:
        return (self._on_device if block_id in self._newest else self._on_host).get(block_id)

    def drop(self, block_id: BlockId) -> None:
        if block_id in self._newest:
            del self._newest[block_id]
            self._on_device.drop(block_id)
        else:
            self._on_host.drop(block_id)

    def check(self) -> None:
        self._on_device.check()
        self._on_host.check()
        if self._on_device.num_bytes > self.device_bytes:
            raise RuntimeError(f"{self._on_device.num_bytes} bytes are on the device, of {self.device_bytes} at most")
        num_twice = len(self._newest.keys() & self._on_host.ids)
        if self._newest.keys() != self._on_device.ids or num_twice:
            raise RuntimeError(
                f"the books say {len(self._newest)} blocks are on the device; it has {len(self._on_device.ids)}, "
                f"and {num_twice} are on the host too"
            )

    def _may_be_on_device(self, block: PackedBlock) -> bool:
        return self._on_device.num_bytes_alone(block) <= self.device_bytes

    def _moving_for(self, block: PackedBlock) -> list[BlockId]:
        """The blocks that have to leave the device for this one, oldest first."""
        if self._on_device.num_bytes_with(block) <= self.device_bytes:
            return []
        return list(islice(self._newest, self._on_device.num_to_drop_for(block, self._newest)))

"""Keeper: who is told what becomes of a memory's blocks, so that they may outlive the process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from .block import BlockId, KVBlock, PackedBlock


class AtRest(NamedTuple):
    """A block as a keeper kept it: packed, with its row of the index, or exact, as it arrived."""

    block: PackedBlock | KVBlock
    row: Tensor | None


class Keeper(ABC):
    """Told by one Memory, in this order for each block: it arrived; it was kept or not; it was let go.

    arrived -> [recent] -> kept -> [older] -> let_go
                      \\-> let_go
    """

    @abstractmethod
    def arrived(self, block: KVBlock) -> None:
        """The block is the newest of the recent window."""

    @abstractmethod
    def kept(self, block: PackedBlock, row: Tensor | None) -> None:
        """The block left the recent window and is kept like this; `row` is what the index knows of it."""

    @abstractmethod
    def let_go(self, ids: Iterable[BlockId]) -> None:
        """These blocks are remembered no more."""


class NoKeeper(Keeper):
    """Nobody: what a memory holds ends with it."""

    def arrived(self, block: KVBlock) -> None:
        """Nothing outlives the process."""

    def kept(self, block: PackedBlock, row: Tensor | None) -> None:
        """Nothing outlives the process."""

    def let_go(self, ids: Iterable[BlockId]) -> None:
        """Nothing outlives the process."""

"""PerFrame: what the per-frame selectors have in common. Each keeps the same count of every frame."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..sight import Sight
from .base import FrameCompressor, Picked, Room

# Shapes: T tokens, D channels of the language model.


@dataclass(frozen=True, kw_only=True)
class PerFrame(FrameCompressor):
    """Keeps so many of each frame's tokens, or what its budget allows where that is fewer.

    keep_tokens: tokens of a frame.
    """

    keep_tokens: int = 64

    def __post_init__(self) -> None:
        if self.keep_tokens < 1:
            raise ValueError(f"keep_tokens must be at least 1; got {self.keep_tokens}")

    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        count = room.fit(self.keep_tokens)
        if count == x_TD.shape[0]:
            return Picked(torch.arange(count, device=x_TD.device))
        return self.choose(sight, x_TD, Room(room.least, count))

    @abstractmethod
    def choose(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        """What stays: `room.most` tokens, which is fewer than there are. A method that cannot give just that many may
        give fewer, down to `room.least`."""


def check_share(name: str, share: float) -> None:
    """Raises ValueError where a share is not in [0, 1]."""
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{name} must be in [0, 1]; got {share}")

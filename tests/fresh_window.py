"""A short window of fresh blocks, and what older ones are compressed by, for the tests of what is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from millpond.encoders import VideoLLM
from millpond.encoders.compressors import Compressor
from millpond.encoders.compressors.base import FrameCompressor, Picked, Room
from millpond.encoders.sight import Sight
from millpond.memory import MemoryConfig
from millpond.pipeline import Engine

from .watched import engine_of

# Shapes: T tokens, D channels.

NUM_FRESH = 2
SMALL = MemoryConfig(recent_frames=NUM_FRESH, recall_blocks=2)


def engine_with(model: VideoLLM, compressor: str | Compressor, **settings: Any) -> Engine:
    """Two blocks are fresh, and the same frames always give the same tokens."""
    return engine_of(
        model, **{"memory": SMALL, "reuse": "none", "compressor": compressor, "chunk_frames": 1} | settings
    )


@dataclass(frozen=True, kw_only=True)
class Watched(FrameCompressor):
    """Keeps every second token, and remembers what it was given."""

    seen: list[Sight] = field(default_factory=list)

    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        self.seen.append(sight)
        return Picked(torch.arange(0, x_TD.shape[0], 2))

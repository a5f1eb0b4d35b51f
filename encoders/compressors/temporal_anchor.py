"""STC-Pruner: what is far from the recent past and from the rest of the frame stays."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from ..sight import Sight
from .base import Compressor, CompressorRun, Picked, Room
from .picks import topk
from .scorers import novelty

# Shapes: T tokens, D channels, K tokens kept.


@dataclass(frozen=True, kw_only=True)
class STCPruner(Compressor):
    """Keeps the tokens that are farthest from two anchors: temporal, and spatial.

    1. Temporal anchor: mean of the mean vectors of the last window_blocks blocks. Spatial anchor: the frame's mean.
    2. Score = temporal_share * (1 - cos to the one) + (1 - temporal_share) * (1 - cos to the other); the largest stay.

    Paper: Accelerating Streaming Video Large Language Models via Hierarchical Token Compression (arXiv 2512.00891)
    Differs from the paper: None in the score's form, which is the paper's equation; the released code scores with
        Gaussian kernels over low-variance channels. The first frame has no past, so its spatial anchor decides.

    keep_tokens: tokens of a frame.
    window_blocks: blocks of the past that the temporal anchor is the mean of.
    temporal_share: weight of the temporal anchor, 0 to 1.
    at_most: tokens per second, and the floor per frame.
    """

    keep_tokens: int = 64
    window_blocks: int = 8
    temporal_share: float = 0.5

    def __post_init__(self) -> None:
        if self.keep_tokens < 1 or self.window_blocks < 1:
            raise ValueError(
                f"keep_tokens and window_blocks must be at least 1; got {self.keep_tokens} and {self.window_blocks}"
            )
        if not 0.0 <= self.temporal_share <= 1.0:
            raise ValueError(f"temporal_share must be in [0, 1]; got {self.temporal_share}")

    def start(self) -> CompressorRun:
        return _Run(self)


class _Run(CompressorRun):
    def __init__(self, recipe: STCPruner) -> None:
        super().__init__(recipe)
        self._by = recipe
        self._means: deque[Tensor] = deque(maxlen=recipe.window_blocks)

    def restart(self) -> None:
        self._means.clear()

    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        mean_D = x_TD.mean(0)
        score_T = novelty(x_TD, mean_D)
        if self._means:
            share = self._by.temporal_share
            past_T = novelty(x_TD, torch.stack(list(self._means)).mean(0))
            score_T = share * past_T + (1.0 - share) * score_T
        self._means.append(mean_D)
        return Picked(topk(score_T, room.fit(self._by.keep_tokens)))

    @property
    def num_bytes(self) -> int:
        return sum(mean_D.nbytes for mean_D in self._means)

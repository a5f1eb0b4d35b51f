"""Temporal drop: a place speaks again when it has something new to say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..sight import Sight
from .base import Compressor, CompressorRun, Picked, Room
from .picks import over_threshold
from .scorers import novelty
from .temporal_noise import USUAL_NOISE, NoiseFloor, NoiseRule

# Shapes: T tokens, D channels, K tokens kept.


@dataclass(frozen=True, kw_only=True)
class TemporalDrop(Compressor):
    """Drops a token that looks like the last one kept at its place; survivors keep their positions.

    1. How new a place is: 1 - cosine to the last kept token there; to the frame's mean where none was kept yet.
    2. New is what exceeds the stream's own noise; a place that was silent for refresh_blocks speaks anyway.
    3. Where more want to speak than may, the newest do; the others still compare with what they last said.

    Paper: TimeChat-Online: 80% Visual Tokens are Naturally Redundant in Streaming Videos (arXiv 2504.17343)
    Differs from the paper: compares with the last kept token, not with the frame before, so slow drift is seen; the
        threshold follows the stream's noise instead of a fixed one (cosine 0.25 or 0.5); capped; refreshed; the model
        is not fine-tuned for it.

    keep_tokens: most tokens of a frame; None: only at_most limits.
    refresh_blocks: a place is silent for fewer blocks than this, where there is room.
    noise: what counts as new, in novelty (1 - cosine).
    at_most: tokens per second, and the floor per frame.
    """

    keep_tokens: int | None = None
    refresh_blocks: int = 32
    noise: NoiseRule = USUAL_NOISE

    def __post_init__(self) -> None:
        if self.keep_tokens is not None and self.keep_tokens < 1:
            raise ValueError(f"keep_tokens must be at least 1, or None; got {self.keep_tokens}")
        if self.refresh_blocks < 1:
            raise ValueError(f"refresh_blocks must be at least 1; got {self.refresh_blocks}")

    def start(self) -> CompressorRun:
        return _Run(self)


class _Run(CompressorRun):
    def __init__(self, recipe: TemporalDrop) -> None:
        super().__init__(recipe)
        self._by = recipe
        self._floor = NoiseFloor(recipe.noise)
        self.restart()

    def restart(self) -> None:
        self._kept_TD: Tensor | None = None
        self._age_T = torch.empty(0)
        self._floor.reset()

    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        num_places = x_TD.shape[0]
        if self._kept_TD is None:
            self._kept_TD = torch.zeros_like(x_TD)
            self._age_T = torch.full((num_places,), -1, dtype=torch.int32, device=x_TD.device)
        spoke_T = self._age_T >= 0
        reference_TD = torch.where(spoke_T[:, None], self._kept_TD, x_TD.mean(0))
        new_T = novelty(x_TD, reference_TD)
        threshold = max(self._floor.threshold(new_T[spoke_T]), 1e-6)
        # In units of what is due: above 1, a place wants to speak.
        silent_T = (self._age_T + 1.5) / self._by.refresh_blocks
        urge_T = torch.where(spoke_T, torch.maximum(new_T / threshold, silent_T), 1.0 + (1.0 + new_T) / threshold)
        index_K = over_threshold(urge_T, 1.0, room.least, room.fit(self._by.keep_tokens or num_places))
        self._age_T = torch.where(spoke_T, self._age_T + 1, self._age_T)
        # First words at staggered ages: what was said all at once is not refreshed all at once.
        staggered_K = (index_K % self._by.refresh_blocks).int()
        self._age_T[index_K] = torch.where(spoke_T[index_K], 0, staggered_K)
        self._kept_TD = self._kept_TD.index_copy(0, index_K, x_TD[index_K])
        return Picked(index_K)

    @property
    def num_bytes(self) -> int:
        return 0 if self._kept_TD is None else self._kept_TD.nbytes + self._age_T.nbytes

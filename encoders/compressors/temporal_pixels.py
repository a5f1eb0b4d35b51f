"""Difference pruning: a token stays where the pixels under it changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..sight import Need, Sight
from .base import Compressor, CompressorRun, Picked, Room
from .picks import over_threshold
from .scorers import novelty

# Shapes: T tokens, D channels, K tokens kept.


@dataclass(frozen=True, kw_only=True)
class DifferencePruning(Compressor):
    """Keeps the first frame, and then the tokens whose pixels differ from those of the block before.

    Paper: VideoLLaMA 3: Frontier Multimodal Foundation Models for Image and Video Understanding (arXiv 2501.13106)
    Differs from the paper: the threshold is at least noise_multiple times the stream's own noise, since 0.05 levels
        is an equality test that only decoded video passes; what changed and found no room is owed to later frames;
        positions are kept; the floor goes to what changed most, not to the first token; no fine-tuned model.

    keep_tokens: most tokens of a frame; None: only at_most limits.
    threshold_levels: a place changed where its pixels differ by more than this, on average, of 255 levels.
    noise_multiple: and by more than this many times the stream's noise.
    at_most: tokens per second, and the floor per frame.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.PIXELS})

    keep_tokens: int | None = None
    threshold_levels: float = 0.05
    noise_multiple: float = 2.0

    def __post_init__(self) -> None:
        if self.keep_tokens is not None and self.keep_tokens < 1:
            raise ValueError(f"keep_tokens must be at least 1, or None; got {self.keep_tokens}")
        if not (0.0 <= self.threshold_levels <= 255.0 and self.noise_multiple >= 0.0):
            raise ValueError(
                "threshold_levels must be in [0, 255] and noise_multiple at least 0; "
                f"got {self.threshold_levels} and {self.noise_multiple}"
            )

    def start(self) -> CompressorRun:
        return _Run(self)


class _Run(CompressorRun):
    def __init__(self, recipe: DifferencePruning) -> None:
        super().__init__(recipe)
        self._by = recipe
        self.restart()

    def restart(self) -> None:
        self._owed_T: Tensor | None = None

    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        by = self._by
        changed_T = torch.zeros_like(x_TD[:, 0]) if sight.change_T is None else sight.change_T.to(x_TD.device).float()
        # Without a block before, all is new, and where not all fits the most unusual goes first.
        unseen_T = 256.0 + novelty(x_TD, x_TD.mean(0))
        if self._owed_T is None:
            changed_T = unseen_T
        changed_T = torch.where(changed_T.isfinite(), changed_T, unseen_T)
        threshold = max(by.threshold_levels, by.noise_multiple * sight.noise_levels)
        wanting_T = changed_T if self._owed_T is None else torch.maximum(changed_T, self._owed_T)
        index_K = over_threshold(wanting_T, threshold, room.least, room.fit(by.keep_tokens or x_TD.shape[0]))
        owed_T = torch.where(wanting_T > threshold, wanting_T, 0.0)
        owed_T[index_K] = 0.0
        self._owed_T = owed_T
        return Picked(index_K)

    @property
    def num_bytes(self) -> int:
        return 0 if self._owed_T is None else self._owed_T.nbytes

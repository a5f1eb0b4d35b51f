"""Keyframes: relevance where it stands out, coverage where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..sight import Need
from .base import Candidate, Selector
from .uniform import top_spread

# Shapes: N candidates of a stretch.


@dataclass(frozen=True)
class KeyframeSelector(Selector):
    """Adaptive keyframe sampling: split the recording until what is relevant stands out in a stretch.

    1. Similarities to the question are scaled to 0..1 over the recording.
    2. In a stretch that owes K frames, if the K nearest are on average more than `lead` above all of it, they are
       taken.
    3. Otherwise it is halved, each half owes half of the frames, and both are looked at in the same way; what has
       been halved `max_depth` times, or owes one frame, gives its nearest.

    Paper: Adaptive Keyframe Sampling for Long Video Understanding (arXiv 2502.21271)
    Differs from the paper: an odd number of frames is divided so that none is lost; a stretch that owes one frame is
        not halved any more; equal scores are taken at equal steps instead of the first ones.
    lead: how much the nearest must be above the mean of their stretch, 0 to 1.
    max_depth: how often a stretch is halved at most, 0 or more.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.TEXT})

    lead: float = 0.8
    max_depth: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.lead <= 1:
            raise ValueError(f"lead must be 0 to 1; got {self.lead}")
        if not 0 <= self.max_depth <= 30:
            raise ValueError(f"max_depth must be 0 to 30; got {self.max_depth}")

    def _choose(self, candidates: Sequence[Candidate], num_frames: int, similarity_N: np.ndarray) -> Sequence[int]:
        low, high = similarity_N.min(), similarity_N.max()
        scaled_N = (similarity_N - low) / (high - low) if high > low else np.zeros_like(similarity_N)
        return self._take(scaled_N, 0, num_frames, 0)

    def _take(self, scores_N: np.ndarray, start: int, num_wanted: int, depth: int) -> list[int]:
        """Places of the wanted ones, of a stretch that begins at `start`; it never owes more than it has."""
        top_N = top_spread(scores_N, num_wanted)
        is_clear = scores_N[top_N].mean() - scores_N.mean() > self.lead
        if is_clear or depth >= self.max_depth or num_wanted == 1:
            return (top_N + start).tolist()
        half = len(scores_N) // 2
        return [
            *self._take(scores_N[:half], start, num_wanted // 2, depth + 1),
            *self._take(scores_N[half:], start + half, num_wanted - num_wanted // 2, depth + 1),
        ]

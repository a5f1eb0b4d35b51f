"""Frames at equal steps, and the two ways in which every selector spreads what it cannot tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .base import Candidate, Selector

# Shapes: N candidates, K chosen.


@dataclass(frozen=True)
class UniformSelector(Selector):
    """The middle of each of `num_frames` equal stretches of the candidates.

    Baseline: equal steps.
    Differs from the paper: None.
    """

    def _choose(self, candidates: Sequence[Candidate], num_frames: int, similarity_N: np.ndarray) -> Sequence[int]:
        return spread(len(candidates), num_frames).tolist()


def spread(num: int, num_wanted: int) -> np.ndarray:
    """The middle of each of `num_wanted` equal stretches of `num` places; wanted are `num` at most."""
    return (2 * np.arange(num_wanted) + 1) * num // (2 * num_wanted)


def top_spread(scores_N: np.ndarray, num_wanted: int) -> np.ndarray:
    """The places of the `num_wanted` highest scores; of those that tie for the last places, some at equal steps."""
    edge = np.partition(scores_N, len(scores_N) - num_wanted)[len(scores_N) - num_wanted]
    above_K = np.flatnonzero(scores_N > edge)
    ties_K = np.flatnonzero(scores_N == edge)
    return np.sort(np.concatenate([above_K, ties_K[spread(len(ties_K), num_wanted - len(above_K))]]))

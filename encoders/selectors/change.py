"""Frames where something changes: each stands for an equal share of all the change that there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...stream.gates import luma_cells, tile_difference
from .base import Candidate, Selector

# Shapes: N candidates, K chosen.

_NEW_PICTURE = 255.0  # levels: another size of picture is as much change as there can be
_NOISE_QUANTILE = 0.1


@dataclass(frozen=True)
class ChangeSelector(Selector):
    """Equal shares of the accumulated visual change: many frames where much happens, few where nothing does.

    1. The change of a candidate is how much brighter or darker some part of it is than the candidate before, less
       what nine in ten of the recording's changes are above: the noise of its camera.
    2. `still_share` of the weight goes to all candidates alike, the rest by change; no candidate weighs more than
       one frame's share.
    3. The accumulated weight is cut into equal shares, and the candidate at the middle of each is taken.

    Baseline: no paper; equal steps along the change instead of along the time.
    Differs from the paper: None.
    still_share: share of the weight that time alone gets, 0 to 1; 1 is equal steps in time.
    """

    still_share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.still_share <= 1:
            raise ValueError(f"still_share must be 0 to 1; got {self.still_share}")

    def _choose(self, candidates: Sequence[Candidate], num_frames: int, similarity_N: np.ndarray) -> Sequence[int]:
        num = len(candidates)
        change_N = _changes(candidates)
        change_N = np.maximum(change_N - np.quantile(change_N[1:], _NOISE_QUANTILE), 0.0)
        change_N[0] = 0.0
        weight_N = np.full(num, 1.0 / num)
        if change_N.sum() > 0:
            weight_N = self.still_share / num + (1 - self.still_share) * change_N / change_N.sum()
        reached_N = np.cumsum(_capped(weight_N, 1.0 / num_frames))
        wanted_K = (np.arange(num_frames) + 0.5) / num_frames * reached_N[-1]
        # No weight is above a share, so only rounding can put two shares' middles into one candidate.
        return _none_twice(np.searchsorted(reached_N, wanted_K), num)


def _changes(candidates: Sequence[Candidate]) -> np.ndarray:
    """How much each differs from the one before, in levels of 0 to 255; the first from nothing."""
    cells = [luma_cells(candidate.picture_HW3) for candidate in candidates]
    steps = [_NEW_PICTURE if a.shape != b.shape else tile_difference(a, b) for a, b in pairwise(cells)]
    return np.array([0.0, *steps])


def _capped(weight_N: np.ndarray, most: float) -> np.ndarray:
    """The weights with none above `most`: what is cut off goes to the others, in proportion; alike if they had none."""
    is_capped_N = np.zeros(len(weight_N), dtype=bool)
    while True:
        rest = weight_N[~is_capped_N].sum()
        left = 1.0 - most * is_capped_N.sum()
        others_N = weight_N * (left / rest) if rest > 0 else left / max(1, int((~is_capped_N).sum()))
        grown_N = np.where(is_capped_N, most, others_N)
        over_N = grown_N > most * (1 + 1e-9)
        if not over_N.any():
            return grown_N
        is_capped_N |= over_N


def _none_twice(places_K: np.ndarray, num: int) -> list[int]:
    """Places in order, moved apart where two are the same, by as little as it takes, within `num`."""
    steps_K = np.arange(len(places_K))
    later_K = np.maximum.accumulate(places_K - steps_K)
    return (np.minimum(later_K, num - len(places_K)) + steps_K).tolist()

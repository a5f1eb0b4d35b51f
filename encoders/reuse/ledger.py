"""Ledger: how old each unit's features are, and which units the next block computes."""

from __future__ import annotations

import math

import numpy as np

# Shapes: U units.


class Ledger:
    """Ages of one stream's units, and the choice of those that are computed next. Not thread-safe: one per stream.

    An age counts the blocks of this stream, in which anything was computed, since the unit was. Every such block
    also takes the oldest units along (rolling intra refresh, as video codecs do it), at least a `max_age_blocks`-th
    of all, so that none is ever older than that, and no block costs more for it than another. The number is rounded
    up to whole buckets, the room filled with the oldest: shapes repeat, and nothing is computed for nothing.
    """

    def __init__(self, num_units: int, *, max_age_blocks: int, num_buckets: int) -> None:
        self.age_U = np.zeros(num_units, np.int64)
        self._num_refreshed = math.ceil(num_units / max_age_blocks)
        self._bucket = max(1, math.ceil(num_units / num_buckets))

    @property
    def num_units(self) -> int:
        return len(self.age_U)

    @property
    def num_bytes(self) -> int:
        return self.age_U.nbytes

    def num_planned(self, num_needed: int) -> int:
        """How many units a block computes of which so many need it."""
        wanted = num_needed + self._num_refreshed
        return min(self.num_units, -(-wanted // self._bucket) * self._bucket)

    def choose(self, needed_U: np.ndarray) -> np.ndarray:
        """The units that the next block computes, sorted: those that need it, and the oldest of the others."""
        num = self.num_planned(int(needed_U.sum()))
        # Oldest first among those not needed; a stable sort, so that equals go in the order of the picture.
        rank_U = np.where(needed_U, np.iinfo(np.int64).max, self.age_U)
        return np.sort(np.argsort(-rank_U, kind="stable")[:num])

    def computed(self, units: np.ndarray | None) -> None:
        """A block computed these units; None: all."""
        self.age_U += 1
        self.age_U[slice(None) if units is None else units] = 0

"""Pace: what whole and partial passes take on this machine, measured as they happen, and which is worth it."""

from __future__ import annotations

from collections import deque
from statistics import median

import numpy as np

_NUM_KEPT = 32
_NUM_WHOLE = 5


class Costs:
    """Seconds that passes over one layout take, shared by all streams of a seer.

    A partial pass is modelled as `a + b * rows`; until it was measured, as in proportion to its rows.
    """

    def __init__(self) -> None:
        self._whole_s: deque[float] = deque(maxlen=_NUM_WHOLE)
        self._uncompared_s: deque[float] = deque(maxlen=_NUM_WHOLE)
        self._dense_s: deque[float] = deque(maxlen=_NUM_WHOLE)
        self._partial: deque[tuple[int, float]] = deque(maxlen=_NUM_KEPT)

    def whole_took(self, seconds: float, *, compared_s: float) -> None:
        """A whole pass, everything kept of it, took so long, the comparison before it included."""
        self._whole_s.append(seconds)
        self._uncompared_s.append(seconds - compared_s)

    def dense_took(self, seconds: float) -> None:
        """A whole pass of which nothing is kept took so long."""
        self._dense_s.append(seconds)

    def partial_took(self, num_rows: int, seconds: float) -> None:
        """A pass over so many rows took so long."""
        self._partial.append((num_rows, seconds))

    @property
    def whole_s(self) -> float:
        """What a whole pass takes; infinite before the first."""
        return _usual(self._whole_s)

    @property
    def dense_s(self) -> float:
        """What a whole pass takes without comparing before it and keeping after it; until that was measured, what one
        takes without comparing."""
        return _usual(self._dense_s or self._uncompared_s)

    def partial_s(self, num_rows: int, num_patches: int) -> float:
        """What a pass over so many rows of so many patches is expected to take."""
        if len(self._partial) < 3:
            return self.whole_s * num_rows / num_patches
        rows, seconds = np.array(self._partial).T
        spread = rows - rows.mean()
        slope = float((spread * seconds).sum() / (spread**2).sum()) if spread.any() else 0.0
        if slope <= 0:
            return float(np.median(seconds / rows)) * num_rows
        return max(0.0, float(np.median(seconds - slope * rows))) + slope * num_rows


class Trial:
    """Whether reuse is faster than none for one stream, by what it took; if not, it rests for longer and longer.

    reuse: first block whole, then some blocks   too slow?  -> rest: dense blocks  -> reuse ...
                                                 as fast    -> goes on
    """

    _NUM_JUDGED = 6
    _NUM_HASTY = 3
    _FIRST_REST = 64
    _LONGEST_REST = 1024

    def __init__(self) -> None:
        self._took_s: list[float] = []
        self._num_left_to_rest = 0
        self._next_rest = self._FIRST_REST

    @property
    def is_resting(self) -> bool:
        return self._num_left_to_rest > 0

    def rested(self) -> None:
        """A block was computed dense."""
        self._num_left_to_rest = max(0, self._num_left_to_rest - 1)

    def took(self, seconds: float, dense_s: float) -> bool:
        """A block after the first took so long with reuse, and a dense one takes dense_s. True: it now rests."""
        self._took_s = [*self._took_s[1 - self._NUM_JUDGED :], seconds]
        mean_s = sum(self._took_s) / len(self._took_s)
        is_slow = len(self._took_s) >= self._NUM_JUDGED and mean_s > 1.02 * dense_s
        is_very_slow = len(self._took_s) >= self._NUM_HASTY and mean_s > 1.15 * dense_s
        if is_slow or is_very_slow:
            self._took_s = []
            self._num_left_to_rest = self._next_rest
            self._next_rest = min(self._LONGEST_REST, 4 * self._next_rest)
            return True
        if len(self._took_s) >= self._NUM_JUDGED and mean_s < 0.8 * dense_s:
            self._next_rest = self._FIRST_REST
        return False


def _usual(seconds: deque[float]) -> float:
    """The median, the first one left out where there are others: it pays for what is made once in a process."""
    if not seconds:
        return float("inf")
    later = list(seconds)[1:] if 1 < len(seconds) < _NUM_WHOLE else seconds
    return median(later)

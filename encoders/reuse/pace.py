"""Pace: what whole and partial passes take on this machine, measured as they happen, and which is worth it."""

from __future__ import annotations

from collections import deque
from statistics import median

_NUM_KEPT = 32
_NUM_WHOLE = 5


class Costs:
    """Seconds that passes over one layout take, shared by all streams of a seer.

    Other work on the machine only ever adds to what a pass takes, so the least of the last few is what it costs.
    """

    def __init__(self) -> None:
        self._whole_s: deque[float] = deque(maxlen=_NUM_WHOLE)
        self._dense_s: deque[float] = deque(maxlen=_NUM_WHOLE)
        self._partial: deque[tuple[int, float]] = deque(maxlen=_NUM_KEPT)

    def whole_took(self, seconds: float, *, compared_s: float) -> None:
        """A whole pass, everything kept of it, took so long, the comparison before it included."""
        self._whole_s.append(seconds)
        self._dense_s.append(seconds - compared_s)

    def dense_took(self, seconds: float) -> None:
        """A whole pass took so long, without a comparison, and of which nothing is kept."""
        self._dense_s.append(seconds)

    def partial_took(self, num_rows: int, seconds: float) -> None:
        """A pass over so many rows took so long."""
        self._partial.append((num_rows, seconds))

    def forget_partial(self) -> None:
        """Passes over some rows are to be measured anew."""
        self._partial.clear()

    @property
    def whole_s(self) -> float:
        """What a whole pass costs; infinite before the first."""
        return min(self._whole_s, default=float("inf"))

    @property
    def dense_s(self) -> float:
        """What a whole pass costs without comparing before it; infinite before the first."""
        return min(self._dense_s, default=float("inf"))

    def partial_s(self, num_rows: int, num_patches: int) -> float:
        """What a pass over so many rows of so many patches costs at most.

        No more than one over as many rows or more; and no more than one over fewer, scaled up. Where none was measured:
        its share of a whole pass.
        """
        scaled = [seconds * max(1.0, num_rows / rows) for rows, seconds in self._partial]
        return min(scaled, default=self.whole_s * num_rows / num_patches)


class Trial:
    """Whether reuse is faster than none for one stream, by what it took; if not, it rests for longer and longer.

        trying: blocks with reuse ---- seem slow? ----> control: one block without
           ^                                              | slower than that |
           |<------------------- no ----------------------|                  | yes
           |<------------------- 64 blocks, 256, 1024 -------- resting: dense blocks

    The control is for machines that do other work as well: what seems slow is held against a dense block of now.
    """

    _NUM_JUDGED = 6
    _NUM_HASTY = 3
    _FIRST_REST = 64
    _LONGEST_REST = 1024

    def __init__(self) -> None:
        self._took_s: list[float] = []
        self._num_wanted = self._NUM_HASTY
        self._num_left_to_rest = 0
        self._next_rest = self._FIRST_REST
        self.wants_control = False

    @property
    def is_resting(self) -> bool:
        return self._num_left_to_rest > 0

    def took(self, seconds: float, dense_s: float) -> None:
        """A block with reuse took so long, and a dense one is thought to take dense_s."""
        self._took_s = [*self._took_s[1 - self._NUM_JUDGED :], seconds]
        self._num_wanted -= 1
        is_slow = self._is_slower_than(dense_s)
        self.wants_control = is_slow and self._num_wanted <= 0
        if not is_slow and len(self._took_s) == self._NUM_JUDGED and median(self._took_s) < 0.8 * dense_s:
            self._next_rest = self._FIRST_REST

    def dense_took(self, seconds: float) -> None:
        """A block without reuse took so long: a control, or one more of the rest."""
        if self.is_resting:
            self._num_left_to_rest -= 1
        elif self.wants_control:
            if self._is_slower_than(seconds):
                self._num_left_to_rest = self._next_rest
                self._next_rest = min(self._LONGEST_REST, 4 * self._next_rest)
                self._num_wanted = self._NUM_HASTY
            else:
                self._num_wanted = 2 * self._NUM_JUDGED
            self._took_s, self.wants_control = [], False

    def _is_slower_than(self, dense_s: float) -> bool:
        if len(self._took_s) < self._NUM_JUDGED:
            return len(self._took_s) >= self._NUM_HASTY and median(self._took_s) > 1.15 * dense_s
        return median(self._took_s) > 1.02 * dense_s

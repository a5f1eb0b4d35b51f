"""Backoff: how long to wait before the next try; longer each time, and not in step with others that wait."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double from `first_s` to `longest_s`, each cut short by chance. `start()` gives the state of one
    outage after another.

    first_s, longest_s: the first wait and the longest.
    jitter: share of a wait, 0 to 1, that chance may take off, so that a thousand cameras behind one switch do not
        all come back in the same second.
    """

    first_s: float = 1.0
    longest_s: float = 30.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.first_s <= self.longest_s and math.isfinite(self.longest_s)):
            raise ValueError(
                f"waits are 0 < first_s <= longest_s, finite; got first_s={self.first_s}, longest_s={self.longest_s}"
            )
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is a share, 0 to 1; got jitter={self.jitter}")

    def start(self, chance: random.Random | None = None) -> BackoffRun:
        """Nothing has failed yet. `chance` is the system's where none is given."""
        return BackoffRun(self, chance or random.SystemRandom())


class BackoffRun:
    """One user's waits; not thread-safe."""

    def __init__(self, backoff: Backoff, chance: random.Random) -> None:
        self._backoff, self._chance = backoff, chance
        self._next_s = backoff.first_s

    def draw(self) -> float:
        """The wait after one more failure; the one after it is twice as long."""
        wait_s = self._shortened(self._next_s)
        self._next_s = min(2 * self._next_s, self._backoff.longest_s)
        return wait_s

    def draw_slow(self) -> float:
        """A wait at the slow end, for what does not mend itself; the others go on where they were."""
        return self._shortened(self._backoff.longest_s)

    def reset(self) -> None:
        """It works again: the next wait is a first one."""
        self._next_s = self._backoff.first_s

    def _shortened(self, wait_s: float) -> float:
        return wait_s * (1 - self._backoff.jitter * self._chance.random())

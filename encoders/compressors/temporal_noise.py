"""NoiseFloor: how far apart two looks at the same thing are on this stream, from the stream itself."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from torch import Tensor

# Shapes: N places that were looked at before.

WINDOW_BLOCKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRule:
    """A threshold of novelty: so many times the noise floor, within two bounds.

    multiple: of the floor; sensor noise is seldom more than twice its own low quantile.
    quantile: of a block's novelties that is taken for noise: the share of places where nothing happens, at the least.
    least, most: bounds on the threshold, in novelty (1 - cosine), for a picture without noise and one all in motion.
    """

    multiple: float = 3.0
    quantile: float = 0.25
    least: float = 0.02
    most: float = 0.75

    def __post_init__(self) -> None:
        if self.multiple < 1.0:
            raise ValueError(f"multiple must be at least 1; got {self.multiple}")
        if not 0.0 <= self.quantile <= 1.0:
            raise ValueError(f"quantile must be in [0, 1]; got {self.quantile}")
        if not 0.0 <= self.least <= self.most <= 2.0:
            raise ValueError(f"least and most must be in order and in [0, 2]; got {self.least} and {self.most}")


USUAL_NOISE = NoiseRule()


class NoiseFloor:
    """The running estimate. Not thread-safe: one per stream."""

    def __init__(self, rule: NoiseRule) -> None:
        self._rule = rule
        self._lows: deque[float] = deque(maxlen=WINDOW_BLOCKS)

    def threshold(self, novelty_N: Tensor) -> float:
        """Takes in one block's novelties against what was seen before; what counts as new from now on."""
        rule = self._rule
        if novelty_N.numel():
            low_first_N = novelty_N.float().sort().values
            self._lows.append(float(low_first_N[int(rule.quantile * (novelty_N.numel() - 1))]))
        # A low quantile over time too: while the camera pans, even the stillest places move.
        over_time = sorted(self._lows)
        floor = over_time[int(rule.quantile * (len(over_time) - 1))] if over_time else 0.0
        return min(rule.most, max(rule.least, rule.multiple * floor))

    def reset(self) -> None:
        self._lows.clear()

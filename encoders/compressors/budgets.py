"""Budgets: how many tokens each frame, band or set may keep. Counts in, counts out; nothing here looks at a token."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Shapes: N tokens, P parts that share a count.


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Tokens per second of stream, with a floor per frame: a bucket that fills steadily and starts full.

    Over any W seconds, frames spend at most tokens_per_s * (W + burst_s), and their floors on top.

    tokens_per_s: what the stream may keep in the long run; infinite: as much as there is.
    floor_tokens: what each frame may keep, and keeps, whatever was spent before.
    burst_s: how many seconds of saved tokens the bucket holds, for a cut or a first frame.
    """

    tokens_per_s: float = math.inf
    floor_tokens: int = 1
    burst_s: float = 4.0

    def __post_init__(self) -> None:
        if not self.tokens_per_s > 0:
            raise ValueError(f"tokens_per_s must be above 0 (infinite for no limit); got {self.tokens_per_s}")
        if self.floor_tokens < 1:
            raise ValueError(f"floor_tokens must be at least 1; got {self.floor_tokens}")
        if not (self.burst_s > 0 and math.isfinite(self.burst_s)):
            raise ValueError(f"burst_s must be finite and above 0; got {self.burst_s}")

    def start(self) -> Allowance:
        return Allowance(self)


NO_LIMIT = Budget()


class Allowance:
    """What is left of a budget on one stream. Not thread-safe: one per stream."""

    def __init__(self, per_stream: Budget) -> None:
        self._budget = per_stream
        self._full = per_stream.tokens_per_s * per_stream.burst_s
        self._level = self._full
        self._at_s = -math.inf

    def _level_at(self, at_s: float) -> float:
        if math.isinf(self._full):
            return math.inf
        waited_s = max(0.0, at_s - self._at_s)  # a clock that steps back earns nothing
        return min(self._full, self._level + waited_s * self._budget.tokens_per_s)

    def grant(self, at_s: float) -> int:
        """The most that a frame shown then may keep; changes nothing."""
        level = self._level_at(at_s)
        if math.isinf(level):
            return sys.maxsize
        return max(self._budget.floor_tokens, math.floor(level))

    def spend(self, at_s: float, num_tokens: int) -> None:
        """A frame shown then kept this many. Floors that nothing was left for are not owed later."""
        self._level = max(0.0, self._level_at(at_s) - num_tokens)
        self._at_s = max(self._at_s, at_s)


def uniform_counts(total: int, capacities: Sequence[int]) -> list[int]:
    """B1: equal shares of `total`, none above its capacity; what one part cannot take, the others get.

    Sums to min(total, sum(capacities)). The first parts get what does not divide.
    """
    return proportional_counts(torch.ones(len(capacities)), total, capacities)


def proportional_counts(share_P: Tensor, total: int, capacities: Sequence[int]) -> list[int]:
    """B3: floor(share * total), then one each to the largest remainders, none above its capacity.

    Sums to min(total, sum(capacities)). Shares below zero or not finite count as zero; all zero: equal shares.
    Ties go to the first.
    """
    if share_P.shape[0] != len(capacities):
        raise ValueError(f"one share for each of {len(capacities)} parts; got {share_P.shape[0]}")
    counts = [0] * len(capacities)
    left = min(max(total, 0), sum(capacities))
    wanted = [w if math.isfinite(w) and w > 0 else 0.0 for w in share_P.tolist()]
    while left > 0:
        open_parts = [i for i, most in enumerate(capacities) if counts[i] < most]
        weights = [wanted[i] for i in open_parts]
        if not sum(weights) > 0:
            weights = [1.0] * len(open_parts)
        scale = max(weights)  # first, so that the sum of huge shares stays finite
        weights = [w / scale for w in weights]
        exact = [w / sum(weights) * left for w in weights]
        give = [math.floor(e) for e in exact]
        by_remainder = sorted(range(len(open_parts)), key=lambda j: (give[j] - exact[j], j))
        for j in by_remainder[: left - sum(give)]:
            give[j] += 1
        for i, more in zip(open_parts, give, strict=True):
            counts[i] += min(more, capacities[i] - counts[i])
        left = min(max(total, 0), sum(capacities)) - sum(counts)
    return counts


def bonus_share(bonus: float, mean_bonus: float, base_share: float) -> float:
    """B2: R * (1 + p - mean p), clipped to [0, 1]: a frame's share of its tokens, more where it is more unusual."""
    return min(1.0, max(0.0, base_share * (1.0 + bonus - mean_bonus)))


def mass_count(score_N: Tensor, share: float) -> int:
    """B4: the fewest tokens whose scores sum to `share` of all. One at least; scores below zero count as zero."""
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must be in [0, 1]; got {share}")
    largest_N = score_N.float().clamp_min(0.0).sort(descending=True).values.double()
    reached_N = largest_N.cumsum(0)
    # A sum that float rounding leaves a hair short still counts as reached.
    short_of = (reached_N < share * reached_N[-1] * (1.0 - 1e-9)).sum()
    return min(int(short_of) + 1, score_N.shape[0])


def capped_count(num_over: int, least: int, most: int) -> int:
    """B5: as many as passed a threshold, never below `least`, never above `most` (which wins)."""
    return min(max(num_over, least), most)

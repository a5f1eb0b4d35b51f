"""Choosing: which tokens of all cameras a policy gets, where it wants fewer than there are."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# Shapes: T places of one camera's grid, in raster order.


@lru_cache(maxsize=16)
def spread_order(grid_hw: tuple[int, int]) -> np.ndarray:
    """The places of a grid in an order of which every beginning lies evenly over it: float64 (T,), 0 for the first
    place, below 1 for the last.

    The middle first, and then always the place that is farthest from all before it.
    """
    height, width = grid_hw
    rows, columns = np.divmod(np.arange(height * width), width)
    at = np.stack((rows / height, columns / width), axis=1)
    rank_T = np.zeros(len(at))
    nearest_T = np.full(len(at), np.inf)
    place = (height // 2) * width + width // 2
    for number in range(len(at)):
        rank_T[place] = number / len(at)
        nearest_T = np.minimum(nearest_T, ((at - at[place]) ** 2).sum(axis=1))
        nearest_T[place] = -1.0
        place = int(nearest_T.argmax())
    rank_T.flags.writeable = False
    return rank_T


def choose(
    fresh: list[np.ndarray], changed: list[np.ndarray], grids_hw: list[tuple[int, int]], budget_tokens: int | None
) -> list[np.ndarray]:
    """The places that are kept of each camera's grid, increasing.

    What must be fresh comes first, then what changed, then what lies evenly over all pictures. So no part of a picture
    is ever without a token near it because something moves elsewhere, unless what moves fills the budget.

    fresh, changed: for each camera, bool (T,). budget_tokens: of all cameras together; None: all are kept.
    """
    if budget_tokens is None or budget_tokens >= sum(len(one) for one in fresh):
        return [np.arange(len(one)) for one in fresh]
    rank = np.concatenate(
        [
            2.0 * ~fresh_T + 1.0 * ~(changed_T | fresh_T) + spread_order(grid_hw)
            for fresh_T, changed_T, grid_hw in zip(fresh, changed, grids_hw, strict=True)
        ]
    )
    kept = np.zeros(len(rank), bool)
    kept[np.argsort(rank, kind="stable")[:budget_tokens]] = True
    ends = np.cumsum([len(one) for one in fresh])[:-1]
    return [np.flatnonzero(part) for part in np.split(kept, ends)]

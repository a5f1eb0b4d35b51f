"""Fusion: several ranked lists of units become one, and few of it are taken that differ from each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from ..stream import Span

U = TypeVar("U", bound=Hashable)

# Units this far apart in time are alike by 1/e, where nothing better is known.
_ALIKE_S = 10.0


def fuse(rankings: Sequence[Sequence[U]], weights: Sequence[float] | None = None, *, k: int = 60) -> dict[U, float]:
    """Unit -> score, larger is better, from ranks alone: the scores of different indices cannot be compared.

    A unit's score is the sum of weight / (k + rank) over the lists that name it; ranks begin at 1.

    Paper: Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods (SIGIR 2009).

    Args:
        rankings: each best first, each unit once; a list that knows nothing is empty.
        weights: of the lists, not negative; 1 for each by default.
        k: how little the first ranks count above the later ones.
    """
    if weights is None:
        weights = [1.0] * len(rankings)
    if len(weights) != len(rankings):
        raise ValueError(f"every ranking has one weight; got {len(weights)} for {len(rankings)} rankings")
    if k < 0 or not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"weights must be finite, and neither they nor k negative; got {list(weights)} and k={k}")
    parts: dict[U, list[float]] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        if len(set(ranking)) != len(ranking):
            raise ValueError(
                f"a ranking names each unit once; got one of {len(ranking)} with {len(set(ranking))} units"
            )
        for rank, unit in enumerate(ranking, start=1):
            parts.setdefault(unit, []).append(weight / (k + rank))
    # fsum, so that the order of the lists does not matter.
    return {unit: math.fsum(scores) for unit, scores in parts.items()}


def pick(
    scores: Mapping[U, float],
    spans: Mapping[U, Span],
    num_units: int,
    diversity: float,
    similarity: Callable[[U, U], float] | None = None,
) -> list[U]:
    """At most `num_units` units, in the order in which they were chosen: the best, then what is good and new.

    Each time the largest of (1 - diversity) x score / best score - diversity x (similarity to the most alike unit that
    was chosen); of two alike the earlier in time, then the one that `scores` has first. Scores count relative to the
    best one, so that they and similarities are of one size.

    Paper: The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing Summaries (SIGIR 1998).

    Args:
        scores: as `fuse` gives them, not negative.
        spans: of every scored unit, when it was.
        diversity: 0: the best scores, whatever they show; 1: the most different, after the best one.
        similarity: of two units, 1 for the same thing, 0 for nothing in common; closeness in time by default: 1 where
            spans overlap, 0.37 where 10 s are between them.
    """
    if not 0 <= diversity <= 1:
        raise ValueError(f"diversity must be from 0 to 1; got {diversity}")
    if num_units < 0:
        raise ValueError(f"num_units must not be negative; got {num_units}")
    for unit, score in scores.items():
        if not (math.isfinite(score) and score >= 0):
            raise ValueError(f"scores must be finite and not negative; got {score} for {unit!r}")
        if unit not in spans:
            raise ValueError(f"every scored unit needs a span; got none for {unit!r}")
    alike = similarity if similarity is not None else lambda a, b: closeness(spans[a], spans[b])
    # A stable sort, so that the first of the largest is the earlier one.
    left = sorted(scores, key=lambda unit: spans[unit])
    best_score = max(scores.values(), default=0.0) or 1.0
    nearest: dict[U, float] = {}
    chosen: list[U] = []
    while left and len(chosen) < num_units:
        if chosen:
            for unit in left:
                nearest[unit] = max(nearest.get(unit, -math.inf), alike(unit, chosen[-1]))
            worth = {u: (1 - diversity) * scores[u] / best_score - diversity * nearest[u] for u in left}
        else:
            worth = {unit: scores[unit] for unit in left}
        chosen.append(max(left, key=worth.__getitem__))
        left.remove(chosen[-1])
    return chosen


def closeness(a: Span, b: Span) -> float:
    """1 where two spans overlap, less the longer the time between them."""
    if a.overlaps(b):
        return 1.0
    return math.exp(-(max(a.start_s, b.start_s) - min(a.end_s, b.end_s)) / _ALIKE_S)

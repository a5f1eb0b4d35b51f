"""The front: of several methods, those that no other beats in both accuracy and cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """One method: what it costs, in any unit, less is better; and its accuracy, more is better."""

    name: str
    cost: float
    accuracy: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cost) and math.isfinite(self.accuracy)):
            raise ValueError(
                f"point {self.name!r} needs a finite cost and accuracy; got {self.cost} and {self.accuracy}; leave "
                "out what was not measured"
            )

    def beats(self, other: Point) -> bool:
        """Whether it is nowhere worse, and somewhere better."""
        if self.cost > other.cost or self.accuracy < other.accuracy:
            return False
        return self.cost < other.cost or self.accuracy > other.accuracy


def front(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points that none beats, cheapest first. Of points that are equal, all are on it or none is."""
    found: list[Point] = []
    best = -math.inf
    for point in sorted(points, key=lambda point: (point.cost, -point.accuracy)):
        is_twin = bool(found) and (point.cost, point.accuracy) == (found[-1].cost, found[-1].accuracy)
        if point.accuracy > best or is_twin:
            found.append(point)
            best = point.accuracy
    return tuple(found)

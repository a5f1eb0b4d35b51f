"""Pairing: whether the newest pictures of several cameras show one moment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .camera import Picture

PairedBy = Literal["arrival", "pts"]


@dataclass(frozen=True, slots=True)
class Pairing:
    """When pictures count as of one moment. Made by whoever makes a feed, read by it.

    tolerance_s: how far their times may lie apart: no less than the slowest camera's period, as a faster one's newest
        picture is up to that much younger.
    by: "arrival": when they were captured by this machine's clock; "pts": by the cameras' own, where they share one.
    """

    tolerance_s: float = 0.1
    by: PairedBy = "arrival"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tolerance_s) and self.tolerance_s >= 0):
            raise ValueError(f"pair_tolerance_s is a finite number of seconds, 0 or more; got {self.tolerance_s}")
        if self.by not in ("arrival", "pts"):
            raise ValueError(f"pictures are paired by 'arrival' or by 'pts'; got {self.by!r}")

    def problem(self, pictures: Sequence[Picture]) -> str | None:
        """Why these are no pair, in a sentence; None where they are. One picture always is."""
        times = [(picture.captured_s if self.by == "arrival" else picture.pts_s, picture) for picture in pictures]
        first_s, first = min(times, key=lambda one: one[0])
        last_s, last = max(times, key=lambda one: one[0])
        if last_s - first_s <= self.tolerance_s:
            return None
        return (
            f"the newest pictures of cameras {first.camera_id!r} and {last.camera_id!r} lie {last_s - first_s:.3f} s "
            f"apart by {self.by}, and pair_tolerance_s is {self.tolerance_s:g}"
        )

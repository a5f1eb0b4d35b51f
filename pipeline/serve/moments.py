"""Moments: times as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import overload


@overload
def rfc3339(wall_s: float) -> str: ...
@overload
def rfc3339(wall_s: float | None) -> str | None: ...
def rfc3339(wall_s: float | None) -> str | None:
    """Unix time as 2026-05-30T01:41:25.000Z; None for none, and for what no calendar has."""
    if wall_s is None:
        return None
    try:
        return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return None


def seconds(time_s: float) -> float:
    """As it is told: to the microsecond, which is finer than any clock here."""
    return round(time_s, 6)

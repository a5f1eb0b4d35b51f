"""MemoryStats: what one memory holds and what has gone through it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """Made by Memory, read by metrics, written by nobody: a snapshot.

    older_bytes and index_bytes together stay within budget_bytes; the recent window is bounded by its count.
    num_appended = num_recent + num_older + num_evicted + num_forgotten.
    """

    num_sinks: int
    num_recent: int
    num_older: int
    sink_bytes: int
    recent_bytes: int
    older_bytes: int
    index_bytes: int
    budget_bytes: int
    num_appended: int
    num_evicted: int
    num_forgotten: int

    @property
    def num_bytes(self) -> int:
        """All that is held."""
        return self.sink_bytes + self.recent_bytes + self.older_bytes + self.index_bytes

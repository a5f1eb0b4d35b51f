"""A desk of plain values for tests of what is read off it: no engine, no threads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from millpond.pipeline.serve.views import StreamState

STATE = StreamState(
    id="door",
    source="rtsp://***@cam.local/main",
    state="live",
    problem=None,
    lag_s=0.25,
    seen_until_s=12.0,
    num_frames=7,
    num_dropped=2,
    num_reconnects=1,
    num_questions=3,
    change_share=0.125,
    recomputed_share=0.5,
    held_bytes=4096,
    bytes_by_tier={"T0": 1, "T1": 2, "T2": 3, "T3": 4},
    budget_by_tier={"T1": 20, "T2": 30},
    started="2026-01-02T03:04:05.000Z",
    was_live=True,
)


def a_state(stream_id: str, **changes: object) -> StreamState:
    return replace(STATE, id=stream_id, **changes)  # type: ignore[arg-type]


@dataclass
class PlainDesk:
    """What health and metrics ask of the desk, to be set by a test."""

    shown: list[StreamState] = field(default_factory=list)
    is_loaded: bool = True
    load_problem: str | None = None
    is_closing: bool = False
    declared: tuple[str, ...] = ()
    hub_turn_age_s: float | None = 0.1
    num_questions: int = 0

    def states(self) -> list[StreamState]:
        return list(self.shown)

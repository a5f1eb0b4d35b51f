"""What the desk takes and shows: plain values, and the errors that a route turns into a status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ..stream_spec import StreamSpec

StateName = Literal["connecting", "live", "retrying", "ended", "failed"]


class NoStream(KeyError):
    """There is no stream of this name (404)."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "there is no such stream"


class StreamTaken(ValueError):
    """There is a stream of this name already (409)."""


class TooMany(RuntimeError):
    """More streams or questions than the limits allow (429)."""


class NotReady(RuntimeError):
    """The model is still being loaded, or the server is ending (503)."""


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One stream as the config or a client declares it: what `millpond watch` takes for one. Shows no credentials.

    id: its name, also in the model field of a question: millpond/ID. Printable; no slash in it.
    source: what `open_source` takes.
    question: what it is watched for.
    narrate: whether it is told of.
    as_live: plays a recording by the clock, as a camera would give it.
    memory: a directory or redis:// address where it outlives the process; None: as `[memory] at` says.
    options: what `open_source` takes besides.
    """

    id: str
    source: str = field(repr=False)
    question: str | None = None
    narrate: bool = True
    as_live: bool = False
    memory: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.spec(None)  # raises ValueError, which says what is wrong
        if "/" in self.id or self.id in (".", "..") or self.id != self.id.strip():
            raise ValueError(f"a stream's id stands in addresses; got {self.id!r}; leave out slashes and outer spaces")

    def spec(self, at: str | None) -> StreamSpec:
        """The same, for whoever opens it. at: where its session outlives the process."""
        return StreamSpec(self.id, self.source, self.question, self.narrate, at, dict(self.options), self.as_live)


@dataclass(frozen=True, slots=True)
class StreamState:
    """How a stream is doing. Made by the desk, read by routes, metrics and alerts.

    source: credentials masked. problem: why it is not live, in a sentence without credentials.
    lag_s: age of the newest frame that was taken; None before the first.
    seen_until_s: stream time of that frame.
    num_frames: taken by the model; num_dropped: due, and overtaken by newer ones or lost on the way.
    change_share: share of the picture that changed from the frame before the newest to it, 0 to 1.
    recomputed_share: share of all patches so far that went through the vision tower, 0 to 1.
    held_bytes: what its session holds in this process. bytes_by_tier: T0 to T3, wherever they are.
    budget_by_tier: what these may hold, where that is capped in bytes.
    started: RFC 3339, when it was added. was_live: whether a frame ever came.
    """

    id: str
    source: str
    state: StateName
    problem: str | None
    lag_s: float | None
    seen_until_s: float | None
    num_frames: int
    num_dropped: int
    num_reconnects: int
    num_questions: int
    change_share: float
    recomputed_share: float
    held_bytes: int
    bytes_by_tier: dict[str, int]
    started: str
    was_live: bool
    budget_by_tier: dict[str, int] = field(default_factory=dict)


class EventRow(NamedTuple):
    """A line of a stream's log. number: rises, and is the id of its Server-Sent Event. kind: narration, event, gap or
    trace. wall: RFC 3339 of its end, where the source's clock is known. keyframe_s: a time to ask a picture for."""

    number: int
    kind: str
    start_s: float
    end_s: float
    text: str
    wall: str | None
    keyframe_s: float | None


class Hit(NamedTuple):
    """A line of some stream's log that fits the words searched for. score: larger is better."""

    stream_id: str
    row: EventRow
    score: float

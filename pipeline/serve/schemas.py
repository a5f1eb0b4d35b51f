"""Requests and responses of the API, as they are checked and described."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from ..shown import Overlay
from .views import EventRow, Hit, StateName, StreamEntry, StreamState

_SOURCE = "rtsp(s)://, http(s)://, synthetic://, or file:// below a folder that the operator declared"

Responses = dict[int | str, dict[str, Any]]
"""What a route may answer with besides, for its description."""


class Strict(BaseModel):
    """What a client sends: nothing besides, and nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamIn(Strict):
    """A stream to be watched."""

    id: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^/\s]([^/\x00-\x1f\x7f]*[^/\s])?$")]
    source: Annotated[str, Field(min_length=1, max_length=2048, description=_SOURCE)]
    question: Annotated[str | None, Field(min_length=1, max_length=1000, description="what it is watched for")] = None
    narrate: Annotated[bool, Field(description="whether it is told of")] = True
    as_live: Annotated[bool, Field(description="plays a recording by the clock, as a camera would give it")] = False

    def entry(self, source: str) -> StreamEntry:
        """The same, with an address that was checked."""
        return StreamEntry(self.id, source, self.question, self.narrate, self.as_live)


class StreamOut(BaseModel):
    """How a stream is doing."""

    object: Literal["stream"] = "stream"
    id: str
    source: Annotated[str, Field(description="credentials masked")]
    state: StateName
    problem: str | None
    lag_s: Annotated[float | None, Field(description="age of the newest frame that was taken")]
    seen_until_s: float | None
    num_frames: int
    num_dropped: int
    num_reconnects: int
    num_questions: int
    change_share: float
    recomputed_share: float
    held_bytes: int
    bytes_by_tier: dict[str, int]
    budget_by_tier: dict[str, int]
    started: str
    was_live: bool

    @classmethod
    def of(cls, state: StreamState) -> StreamOut:
        return cls(**asdict(state))


class StreamList(BaseModel):
    """All streams."""

    object: Literal["list"] = "list"
    data: list[StreamOut]


class EventOut(BaseModel):
    """A line of a stream's log. number: rises; the id of its Server-Sent Event."""

    number: int
    kind: str
    start_s: float
    end_s: float
    text: str
    wall: Annotated[str | None, Field(description="RFC 3339, of its end, where the source's clock is known")]
    keyframe_s: float | None
    keyframe: Annotated[str | None, Field(description="path of a picture of it")]

    @classmethod
    def of(cls, stream_id: str, row: EventRow) -> EventOut:
        return cls(**row._asdict(), keyframe=None if row.keyframe_s is None else keyframe(stream_id, row.keyframe_s))


class EventList(BaseModel):
    """Lines of one stream's log. has_more: whether there are lines after these now."""

    object: Literal["list"] = "list"
    data: list[EventOut]
    has_more: bool


class HitOut(EventOut):
    """A line that fits what was searched for. score: larger is better."""

    stream: str
    score: float

    @classmethod
    def of_hit(cls, hit: Hit) -> HitOut:
        event = EventOut.of(hit.stream_id, hit.row)
        return cls(**event.model_dump(), stream=hit.stream_id, score=hit.score)


class HitList(BaseModel):
    """What a search found, best first."""

    object: Literal["list"] = "list"
    data: list[HitOut]


class OverlayOut(BaseModel):
    """What was done for a stream's newest frame: patches that were computed again, and visual tokens that were kept."""

    pts_s: float
    rows: int
    columns: int
    recomputed: list[int]
    kept_pts_s: float | None
    kept_rows: int
    kept_columns: int
    kept: list[int]
    change_share: float

    @classmethod
    def of(cls, overlay: Overlay) -> OverlayOut:
        return cls(**asdict(overlay))


class ErrorBody(BaseModel):
    """What went wrong, in a sentence."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorOut(BaseModel):
    """Every error of the API."""

    error: ErrorBody


def keyframe(stream_id: str, time_s: float) -> str:
    """The path of a stream's picture of a moment."""
    return f"/v1/streams/{quote(stream_id, safe='')}/frames/{max(0.0, time_s):.3f}".rstrip("0").rstrip(".") + ".jpg"


def errors(*statuses: int) -> Responses:
    """Which errors a route may answer with, for its description; those of every route among them."""
    return {status: {"model": ErrorOut} for status in sorted({400, 401, 403, 408, 413, 415, 421, 500, *statuses})}

"""Routes of streams: what there is, how it is doing, what was told of it, what it looks like."""

from __future__ import annotations

from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from ...stream.way import Way
from ..shown import Picture
from .config_file import ServeConfig
from .errors import ApiError
from .schemas import (
    EventList,
    EventOut,
    HitList,
    HitOut,
    OverlayOut,
    Responses,
    StreamIn,
    StreamList,
    StreamOut,
    errors,
)
from .sse import Followers
from .streams import MAX_SEARCHES, Streams
from .url_guard import checked_source

_JPEG: Responses = {200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}}
_EVENTS: Responses = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
_MAX_NUMBER = 2**62
_NETWORK = ("http", "https", "rtsp", "rtsps", "tcp")

After = Annotated[
    int | None, Query(ge=-1, le=_MAX_NUMBER, description="lines after this number; -1: from the first one")
]


def stream_routes(streams: Streams, config: ServeConfig, followers: Followers, gateway: Way) -> APIRouter:
    """All of them, over one desk. gateway: how streams on the network are connected to that clients name."""
    router = APIRouter(prefix="/v1", tags=["streams"])
    searches = anyio.CapacityLimiter(MAX_SEARCHES)

    @router.get("/streams", responses=errors())
    def list_streams() -> StreamList:
        """All streams, in the order in which they were added."""
        return StreamList(data=[StreamOut.of(state) for state in streams.states()])

    @router.post("/streams", status_code=201, responses=errors(409, 429, 503))
    def add_stream(given: StreamIn) -> StreamOut:
        """Begins to watch a stream. A camera that does not answer is tried until it does."""
        source = checked_source(given.source, config.urls)
        is_far = source.partition(":")[0].lower() in _NETWORK
        return StreamOut.of(streams.add(given.entry(source), way=gateway if is_far else None))

    @router.get("/streams/{stream_id}", responses=errors(404))
    def get_stream(stream_id: str) -> StreamOut:
        """How one stream is doing: state, lag, drops, bytes by tier."""
        return StreamOut.of(streams.state(stream_id))

    @router.delete("/streams/{stream_id}", status_code=204, responses=errors(404, 409))
    async def remove_stream(stream_id: str) -> Response:
        """Ends a stream; what outlives the server is brought to rest first."""
        await run_in_threadpool(streams.remove, stream_id)
        followers.ring(stream_id)
        return Response(status_code=204)

    @router.get("/streams/{stream_id}/events", response_model=EventList, responses={**errors(404, 406, 429), **_EVENTS})
    async def list_events(
        request: Request,
        stream_id: str,
        after: After = None,
        most: Annotated[int, Query(ge=1, le=1000)] = 1000,
        last_event_id: Annotated[str | None, Header(description="goes before `after`, for Server-Sent Events")] = None,
    ) -> Response | EventList:
        """A stream's log: narrations, events, gaps. As JSON, or with `Accept: text/event-stream` as Server-Sent Events,
        which go on as lines come: from `Last-Event-ID`, or else from now on."""
        if "text/event-stream" in request.headers.get("accept", ""):
            start = _place(last_event_id) if last_event_id else after
            return StreamingResponse(
                followers.follow(stream_id, start),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
        start = -1 if after is None else after
        rows = streams.recent_events(stream_id, after=start, most=most + 1)
        if rows is None:
            rows = await run_in_threadpool(streams.events, stream_id, after=start, most=most + 1)
        data = [EventOut.of(stream_id, row) for row in rows[:most]]
        return EventList(data=data, has_more=len(rows) > most)

    @router.get("/streams/{stream_id}/snapshot.jpg", response_class=Response, responses={**errors(404), **_JPEG})
    def get_snapshot(stream_id: str) -> Response:
        """The newest picture that was taken."""
        return _shown(streams.snapshot(stream_id), stream_id)

    @router.get(
        "/streams/{stream_id}/frames/{time_s:float}.jpg", response_class=Response, responses={**errors(404), **_JPEG}
    )
    def get_frame(stream_id: str, time_s: float) -> Response:
        """The picture that was kept nearest to a moment, in seconds of the stream."""
        return _shown(streams.frame(stream_id, time_s), stream_id)

    @router.get(
        "/streams/{stream_id}/overlay",
        response_model=OverlayOut,
        responses={**errors(404), 204: {"description": "Nothing was encoded yet"}},
    )
    def get_overlay(stream_id: str) -> Response | OverlayOut:
        """Which patches of the newest frame were computed again, and which tokens were kept."""
        overlay = streams.overlay(stream_id)
        return Response(status_code=204) if overlay is None else OverlayOut.of(overlay)

    @router.get("/search", responses=errors())
    async def search(
        q: Annotated[str, Query(min_length=1, max_length=1000, description="any words; nothing in it is an operator")],
        most: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> HitList:
        """Lines of all streams' logs that hold any of the words, best first."""
        hits = await anyio.to_thread.run_sync(lambda: streams.search(q, most=most), limiter=searches)
        return HitList(data=[HitOut.of_hit(hit) for hit in hits])

    return router


def _place(last_event_id: str) -> int:
    """Where a client goes on from."""
    words = last_event_id.strip()
    if not words.removeprefix("-").isdecimal() or len(words) > 19:
        raise ApiError(
            400, f"Last-Event-ID is the number of a line; got {words[:40]!r}", code="bad_request", param="Last-Event-ID"
        )
    return max(-1, min(int(words), _MAX_NUMBER))


def _shown(picture: Picture | None, stream_id: str) -> Response:
    if picture is None:
        raise ApiError(404, f"there is no picture of {stream_id[:200]!r} yet", code="no_picture")
    headers = {
        "Cache-Control": "no-store",
        "Millpond-Time": f"{picture.pts_s:.6f}",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(picture.jpeg, media_type="image/jpeg", headers=headers)

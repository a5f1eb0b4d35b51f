"""Looking: what the desk shows of sessions, logs and archives, made from them and changing none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from ...memory.event_log import Line
from ...memory.event_table import TRACE
from ...stream import Frame
from ...stream.jpeg import MAX_SIDE, encode_jpeg
from ..hub_stream import StreamSight
from .moments import rfc3339
from .views import EventRow, Hit, Overlay, Picture

if TYPE_CHECKING:
    from ...memory.event_log import EventLog
    from ..session import Session


def row_of(line: Line, newest: Frame | None) -> EventRow:
    """A line of a log as it is shown. newest: the stream's newest frame, which knows what time it is there."""
    wall_s = None
    if newest is not None and newest.wall_s is not None:
        wall_s = newest.wall_s + line.span.end_s - newest.pts_s
    keyframe_s = None if line.kind in ("gap", TRACE) else line.span.end_s
    return EventRow(line.number, line.kind, line.span.start_s, line.span.end_s, line.text, rfc3339(wall_s), keyframe_s)


def overlay_of(sight: StreamSight | None) -> Overlay | None:
    """What is drawn over a stream's picture; None where nothing was encoded yet."""
    if sight is None or sight.computed is None:
        return None
    computed, kept = sight.computed, sight.kept
    return Overlay(
        pts_s=computed.pts_s,
        rows=computed.grid_hw[0],
        columns=computed.grid_hw[1],
        recomputed=computed.patches,
        kept_pts_s=None if kept is None else kept.pts_s,
        kept_rows=0 if kept is None else kept.grid_hw[0],
        kept_columns=0 if kept is None else kept.grid_hw[1],
        kept=[] if kept is None else kept.places,
        change_share=sight.change_share,
    )


def kept_near(session: Session, time_s: float) -> Picture | None:
    """The keyframe nearest to a moment; only for the thread that owns the session."""
    archive = session.history.archive
    found = archive.nearest(time_s)
    jpeg = None if found is None else archive.jpeg(found.number)
    return None if found is None or jpeg is None else Picture(jpeg, found.span.end_s)


def nearer(
    kept: Picture | None, newest: Frame | None, time_s: float, shot: Callable[[Frame], Picture]
) -> Picture | None:
    """Of a keyframe and the newest frame, the one nearer to a moment. shot: makes a picture of a frame."""
    if newest is None or (kept is not None and abs(kept.pts_s - time_s) <= abs(newest.pts_s - time_s)):
        return kept
    return shot(newest)


def shot_of(frame: Frame) -> Picture:
    """A frame as JPEG."""
    step = -(-max(frame.height, frame.width) // MAX_SIDE)
    return Picture(encode_jpeg(frame.rgb_HW3[::step, ::step]), frame.pts_s)


def found_in(logs: Iterable[tuple[str, EventLog, Frame | None]], words: str, most: int) -> list[Hit]:
    """Lines of several streams' logs that hold any of the words, best first."""
    hits: list[Hit] = []
    for stream_id, log, newest in logs:
        with suppress(ValueError):  # it was closed meanwhile
            hits += [Hit(stream_id, row_of(line, newest), line.score) for line in log.search(words, most)]
    return sorted(hits, key=lambda hit: -hit.score)[:most]

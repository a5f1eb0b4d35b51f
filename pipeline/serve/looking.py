"""Looking: what the desk shows of sessions, logs and archives, made from them and changing none."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from ...memory.event_log import Line
from ...memory.event_table import TRACE
from ...stream import Frame
from .moments import rfc3339
from .views import EventRow, Hit

if TYPE_CHECKING:
    from ...memory.event_log import EventLog


def row_of(line: Line, newest: Frame | None) -> EventRow:
    """A line of a log as it is shown. newest: the stream's newest frame, which knows what time it is there."""
    wall_s = None
    if newest is not None and newest.wall_s is not None:
        wall_s = newest.wall_s + line.span.end_s - newest.pts_s
    keyframe_s = None if line.kind in ("gap", TRACE) else line.span.end_s
    return EventRow(line.number, line.kind, line.span.start_s, line.span.end_s, line.text, rfc3339(wall_s), keyframe_s)


def found_in(logs: Iterable[tuple[str, EventLog, Frame | None]], words: str, most: int) -> list[Hit]:
    """Lines of several streams' logs that hold any of the words, best first."""
    hits: list[Hit] = []
    for stream_id, log, newest in logs:
        with suppress(ValueError):  # it was closed meanwhile
            hits += [Hit(stream_id, row_of(line, newest), line.score) for line in log.search(words, most)]
    return sorted(hits, key=lambda hit: -hit.score)[:most]

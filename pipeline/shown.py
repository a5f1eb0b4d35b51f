"""What is shown of a stream: pictures, and what was done for its newest frame. Made from sessions, changing none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..stream import Frame
from ..stream.jpeg import MAX_SIDE, encode_jpeg
from .hub_stream import StreamSight

if TYPE_CHECKING:
    from .session import Session


class Picture(NamedTuple):
    """A JPEG, and the stream time that it shows."""

    jpeg: bytes
    pts_s: float


@dataclass(frozen=True, slots=True)
class Overlay:
    """What was done for a stream's newest frame that was encoded: for drawing over its picture.

    pts_s: of that frame. rows, columns: of the grid of patches. recomputed: raster indices of the patches that went
    through the vision tower.
    kept_pts_s: of the newest frame whose tokens were chosen: the newest are all kept, and chosen from when they leave
    the recent window. kept_rows, kept_columns: of the grid of visual tokens. kept: raster indices of the kept ones.
    change_share: share of the picture that changed from the frame before the newest to it, 0 to 1.
    """

    pts_s: float
    rows: int
    columns: int
    recomputed: list[int]
    kept_pts_s: float | None
    kept_rows: int
    kept_columns: int
    kept: list[int]
    change_share: float


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

"""Foxglove's messages that Millpond writes, as JSON, and their schemas: lines of a log, pictures, marks on pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# Shapes: H rows and W columns of a grid.

# Names, fields and numbers are Foxglove's (https://docs.foxglove.dev/docs/visualization/message-schemas).
LOG, PICTURE, MARKS = "foxglove.Log", "foxglove.CompressedImage", "foxglove.ImageAnnotations"
INFO, WARNING = 2, 3
_LINE_LIST = 4
_NUMBER, _WORDS, _WHOLE = {"type": "number"}, {"type": "string"}, {"type": "integer", "minimum": 0}


def _object(title: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"type": "object", **({"title": title} if title else {}), "properties": fields}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TIME = _object("time", sec=_WHOLE, nsec={**_WHOLE, "maximum": 999_999_999})
_COLOUR = _object("foxglove.Color", r=_NUMBER, g=_NUMBER, b=_NUMBER, a=_NUMBER)
_POINT = _object("foxglove.Point2", x=_NUMBER, y=_NUMBER)
_CIRCLE = _object(
    "foxglove.CircleAnnotation",
    timestamp=_TIME, position=_POINT, diameter=_NUMBER, thickness=_NUMBER, fill_color=_COLOUR, outline_color=_COLOUR,
)  # fmt: skip
_POINTS = _object(
    "foxglove.PointsAnnotation",
    timestamp=_TIME, type=_WHOLE, points=_list(_POINT), outline_color=_COLOUR, outline_colors=_list(_COLOUR),
    fill_color=_COLOUR, thickness=_NUMBER,
)  # fmt: skip
_TEXT = _object(
    "foxglove.TextAnnotation",
    timestamp=_TIME, position=_POINT, text=_WORDS, font_size=_NUMBER, text_color=_COLOUR, background_color=_COLOUR,
)  # fmt: skip

SCHEMAS: dict[str, dict[str, Any]] = {
    LOG: _object(LOG, timestamp=_TIME, level=_WHOLE, message=_WORDS, name=_WORDS, file=_WORDS, line=_WHOLE),
    PICTURE: _object(
        PICTURE, timestamp=_TIME, frame_id=_WORDS, data={"type": "string", "contentEncoding": "base64"}, format=_WORDS
    ),
    MARKS: _object(MARKS, circles=_list(_CIRCLE), points=_list(_POINTS), texts=_list(_TEXT)),
}


def stamp(time_ticks: int) -> dict[str, int]:
    """A moment, given in nanoseconds, as MCAP counts them."""
    return {"sec": time_ticks // 10**9, "nsec": time_ticks % 10**9}


def log_line(time_ticks: int, words: str, name: str, level: int = INFO) -> dict[str, Any]:
    """A line for Foxglove's Log panel. name: who says it."""
    return {"timestamp": stamp(time_ticks), "level": level, "message": words, "name": name, "file": "", "line": 0}


def picture(time_ticks: int, jpeg: bytes, frame_id: str) -> dict[str, Any]:
    """A picture for its Image panel."""
    data = base64.b64encode(jpeg).decode("ascii")
    return {"timestamp": stamp(time_ticks), "frame_id": frame_id, "data": data, "format": "jpeg"}


class Segment(NamedTuple):
    """A line between two corners of cells: columns and rows."""

    x0: int
    y0: int
    x1: int
    y1: int


def outline(kept_HW: np.ndarray) -> list[Segment]:
    """The lines around the cells that are True: where a True cell borders a False one, or the edge of the grid.

    An odd number of upright lines lies to the left of a True cell, an even one to the left of a False one.
    """
    padded = np.pad(np.asarray(kept_HW, bool), 1)
    level = padded[1:, 1:-1] != padded[:-1, 1:-1]  # between a cell and the one above
    upright = padded[1:-1, 1:] != padded[1:-1, :-1]  # between a cell and the one on its left
    lines = [Segment(begin, y, end, y) for y, row in enumerate(level) for begin, end in _runs(row)]
    return lines + [Segment(x, begin, x, end) for x, column in enumerate(upright.T) for begin, end in _runs(column)]


def marks(
    time_ticks: int,
    kept_HW: np.ndarray,
    picture_hw: Sequence[int],
    words: str,
    colour: Sequence[float] = (0.1, 0.9, 0.3),
) -> dict[str, Any]:
    """Marks that show which cells of a grid over the picture were kept.

    picture_hw: height and width of the picture in pixels; the grid lies over all of it.
    words: stand in its upper left corner.
    """
    rows, columns = kept_HW.shape
    down, across = picture_hw[0] / rows, picture_hw[1] / columns
    points = [
        {"x": x * across, "y": y * down}
        for line in outline(kept_HW)
        for x, y in ((line.x0, line.y0), (line.x1, line.y1))
    ]
    shown, clear = _colour(*colour, 1.0), _colour(0.0, 0.0, 0.0, 0.0)
    about = {
        "timestamp": stamp(time_ticks), "position": {"x": 2.0, "y": picture_hw[0] / 12}, "text": words,
        "font_size": max(6.0, picture_hw[0] / 16), "text_color": _colour(1.0, 1.0, 1.0, 1.0),
        "background_color": _colour(0.0, 0.0, 0.0, 0.6),
    }  # fmt: skip
    lines = {
        "timestamp": stamp(time_ticks), "type": _LINE_LIST, "points": points, "outline_color": shown,
        "outline_colors": [], "fill_color": clear, "thickness": max(1.0, picture_hw[0] / 160),
    }  # fmt: skip
    return {"circles": [], "points": [lines], "texts": [about]}


def _colour(red: float, green: float, blue: float, alpha: float) -> dict[str, float]:
    return {"r": red, "g": green, "b": blue, "a": alpha}


def _runs(row: np.ndarray) -> list[tuple[int, int]]:
    """Where stretches of True begin and end."""
    edges = np.flatnonzero(np.diff(np.pad(row, 1).astype(np.int8)))
    return [(int(begin), int(end)) for begin, end in zip(edges[::2], edges[1::2], strict=True)]

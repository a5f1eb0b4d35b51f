"""ChunkRecord: what is known of one chunk of a video once it is done, and its file."""

from __future__ import annotations

import base64
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...stream import Span
from .files import read_json, write_json

_log = logging.getLogger(__name__)

VERSION = 1
SCENE_BYTES = 72  # a picture's mean colours, in 4 rows of 6 cells
MAX_TEXT_CHARS = 8192
_MAX_BYTES = 64 * 2**20
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def one_line(text: str) -> str:
    """Text on one line, no longer than a line of the log may be, without what is no text."""
    return " ".join(_CONTROL.sub(" ", text).split())[:MAX_TEXT_CHARS]


@dataclass(frozen=True, slots=True)
class Said:
    """A line of the log. Made by a worker or from a chunk's file, read by chapters, summaries and captions."""

    span: Span
    text: str

    def __post_init__(self) -> None:
        if not self.text or self.text != one_line(self.text):
            raise ValueError(f"a line of the log is one line of words; got {self.text[:60]!r}")


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """Made by a worker, or read from the file that it left; read when the video is put together.

    times_s: of the frames that were seen, increasing, in the span.
    scenes: SCENE_BYTES for each of these, in order: what chapters are cut by.
    said: what was told of them, in order, in the span.
    num_dropped: frames that the gate held back; num_damaged: parts of the file that did not decode.
    """

    settings: str
    content: str
    number: int
    span: Span
    times_s: tuple[float, ...]
    scenes: bytes
    said: tuple[Said, ...]
    num_dropped: int = 0
    num_damaged: int = 0

    def __post_init__(self) -> None:
        first_s, last_s = self.span.start_s, self.span.end_s
        if len(self.scenes) != SCENE_BYTES * len(self.times_s):
            raise ValueError(f"{len(self.times_s)} frames need a scene each; got {len(self.scenes)} bytes")
        last = -math.inf
        for time_s in self.times_s:
            if not (first_s <= time_s <= last_s and time_s > last):
                raise ValueError(f"times must increase within {self.span}; got {time_s} after {last}")
            last = time_s
        last = -math.inf
        for line in self.said:
            if not first_s <= line.span.start_s <= line.span.end_s <= last_s or line.span.start_s < last:
                raise ValueError(f"lines must be in order within {self.span}; got {line.span}")
            last = line.span.start_s
        if self.number < 0 or self.num_dropped < 0 or self.num_damaged < 0:
            raise ValueError(f"counts are not negative; got {self.number}, {self.num_dropped}, {self.num_damaged}")


def chunk_path(folder: Path, number: int) -> Path:
    return folder / "chunks" / f"{number:05d}.json"


def write_chunk(folder: Path, record: ChunkRecord) -> None:
    """Writes it where `read_chunk` finds it, whole or not at all."""
    value = {
        "version": VERSION,
        "settings": record.settings,
        "content": record.content,
        "number": record.number,
        "span": _pair(record.span),
        "said": [{"span": _pair(line.span), "text": line.text} for line in record.said],
        "num_dropped": record.num_dropped,
        "num_damaged": record.num_damaged,
        "times_s": list(record.times_s),
        "scenes": base64.b64encode(record.scenes).decode(),
    }
    write_json(chunk_path(folder, record.number), value)


def read_chunk(folder: Path, number: int, *, settings: str, content: str) -> ChunkRecord | None:
    """What is there of this chunk; None where nothing is, or nothing of this video and these settings, or, with a word
    in the log, what is no chunk of ours."""
    path = chunk_path(folder, number)
    if not path.exists():
        return None
    try:
        value = read_json(path, max_bytes=_MAX_BYTES)
        if (value["version"], value["settings"], value["content"]) != (VERSION, settings, content):
            return None
        return _parse(value, number)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        _log.warning("%s is damaged and is done again: %s: %s", path, type(error).__name__, str(error)[:200])
        return None


def _parse(value: Mapping[str, Any], number: int) -> ChunkRecord:
    if value["number"] != number:
        raise ValueError(f"it is of chunk {number}; got {value['number']!r}")
    return ChunkRecord(
        settings=value["settings"],
        content=value["content"],
        number=number,
        span=_span(value["span"]),
        times_s=tuple(_seconds(time_s) for time_s in value["times_s"]),
        scenes=base64.b64decode(value["scenes"], validate=True),
        said=tuple(Said(_span(line["span"]), line["text"]) for line in value["said"]),
        num_dropped=_count(value["num_dropped"]),
        num_damaged=_count(value["num_damaged"]),
    )


def _pair(span: Span) -> list[float]:
    return [span.start_s, span.end_s]


def _span(pair: Any) -> Span:
    start_s, end_s = pair
    return Span(_seconds(start_s), _seconds(end_s))


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a time is a number; got {value!r}")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"a count is a whole number; got {value!r}")
    return value

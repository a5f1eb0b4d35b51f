"""McapLog: what a session saw, said and kept, as an MCAP file that Foxglove shows."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...encoders import FrameTokens
from ...stream import Frame, Span, time_words
from ...stream.jpeg import encode_jpeg
from ...stream.require import require
from ..answer import Answer, Narration
from .foxglove import INFO, LOG, MARKS, PICTURE, SCHEMAS, WARNING, log_line, marks, picture

if TYPE_CHECKING:
    from ..session import Session
    from .perception import Perception

_log = logging.getLogger(__name__)

# Shapes: T tokens, H rows and W columns of a grid, 3 colours.

_PERCEPTION = "millpond.Perception"
_PERCEPTION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": _PERCEPTION,
    "properties": {
        "age_s": {"type": "number"},
        "num_tokens": {"type": "integer"},
        "num_dropped": {"type": "integer"},
        "number": {"type": "integer"},
        "is_stale": {"type": "boolean"},
        "changed_share": {"type": "number"},
    },
}
_MOST_LINES = 1_000_000
_LATE_S = 1e9  # later than any stream lasts


class McapLog:
    """Writes an MCAP file, message by message. Not thread-safe. One that was not closed can be read as far as it goes.

        /NAME/pictures   foxglove.CompressedImage    frames or keyframes of the stream NAME
        /NAME/kept       foxglove.ImageAnnotations   lines around the cells whose tokens were kept
        /NAME/log        foxglove.Log                narrations, questions with their answers, scenes, gaps
        /perception      millpond.Perception         age, tokens and change of a robot's perceptions, to be plotted

    All are JSON. Times are `begin_unix_s` and the stream's own seconds.

    path: must not exist yet.
    begin_unix_s: Unix time of the stream's second 0, where it is known; else times begin in 1970.
    jpeg_quality: 1 to 95.
    """

    def __init__(self, path: str | Path, *, begin_unix_s: float = 0.0, jpeg_quality: int = 85) -> None:
        if not (math.isfinite(begin_unix_s) and begin_unix_s >= 0):
            raise ValueError(f"begin_unix_s is a Unix time in seconds; got {begin_unix_s}")
        if not 1 <= jpeg_quality <= 95:
            raise ValueError(f"jpeg_quality goes from 1 to 95; got {jpeg_quality}")
        writing = require("mcap.writer", who="robot logs", extra="robot")
        self.path, self.begin_unix_s = Path(path), begin_unix_s
        self.num_messages = 0
        self._quality = jpeg_quality
        try:
            self._file = self.path.open("xb")
        except FileExistsError:
            raise ValueError(f"{self.path} is there already; got it to write to; choose another name") from None
        except OSError as error:
            raise ValueError(f"cannot write {self.path}: {error.strerror}; choose another place") from None
        self._writer = writing.Writer(self._file)
        self._writer.start(profile="", library="millpond")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._is_closed = False

    def tell(self, stream_id: str, words: str, at_s: float, kind: str = "event", *, is_warning: bool = False) -> None:
        """A line of the log. kind: who says it, such as narration or gap."""
        time_ticks = self._time_ticks(at_s)
        self._add(
            f"{_topic(stream_id)}/log",
            LOG,
            log_line(time_ticks, words, kind, WARNING if is_warning else INFO),
            time_ticks,
        )

    def narration(self, stream_id: str, narration: Narration) -> None:
        """What was narrated, at the end of the stretch of time that it is about."""
        self.tell(stream_id, narration.text, narration.span.end_s, "narration")

    def answer(self, stream_id: str, answer: Answer) -> None:
        """A question with its answer, when it was asked, and until when had been seen."""
        used = ", ".join(f"{time_words(span.start_s)} to {time_words(span.end_s)} s" for span in answer.used)
        words = f"{answer.question}\n{answer.text}\n(seen until {time_words(answer.seen_until_s)} s; read {used})"
        self.tell(stream_id, words, answer.asked_at_s, "answer")

    def frame(self, frame: Frame) -> None:
        """A frame, and a warning where something could not be seen before it."""
        if frame.gap_s > 0:
            words = f"no picture for {time_words(frame.gap_s)} s"
            self.tell(frame.stream_id, words, frame.pts_s, "gap", is_warning=True)
        self.picture(frame.stream_id, frame.rgb_HW3, frame.pts_s)

    def picture(self, stream_id: str, rgb_HW3: np.ndarray, at_s: float) -> None:
        """A picture, as JPEG."""
        time_ticks = self._time_ticks(at_s)
        told = picture(time_ticks, encode_jpeg(rgb_HW3, self._quality), stream_id)
        self._add(f"{_topic(stream_id)}/pictures", PICTURE, told, time_ticks)

    def kept(self, stream_id: str, kept_HW: np.ndarray, picture_hw: Sequence[int], at_s: float) -> None:
        """Which cells' tokens were kept of the picture of that time.

        kept_HW: bool, the grid of tokens; it lies over all of the picture.
        picture_hw: height and width in pixels.
        """
        if kept_HW.ndim != 2 or not kept_HW.size or len(picture_hw) != 2 or min(picture_hw) < 1:
            raise ValueError(
                f"kept cells are a grid over a picture of height and width; got {kept_HW.shape} and {tuple(picture_hw)}"
            )
        time_ticks = self._time_ticks(at_s)
        words = f"{int(kept_HW.sum())} of {kept_HW.size} tokens"
        self._add(f"{_topic(stream_id)}/kept", MARKS, marks(time_ticks, kept_HW, picture_hw, words), time_ticks)

    def tokens(self, stream_id: str, tokens: FrameTokens, picture_hw: Sequence[int]) -> None:
        """`kept`, of tokens as a compressor left them; a family's own tokens behind the grid have no place in it."""
        self.kept(stream_id, kept_grid(tokens), picture_hw, tokens.span.end_s)

    def perception(self, perception: Perception, pictures_hw: Mapping[str, Sequence[int]], at_s: float) -> None:
        """A robot's perception: what it kept of each camera, and its figures.

        pictures_hw: by camera, height and width in pixels of what the model was shown.
        at_s: seconds on the log's clock; cameras' own clocks may differ.
        """
        places_T3 = perception.kept_T3.cpu().numpy()
        for number, view in enumerate(perception.views):
            if view.camera_id not in pictures_hw:
                raise ValueError(f"there is no size of {view.camera_id!r}; got {', '.join(pictures_hw) or 'none'}")
            kept_HW = np.zeros(view.grid_hw, bool)
            here = places_T3[places_T3[:, 0] == number]
            kept_HW[here[:, 1], here[:, 2]] = True
            self.kept(view.camera_id, kept_HW, pictures_hw[view.camera_id], at_s)
        told = {name: getattr(perception, name) for name in _PERCEPTION_SCHEMA["properties"]}
        views = {
            view.camera_id: {"pts_s": view.pts_s, "changed_share": view.changed_share} for view in perception.views
        }
        time_ticks = self._time_ticks(at_s)
        self._add("/perception", _PERCEPTION, {**told, "problem": perception.problem or "", "views": views}, time_ticks)

    def close(self) -> None:
        """Writes the file's index. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            try:
                self._writer.finish()
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"McapLog({self.path.name[:60]}, {self.num_messages} messages)"

    def _time_ticks(self, at_s: float) -> int:
        time_ticks = round((self.begin_unix_s + at_s) * 1e9) if math.isfinite(at_s) else -1
        if not 0 <= time_ticks < 2**63:
            raise ValueError(f"a message is at 0 s or later on the log's clock; got at_s={at_s}")
        return time_ticks

    def _add(self, topic: str, schema: str, told: dict[str, Any], time_ticks: int) -> None:
        if self._is_closed:
            raise ValueError(f"{self.path} was closed; got a message for {topic}; make another McapLog")
        if schema not in self._schemas:
            text = json.dumps(SCHEMAS.get(schema, _PERCEPTION_SCHEMA)).encode()
            self._schemas[schema] = self._writer.register_schema(schema, "jsonschema", text)
        if topic not in self._channels:
            self._channels[topic] = self._writer.register_channel(topic, "json", self._schemas[schema])
        data = json.dumps(told, ensure_ascii=False, allow_nan=False).encode()
        self._writer.add_message(self._channels[topic], time_ticks, data, time_ticks, self.num_messages % 2**32)
        self.num_messages += 1


def kept_grid(tokens: FrameTokens) -> np.ndarray:
    """Bool, the grid's height by its width: where a token is left."""
    height, width = tokens.grid_hw
    kept_HW = np.zeros(height * width, bool)
    kept_T = tokens.kept_T.cpu().numpy()
    kept_HW[kept_T[kept_T < height * width]] = True
    return kept_HW.reshape(height, width)


def write_kept(session: Session, log: McapLog) -> None:
    """All that a session keeps besides keys and values: the lines of its log, and its keyframes; with these, where the
    archive holds tokens, which cells they are of. What is damaged is left out, and was warned of."""
    name = session.stream_id
    for line in session.history.log.lines(num_lines=_MOST_LINES):
        about = f" ({time_words(line.span.start_s)} to {time_words(line.span.end_s)} s)"
        log.tell(name, line.text + about, max(0.0, line.span.end_s), line.kind, is_warning=line.kind == "gap")
    archive = session.history.archive
    for found in archive.between(Span(0.0, _LATE_S)):
        keyframe = archive.get(found.number)
        if keyframe is None:
            continue
        log.picture(name, keyframe.picture_HW3, keyframe.span.end_s)
        kept_HW = _kept_of(keyframe.extra)
        if kept_HW is not None:
            log.kept(name, kept_HW, keyframe.picture_HW3.shape[:2], keyframe.span.end_s)


def begin_of(session: Session) -> float:
    """Unix time of the stream's second 0, as far as the session knows it; else 0."""
    seen = session.history.seen
    if seen.wall_until_s is None or seen.until_s is None:
        return 0.0
    return max(0.0, seen.wall_until_s - seen.until_s)


def _kept_of(extra: Mapping[str, Any]) -> np.ndarray | None:
    """Cells of the tokens that are kept with a keyframe; None where there are none, or they are damaged."""
    from ...encoders.tokens_at_rest import wake_tokens

    if not extra:
        return None
    try:
        import torch

        return kept_grid(wake_tokens(extra, Span(0.0, 0.0), torch.float32))
    except ValueError as error:
        _log.warning("tokens of a keyframe cannot be used: %s", error)
        return None


def _topic(stream_id: str) -> str:
    """A topic's name: what Foxglove's message paths cannot hold is left out."""
    return "/" + (re.sub(r"[^\w./-]+", "_", stream_id).strip("/") or "stream")

"""What a robot feed and the process that remembers for it tell each other: lines of JSON, and pictures as bytes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from ...stream import Frame, Span
from ..answer import Answer, Timing
from ..question import Question

# Shapes: H rows, W columns, 3 colours.


def write_line(out: IO[bytes], message: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """One message, and what belongs to it."""
    out.write(json.dumps(message).encode() + b"\n")
    out.write(body)
    out.flush()


def frame_message(frame: Frame) -> dict[str, Any]:
    """What is told of a frame before its bytes."""
    return {
        "picture": frame.stream_id,
        "height": frame.height,
        "width": frame.width,
        # A source may have numpy's numbers, which JSON does not know.
        "pts_s": float(frame.pts_s),
        "wall_s": None if frame.wall_s is None else float(frame.wall_s),
        "index": int(frame.index),
        "gap_s": float(frame.gap_s),
    }


def read_frame(message: dict[str, Any], source: IO[bytes]) -> Frame:
    """The frame that a message tells of, and whose bytes follow it. Raises EOFError where they do not."""
    height, width = int(message["height"]), int(message["width"])
    data = source.read(height * width * 3)
    if len(data) < height * width * 3:
        raise EOFError(f"a picture of {width}x{height} ended after {len(data)} bytes")
    rgb_HW3 = np.frombuffer(data, np.uint8).reshape(height, width, 3)
    return Frame(
        rgb_HW3,
        message["pts_s"],
        message["picture"],
        message["index"],
        message["wall_s"],
        gap_s=message["gap_s"],
    )


def question_message(number: int, camera_id: str, question: Question) -> dict[str, Any]:
    return {"ask": number, "camera": camera_id, "question": asdict(question)}


def answer_message(number: int, answer: Answer) -> dict[str, Any]:
    return {"answered": number, "answer": asdict(answer)}


def read_answer(given: dict[str, Any]) -> Answer:
    """The answer that a message holds."""
    return Answer(
        **{name: given[name] for name in ("question", "text", "asked_at_s", "seen_until_s")},
        used=tuple(Span(**span) for span in given["used"]),
        timing=Timing(**given["timing"]),
        token_ids=tuple(given["token_ids"]),
    )

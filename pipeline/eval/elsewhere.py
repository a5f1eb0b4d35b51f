"""Elsewhere: methods that run in another environment. Frames and questions go there as files, and answers come back.

    HandedOut ---> folder: about.json, frames-*.npz, questions.jsonl ---> whatever answers ---> answers.jsonl
                                                                                                    |
    AnsweredElsewhere: the same suite again, each question answered by what stands there  <---------+

Nothing is pickled, and nobody over there needs Millpond: pixels are as the tower reads them, words are token ids.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...encoders import VideoLLM
from ...stream import Frame, Span
from ..answer import Answer, Timing, join_spans
from ..engine import Engine
from ..question import Question
from .method import Show, Told, Viewing

# Shapes: N frames, 3 colours, H rows, W columns.

VERSION = 1
FAMILY = "llava_onevision"
_MAX_BYTES = 2**30
_WARM_UP = "warm-up"  # a stream that the runner makes up


class _Seen(NamedTuple):
    frame: Frame
    digest: str


class _Window(Viewing):
    """The last frames of a stream; what of them a question rests on has a key, the same wherever it is asked."""

    def __init__(self, engine: Engine, num_frames: int) -> None:
        self.engine = engine
        self.seen: deque[_Seen] = deque(maxlen=num_frames)

    def see(self, frame: Frame) -> None:
        pixels = np.ascontiguousarray(frame.rgb_HW3)
        what = hashlib.sha256(f"{frame.pts_s!r} {pixels.shape}".encode())
        what.update(pixels.data)
        self.seen.append(_Seen(frame, what.hexdigest()))

    def key(self, question: Question) -> str:
        if not self.seen:
            raise ValueError(f"no frame came yet; got {question.text!r}; show one before asking")
        told = [*(one.digest for one in self.seen), question.text]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]

    def told(self, question: Question, ids: Sequence[int], timing: Timing, kv_bytes: int) -> Told:
        last_s = self.seen[-1].frame.pts_s
        spans = [Span(one.frame.pts_s, one.frame.pts_s) for one in self.seen]
        answer = Answer(
            question=question.text,
            text=self.engine.model.decode(ids),
            asked_at_s=max(last_s, question.at_s or last_s),
            seen_until_s=last_s,
            used=join_spans(spans, gap_s=1.5 / self.engine.config.fps),
            timing=timing,
            token_ids=tuple(ids),
        )
        return Told(answer, kv_bytes, kv_bytes + sum(one.frame.rgb_HW3.nbytes for one in self.seen))

    def close(self) -> None:
        self.seen.clear()


@dataclass(frozen=True, kw_only=True)
class HandedOut(Show):
    """The last frames and each question are written into a folder; the answer is empty. Polls are all written, as none
    of them is answered with yes.

    num_frames: how many, at most.
    folder: an empty one, or one that is to be made.
    """

    num_frames: int
    folder: InitVar[Path]

    def __post_init__(self, folder: Path) -> None:
        _check_count(self.num_frames)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ValueError(f"questions are handed out into an empty folder; got {folder}, which is not")
        object.__setattr__(self, "_writer", _Writer(folder))

    def start(self, engine: Engine, stream_id: str) -> Viewing:
        if engine.model.spec.family != FAMILY:
            raise ValueError(f"what is handed out is laid out for {FAMILY}; got {engine.model.spec.family}")
        writer: _Writer = object.__getattribute__(self, "_writer")
        return _HandedOut(engine, self.num_frames, None if stream_id == _WARM_UP else writer)


class _HandedOut(_Window):
    def __init__(self, engine: Engine, num_frames: int, writer: _Writer | None) -> None:
        super().__init__(engine, num_frames)
        self._writer = writer

    def ask(self, question: Question) -> Told:
        if self._writer is not None:
            limit = question.max_new_tokens or self.engine.config.max_new_tokens
            self._writer.add(self.engine.model, self.key(question), question.text, list(self.seen), limit)
        return self.told(question, (), Timing(0.0, 0.0), 0)


class _Writer:
    """The folder. A frame is written once, whatever the number of questions about it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[str, int] = {}
        self._keys: set[str] = set()

    def add(self, model: VideoLLM, key: str, words: str, seen: Sequence[_Seen], max_new_tokens: int) -> None:
        if not self._numbers:
            self._write_about(model)
        if key in self._keys:
            return
        self._keys.add(key)
        self._write_frames(model, [one for one in seen if one.digest not in self._numbers])
        family: Any = model  # of FAMILY, whose frames have words before them
        spans = [Span(one.frame.pts_s, one.frame.pts_s) for one in seen]
        record = {
            "key": key,
            "words": words,
            "question_ids": list(model.question(words).ids),
            "frames": [self._numbers[one.digest] for one in seen],
            "before_ids": [list(family.frame_text(span).before_ids) for span in spans],
            "max_new_tokens": max_new_tokens,
        }
        with (self._folder / "questions.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _write_about(self, model: VideoLLM) -> None:
        record = {
            "version": VERSION,
            "model": model.spec.name,
            "family": model.spec.family,
            "weights": model.fingerprint,
            "dtype": str(model.spec.dtype).removeprefix("torch."),
            "max_positions": model.spec.max_positions,
            "prefix_ids": list(model.prefix().ids),
            "stop_ids": sorted(model.stop_ids),
        }
        (self._folder / "about.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def _write_frames(self, model: VideoLLM, new: Sequence[_Seen]) -> None:
        if not new:
            return
        first = len(self._numbers)
        self._numbers |= {one.digest: first + at for at, one in enumerate(new)}
        family: Any = model
        pixels_N13HW = family.pixels([one.frame for one in new]).pixels_N13HW
        pixels_N3HW = pixels_N13HW[:, 0].float().cpu().numpy()
        np.savez_compressed(self._folder / f"frames-{first:08d}.npz", pixels_N3HW=pixels_N3HW)


@dataclass(frozen=True, kw_only=True)
class AnsweredElsewhere(Show):
    """Each question is answered by what was answered elsewhere on the same frames, in the time that it took there.
    Questions that were not are refused. What takes in frames elsewhere is part of the answer's time, all of it.

    num_frames: as it was handed out.
    by: what answered, in words: it is part of the settings.
    answers: as `read_answers` gives them.
    """

    num_frames: int
    by: str
    answers: InitVar[Mapping[str, Reply]]

    def __post_init__(self, answers: Mapping[str, Reply]) -> None:
        _check_count(self.num_frames)
        object.__setattr__(self, "_answers", answers)

    def start(self, engine: Engine, stream_id: str) -> Viewing:
        return _AnsweredElsewhere(engine, self.num_frames, object.__getattribute__(self, "_answers"))


class _AnsweredElsewhere(_Window):
    def __init__(self, engine: Engine, num_frames: int, answers: Mapping[str, Reply]) -> None:
        super().__init__(engine, num_frames)
        self._answers = answers

    def ask(self, question: Question) -> Told:
        reply = self._answers.get(self.key(question))
        if reply is None:
            raise ValueError(
                f"got {question.text[:80]!r}, which was not answered elsewhere after these frames; hand out the same "
                "suite with the same settings, and answer it first"
            )
        if reply.problem is not None:
            raise ValueError(f"elsewhere there was no answer: {reply.problem}")
        return self.told(question, reply.ids, Timing(reply.ttft_s, reply.total_s), reply.kv_bytes)


class Reply(NamedTuple):
    """Made by `read_answers`: one answer from elsewhere, or why there is none."""

    ids: tuple[int, ...]
    ttft_s: float
    total_s: float
    kv_bytes: int
    problem: str | None = None


class Replies(NamedTuple):
    """Made by `read_answers`. by: what answered, as JSON."""

    by: dict[str, Any]
    replies: dict[str, Reply]


def read_answers(path: Path) -> Replies:
    """The file that came back: first a line that says what answered, then an answer a line; ValueError, with the line,
    for what is no such file."""
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise ValueError(
                f"{path} has {os.path.getsize(path)} bytes, and no file of answers has that many; remove it"
            )
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the answers {str(path)!r} cannot be read: {error}; answer what was handed out") from error
    by = _object(lines[0] if lines else "", f"{path}, line 1")
    if by.get("version") != VERSION:
        raise ValueError(f"{path} is no file of answers of version {VERSION}; got version {by.get('version')!r}")
    replies: dict[str, Reply] = {}
    for number, line in enumerate(lines[1:], 2):
        record = _object(line, f"{path}, line {number}")
        replies[str(record.get("key"))] = _reply(record, f"{path}, line {number}")
    return Replies(by, replies)


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not JSON, got {line[:60]!r}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where}: must be an object, got {line[:60]!r}")
    return found


def _reply(record: Mapping[str, Any], where: str) -> Reply:
    problem = record.get("problem")
    if problem is not None:
        return Reply((), 0.0, 0.0, 0, str(problem)[:500])
    ids, kv_bytes = record.get("ids"), record.get("kv_bytes")
    if not isinstance(ids, list) or not all(type(one) is int and 0 <= one < 2**31 for one in ids):
        raise ValueError(f"{where}: ids must be a list of token ids, got {str(ids)[:60]}")
    if type(kv_bytes) is not int or kv_bytes < 0:
        raise ValueError(f"{where}: kv_bytes must be a count of bytes, got {str(kv_bytes)[:60]}")
    took = [record.get(name) for name in ("ttft_s", "total_s")]
    if not all(type(one) in (int, float) and math.isfinite(one) for one in took) or not 0 <= took[0] <= took[1]:
        raise ValueError(f"{where}: must have seconds 0 <= ttft_s <= total_s, got {str(took)[:80]}")
    return Reply(tuple(ids), float(took[0]), float(took[1]), kv_bytes)


def _check_count(num_frames: int) -> None:
    if isinstance(num_frames, bool) or not isinstance(num_frames, int) or num_frames < 1:
        raise ValueError(f"num_frames must be a whole number, at least 1; got {num_frames!r}")

"""Frames and answers a second against the number of streams: all of a round in one pass, and one stream at a time."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from typing import Any, NamedTuple

from ..encoders import VideoLLM
from ..encoders.compressors.covering import UniformGrid
from ..encoders.reuse.delta import DeltaReuse
from ..memory import MemoryConfig
from ..stream import Frame, RateSampler, open_source
from .bench_shapes import BUILT_IN_SHAPE, wait_for
from .config import EngineConfig, HistoryConfig
from .engine import Engine
from .question import Question

NUM_STREAMS = (1, 2, 4, 8, 16, 32)
QUESTION = "Which objects appeared?"
SIDES = ("packed", "single")

_STREAM = "synthetic://shapes?seed={seed}&duration_s=8&rate_hz=1&width=640&height=480"


@dataclass(frozen=True)
class PackedPlan:
    """How much is measured of each number of streams.

    num_frames: of all streams together, on each side, in each repeat; at least one of every stream.
    recent_frames: of each session's memory; its context holds these and a chunk of four.
    num_answers: of all streams together, likewise. num_tokens: of each answer; 0: nothing is asked.
    keep_tokens: of a frame that leaves the recent window; None: all.
    """

    num_streams: Sequence[int] = NUM_STREAMS
    num_frames: int = 64
    recent_frames: int = 8
    num_answers: int = 8
    num_tokens: int = 16
    keep_tokens: int | None = None

    def __post_init__(self) -> None:
        if not self.num_streams or min(self.num_streams) < 1 or self.num_frames < 1:
            raise ValueError(f"a plan needs streams and frames; got {self.num_streams} and {self.num_frames}")

    def num_rounds(self, num_streams: int) -> int:
        return max(1, self.num_frames // num_streams)

    def num_asks(self, num_streams: int) -> int:
        return max(1, self.num_answers // num_streams) if self.num_tokens else 0


def packed_plans(model: VideoLLM) -> tuple[PackedPlan, ...]:
    """Enough to measure, and no more than a few minutes of it. On a GPU also frames that are compressed, which fill it
    even less when they are read alone."""
    if model.spec.name == BUILT_IN_SHAPE:
        return (PackedPlan(num_frames=512, recent_frames=16, num_answers=64),)
    if model.spec.device.type == "cuda":
        return PackedPlan(num_frames=128), PackedPlan(num_frames=128, keep_tokens=64)
    return (PackedPlan(num_frames=32, recent_frames=4),)


class _Took(NamedTuple):
    """Seconds of one side, for each number of streams and repeat."""

    frames_s: defaultdict[tuple[int, str], list[float]]
    answers_s: defaultdict[tuple[int, str], list[float]]


class _Side:
    """An engine with a session for each stream, whose frames go in packed or one stream at a time."""

    def __init__(self, model: VideoLLM, plan: PackedPlan, *, is_packed: bool) -> None:
        num_streams = max(plan.num_streams)
        config = EngineConfig(
            memory=MemoryConfig(recent_frames=plan.recent_frames, recall_blocks=0),
            history=HistoryConfig(archive_bytes=0),
            # Both sides do the same work: nothing is decided by what a frame took, and no stream's features are
            # forgotten for another's.
            reuse=DeltaReuse(falls_back=False),
            reuse_budget_bytes=num_streams * 2**28,
            compressor="none" if plan.keep_tokens is None else UniformGrid(keep_tokens=plan.keep_tokens),
            max_new_tokens=max(1, plan.num_tokens),
        )
        self.engine = Engine(config, model=model)
        self.sessions = [self.engine.session(f"stream-{number}") for number in range(num_streams)]
        self._is_packed = is_packed

    def read(self, frames: Sequence[Frame]) -> float:
        """Seconds that the next frames of the first streams take, one of each, from pixels to keys and values."""
        sessions = self.sessions[: len(frames)]
        started_s = time.perf_counter()
        for session, frame in zip(sessions, frames, strict=True):
            session.push(frame, reads=False)
            if not self._is_packed:
                self.engine.read_pending([session])
        if self._is_packed:
            self.engine.read_pending(sessions)
        wait_for(self.engine.model.spec.device)
        return time.perf_counter() - started_s

    def answer(self, num_streams: int) -> float:
        """Seconds that a question to each of the first streams takes."""
        asked = [(session, Question(QUESTION)) for session in self.sessions[:num_streams]]
        started_s = time.perf_counter()
        if self._is_packed:
            self.engine.ask(asked)
        else:
            for one in asked:
                self.engine.ask([one])
        return time.perf_counter() - started_s


def measure_packed(model: VideoLLM, plan: PackedPlan, repeats: int) -> dict[str, Any]:
    """Both sides get the same frames and questions, in turn, round by round. Decoding of video is not timed."""
    streams = [_frames(number) for number in range(max(plan.num_streams))]
    sides = {name: _Side(model, plan, is_packed=name == "packed") for name in SIDES}
    try:
        # Contexts as long as they get, and all that is made at first use.
        first = [next(stream) for stream in streams]
        for number in range(plan.recent_frames + 4):
            still = [_at(frame, number) for frame in first]
            for side in sides.values():
                side.read(still)
        for side in sides.values():
            side.answer(1)
        took = _Took(defaultdict(list), defaultdict(list))
        for repeat in range(repeats):
            for num_streams in plan.num_streams:
                _measure_point(sides, streams[:num_streams], plan, took, repeat)
    finally:
        for side in sides.values():
            side.engine.close()
    return {
        "shape": model.spec.name,
        "dtype": str(model.spec.dtype).removeprefix("torch."),
        "num_parameters": model.spec.num_parameters,
        "keep_tokens": plan.keep_tokens,
        "points": [_point(num_streams, plan, took) for num_streams in plan.num_streams],
    }


def _measure_point(
    sides: dict[str, _Side], streams: Sequence[Iterator[Frame]], plan: PackedPlan, took: _Took, repeat: int
) -> None:
    num_streams = len(streams)
    seconds = dict.fromkeys(sides, 0.0)
    for number in range(plan.num_rounds(num_streams)):
        frames = [next(stream) for stream in streams]
        # In turn, and who goes first changes: what disturbs one side disturbs the other.
        for name in SIDES if (number + repeat) % 2 else SIDES[::-1]:
            seconds[name] += sides[name].read(frames)
    for name in sides:
        took.frames_s[num_streams, name].append(seconds[name])
    num_asks = plan.num_asks(num_streams)
    answered_s = dict.fromkeys(sides, 0.0)
    for number in range(num_asks):
        for name in SIDES if (number + repeat) % 2 else SIDES[::-1]:
            answered_s[name] += sides[name].answer(num_streams)
    if num_asks:
        for name in sides:
            took.answers_s[num_streams, name].append(answered_s[name])


def _point(num_streams: int, plan: PackedPlan, took: _Took) -> dict[str, Any]:
    num_frames = num_streams * plan.num_rounds(num_streams)
    point: dict[str, Any] = {"num_streams": num_streams, "num_frames": num_frames}
    for name in SIDES:
        point[f"{name}_fps"] = num_frames / median(took.frames_s[num_streams, name])
    point["speedup"], point["speedup_range"] = _speedup(took.frames_s, num_streams)
    if plan.num_tokens:
        for name in SIDES:
            num_answers = num_streams * plan.num_asks(num_streams)
            point[f"{name}_answers_per_s"] = num_answers / median(took.answers_s[num_streams, name])
        point["answers_speedup"], point["answers_speedup_range"] = _speedup(took.answers_s, num_streams)
    return point


def _speedup(seconds: defaultdict[tuple[int, str], list[float]], num_streams: int) -> tuple[float, list[float]]:
    """Median over the repeats of one at a time over packed, and the lowest and highest."""
    pairs = zip(seconds[num_streams, "single"], seconds[num_streams, "packed"], strict=True)
    ratios = sorted(single / packed for single, packed in pairs)
    return median(ratios), [ratios[0], ratios[-1]]


def _frames(seed: int) -> Iterator[Frame]:
    """One stream's frames without end: a few seconds, forwards and backwards. Its times go on after its warm-up."""
    with open_source(_STREAM.format(seed=seed), stream_id=f"stream-{seed}") as source:
        there = list(source.sampled(RateSampler(1.0)))
    for number, frame in enumerate(cycle([*there, *there[-2:0:-1]])):
        yield _at(frame, 1000 + number)


def _at(frame: Frame, pts_s: float) -> Frame:
    return Frame(frame.rgb_HW3, float(pts_s), frame.stream_id, frame.index)

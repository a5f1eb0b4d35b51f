"""From glass to the first token: how old what an answer knows is by the time it begins, with cameras that wait for
nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, NamedTuple

import numpy as np

from ..encoders import VideoLLM
from ..stream import Frame, Source, open_source
from .answer import Answer
from .bench_shapes import BUILT_IN_SHAPE
from .config import EngineConfig
from .engine import Engine
from .feeds import SourceFeed
from .hub import Hub
from .question import Question

QUESTION = "What is there?"
PERCENTILES = (50, 95, 99)

_STREAM = "synthetic://shapes?seed={seed}&duration_s={length_s}&rate_hz={rate_hz}&width=640&height=480"
_NUM_PICTURES = 24  # of a camera, which it shows over and over
_LOOK_EVERY_S = 0.05
_ANSWER_WITHIN_S = 120.0


@dataclass(frozen=True)
class LatencyPlan:
    """Cameras at `rate_hz`, each frame of which is due, and questions at random moments to random cameras.

    warm_s: from the first frame to the first question; length_s: from there to the last one.
    """

    num_streams: int
    rate_hz: float = 2.0
    questions_per_s: float = 4.0
    length_s: float = 30.0
    warm_s: float = 4.0
    num_tokens: int = 16

    def __post_init__(self) -> None:
        for name in ("num_streams", "rate_hz", "questions_per_s", "length_s", "warm_s", "num_tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0; got {getattr(self, name)}")


def latency_plans(model: VideoLLM) -> tuple[LatencyPlan, ...]:
    """One camera, some, and more than the model can carry on a CPU of two cores."""
    if model.spec.name == BUILT_IN_SHAPE or model.spec.device.type == "cuda":
        return tuple(LatencyPlan(num_streams) for num_streams in (1, 8, 64))
    return LatencyPlan(1, rate_hz=1.0, questions_per_s=0.3), LatencyPlan(8, rate_hz=1.0, questions_per_s=0.3)


class Camera(Source):
    """Pictures at a steady rate by the wall clock, over and over, whether or not anybody is ready for them.

    A frame's `wall_s` is the moment at which it is due, not the one at which this thread woke up for it: what a busy
    machine loses there counts.
    """

    def __init__(self, pictures: Sequence[np.ndarray], *, rate_hz: float, offset_s: float, stream_id: str) -> None:
        super().__init__(f"synthetic://{stream_id}", stream_id=stream_id, is_live=True)
        self._pictures, self._rate_hz, self._offset_s = pictures, rate_hz, offset_s
        self.began_s = 0.0  # of the first frame, once it is iterated

    def __iter__(self) -> Iterator[Frame]:
        self.check_open()
        self.began_s = time.time() + self._offset_s
        for index in count():
            wall_s = self.captured_s(index / self._rate_hz)
            if self._closed.wait(max(0.0, wall_s - time.time())):
                return
            self.stats.num_frames += 1
            picture = self._pictures[index % len(self._pictures)]
            yield Frame(picture, index / self._rate_hz, self.stream_id, index, wall_s)

    def captured_s(self, pts_s: float) -> float:
        """When the frame of this stream time was captured, in Unix time."""
        return self.began_s + pts_s


class _Asked(NamedTuple):
    camera: Camera
    at_s: float
    answer: Future[Answer]


def measure_latency(model: VideoLLM, plan: LatencyPlan) -> dict[str, Any]:
    """One run of the plan on a hub.

    glass_to_token_s: from the capture of the newest frame that an answer has seen to its first token. It begins when
    the picture is there in memory (no exposure, network or decoding) and ends when the token's id is known to the hub's
    thread; it holds the wait for the model, preprocessing, the tower, reading, recall, the wait for a place, and the
    question's own pass. question_to_token_s: from `Hub.ask` to the same moment. age_s: of each stream's newest
    processed frame, looked at all the time. drop_share: frames overtaken by newer ones, of all that were due.
    """
    pictures = [_pictures(seed, plan.rate_hz) for seed in range(min(plan.num_streams, 8))]
    random = Random(0)
    cameras = [
        Camera(
            pictures[number % len(pictures)],
            rate_hz=plan.rate_hz,
            offset_s=random.random() / plan.rate_hz,
            stream_id=f"camera-{number}",
        )
        for number in range(plan.num_streams)
    ]
    config = EngineConfig(fps=plan.rate_hz, max_new_tokens=plan.num_tokens)
    with Engine(config, model=model) as engine, Hub(engine) as hub:
        feeds = [SourceFeed(camera, fps=plan.rate_hz) for camera in cameras]
        for feed in feeds:
            hub.add(feed, narrate=False).result(_ANSWER_WITHIN_S)
        _wait_until_seen(hub)
        time.sleep(plan.warm_s)
        before = [(feed.stats.num_frames, feed.num_overtaken) for feed in feeds]
        ages_s: list[float] = []
        is_over = threading.Event()
        looking = threading.Thread(target=_look, args=(hub, is_over, ages_s), name="millpond ages", daemon=True)
        looking.start()
        try:
            asked = _ask(hub, cameras, plan, random)
            answers = [one.answer.result(_ANSWER_WITHIN_S) for one in asked]
        finally:
            is_over.set()
            looking.join()
        num_due = sum(feed.stats.num_frames - due for feed, (due, _) in zip(feeds, before, strict=True))
        num_dropped = sum(feed.num_overtaken - lost for feed, (_, lost) in zip(feeds, before, strict=True))
    first_s = [one.at_s + answer.timing.ttft_s for one, answer in zip(asked, answers, strict=True)]
    seen_s = [one.camera.captured_s(answer.seen_until_s) for one, answer in zip(asked, answers, strict=True)]
    return {
        "shape": model.spec.name,
        "num_streams": plan.num_streams,
        "rate_hz": plan.rate_hz,
        "num_questions": len(asked),
        "length_s": plan.length_s,
        "glass_to_token_s": percentiles([first - seen for first, seen in zip(first_s, seen_s, strict=True)]),
        "question_to_token_s": percentiles([answer.timing.ttft_s for answer in answers]),
        "age_s": percentiles(ages_s),
        "drop_share": num_dropped / max(1, num_due),
        "frames_per_s": (num_due - num_dropped) / plan.length_s,
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{share}": float(np.percentile(seconds, share)) for share in PERCENTILES}


def _pictures(seed: int, rate_hz: float) -> list[np.ndarray]:
    with open_source(_STREAM.format(seed=seed, rate_hz=rate_hz, length_s=_NUM_PICTURES / rate_hz)) as source:
        return [frame.rgb_HW3 for frame in source]


def _wait_until_seen(hub: Hub) -> None:
    until_s = time.monotonic() + _ANSWER_WITHIN_S
    while any(stats.age_s is None for stats in hub.stats().values()):
        if time.monotonic() > until_s:
            raise TimeoutError(f"some of {len(hub.stats())} streams had no frame processed in {_ANSWER_WITHIN_S} s")
        time.sleep(_LOOK_EVERY_S)


def _look(hub: Hub, is_over: threading.Event, ages_s: list[float]) -> None:
    while not is_over.wait(_LOOK_EVERY_S):
        ages_s += [stats.age_s for stats in hub.stats().values() if stats.age_s is not None]


def _ask(hub: Hub, cameras: Sequence[Camera], plan: LatencyPlan, random: Random) -> list[_Asked]:
    """Questions by the clock, answered or not: a slow answer keeps none from being asked."""
    asked: list[_Asked] = []
    due_s = time.time()
    ends_s = due_s + plan.length_s
    while True:
        due_s += random.expovariate(plan.questions_per_s)
        if due_s >= ends_s and asked:
            return asked
        time.sleep(max(0.0, due_s - time.time()))
        camera = random.choice(cameras)
        asked.append(_Asked(camera, time.time(), hub.ask(camera.stream_id, Question(QUESTION))))

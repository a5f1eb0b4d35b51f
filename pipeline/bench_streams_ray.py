"""What it costs that a frame comes from another process: sources as Ray's actors beside sources of this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import numpy as np

from ..encoders import VideoLLM
from ..memory import MemoryConfig
from ..stream import Frame, RateSampler, SourceStats, open_source
from .bench_shapes import BUILT_IN_SHAPE, wait_for
from .bench_streams_batch import record
from .config import EngineConfig, HistoryConfig
from .engine import Engine
from .feeds import Feed, SourceFeed
from .stream_spec import StreamSpec

# Shapes: H rows of pixels, W columns, 3 colours.

_FPS = 1.0
# Recordings go on after the last frame that is timed: what is decoded ahead is paid for to the end.
_SPARE_FRAMES = 12
_NUM_CALLS = 50
_LATEST_S = 120.0


@dataclass(frozen=True)
class RayPlan:
    """Recordings of 640x480, all of whose frames are read, one of each in a packed pass.

    num_rounds: passes that are timed, after num_warm that are not.
    quick_rounds: likewise, with the built-in model, whose passes are short.
    """

    num_streams: int = 8
    num_rounds: int = 12
    quick_rounds: int = 48
    num_warm: int = 6

    def __post_init__(self) -> None:
        for name in ("num_streams", "num_rounds", "quick_rounds", "num_warm"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more; got {getattr(self, name)}")

    def rounds_of(self, model: VideoLLM) -> int:
        """How many passes of this model are timed."""
        return self.quick_rounds if model.spec.name == BUILT_IN_SHAPE else self.num_rounds


def measure_ray(models: Sequence[VideoLLM], plan: RayPlan, repeats: int) -> list[dict[str, Any]]:
    """For each model: seconds a frame where it is in memory, decoded in threads of this process, and decoded in one
    actor a stream.

    ray_overhead_share: what the last takes longer than the second, as a share of the first. All of it counts: calls,
    the copy into the object store, and that actors take turns with the model on the same cores; where decoding beside
    the model in one process costs more than that, it is below 0.
    hand_over_s: of one frame that waits in its actor, from the call for it to the picture, with nothing else going on.
    is_view: whether frames arrive as views of the object store, read-only and without memory of their own.
    """
    from .cluster.connect import connect
    from .cluster.settings import ClusterSettings

    with ExitStack() as ending:
        folder = Path(ending.enter_context(TemporaryDirectory()))
        paths = [folder / f"{number}.mp4" for number in range(plan.num_streams)]
        for number, path in enumerate(paths):
            record(path, number, plan.num_warm + max(map(plan.rounds_of, models)) + _SPARE_FRAMES)
        ending.enter_context(connect(None, ClusterSettings()))
        hand_over_s = _hand_over(str(paths[0]))
        rows = [_measure(model, [str(path) for path in paths], plan, repeats) for model in models]
        return [{**row, "hand_over_s": hand_over_s} for row in rows]


def _measure(model: VideoLLM, paths: Sequence[str], plan: RayPlan, repeats: int) -> dict[str, Any]:
    ways: dict[str, Callable[[], Any]] = {
        "model": lambda: _in_memory(paths),
        "process": lambda: _in_process(paths),
        "ray": lambda: _in_actors(paths),
    }
    took_s: dict[str, list[float]] = {name: [] for name in ways}
    are_views = False
    for repeat in range(repeats):
        # In another order each time: what disturbs one way disturbs another the next time.
        for name in [*ways][repeat % 3 :] + [*ways][: repeat % 3]:
            with ways[name]() as feeds:
                took, last = _read_all(model, feeds, plan)
            took_s[name].append(took)
            are_views = are_views or (name == "ray" and is_view(last.rgb_HW3))
    frame_s = {name: median(seconds) for name, seconds in took_s.items()}
    shares = sorted(
        (ray - process) / frame_s["model"] for ray, process in zip(took_s["ray"], took_s["process"], strict=True)
    )
    return {
        "shape": model.spec.name,
        "num_streams": plan.num_streams,
        **{f"{name}_s_per_frame": seconds for name, seconds in frame_s.items()},
        "ray_overhead_share": median(shares),
        "ray_overhead_range": [shares[0], shares[-1]],
        "is_view": are_views,
    }


def _hand_over(path: str) -> float:
    import ray

    from .cluster.actors import start_source
    from .cluster.names import end_all, new_namespace
    from .cluster.settings import ClusterSettings

    namespace, took_s = new_namespace(), []
    try:
        source = start_source(StreamSpec("one", path), _FPS, namespace, ClusterSettings())
        for _ in range(_NUM_CALLS):
            started_s = time.perf_counter()
            # Whoever has no frame yet is given the one that waits, again and again.
            taken = ray.get(source.next_frames.remote(None, _LATEST_S))
            took_s.append(time.perf_counter() - started_s)
            del taken
    finally:
        end_all(namespace)
    return median(took_s)


def _read_all(model: VideoLLM, feeds: Sequence[Feed], plan: RayPlan) -> tuple[float, Frame]:
    """Seconds a frame, of packed passes over the next frame of every feed; and the last frame."""
    config = EngineConfig(
        memory=MemoryConfig(recent_frames=4), history=HistoryConfig(archive_bytes=0), reuse_budget_bytes=2**32
    )
    news, num_rounds = Event(), plan.rounds_of(model)
    with Engine(config, model=model) as engine:
        sessions = [engine.session(feed.stream_id) for feed in feeds]
        for feed in feeds:
            feed.on_news(news.set)
        started_s = time.perf_counter()
        for number in range(plan.num_warm + num_rounds):
            if number == plan.num_warm:
                started_s = time.perf_counter()
            for session, feed in zip(sessions, feeds, strict=True):
                frame = _next(feed, news)
                session.push(frame, reads=False)
            engine.read_pending(sessions)
            wait_for(model.spec.device)
        return (time.perf_counter() - started_s) / (num_rounds * len(feeds)), frame


def _next(feed: Feed, news: Event) -> Frame:
    until_s = time.monotonic() + _LATEST_S
    while True:
        news.clear()
        frame = feed.take()
        if frame is not None:
            return frame
        if feed.is_ended or time.monotonic() > until_s:
            raise RuntimeError(f"stream {feed.stream_id!r} gave no frame: {feed.problem or 'it ended, or is silent'}")
        news.wait(0.05)


def is_view(rgb_HW3: np.ndarray) -> bool:
    """Whether a picture is read-only and its memory not numpy's own: it lies in the object store."""
    base: Any = rgb_HW3
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return not rgb_HW3.flags.writeable and not isinstance(base, np.ndarray)


@contextmanager
def _in_memory(paths: Sequence[str]) -> Iterator[list[Feed]]:
    """Frames that are decoded already."""
    yield [_Decoded(path) for path in paths]


@contextmanager
def _in_process(paths: Sequence[str]) -> Iterator[list[Feed]]:
    feeds = [SourceFeed(open_source(path), fps=_FPS, stream_id=path) for path in paths]
    try:
        yield list(feeds)
    finally:
        for feed in feeds:
            feed.close()


@contextmanager
def _in_actors(paths: Sequence[str]) -> Iterator[list[Feed]]:
    from .cluster.actors import start_source
    from .cluster.names import end_all, find_actor, new_namespace, source_name
    from .cluster.remote_feed import RemoteFeed
    from .cluster.settings import ClusterSettings

    namespace, settings = new_namespace(), ClusterSettings()
    feeds: list[Feed] = []
    try:
        for path in paths:
            start_source(StreamSpec(path, path), _FPS, namespace, settings)
            feeds.append(RemoteFeed(path, partial(find_actor, source_name(path), namespace)))
        yield feeds
    finally:
        for feed in feeds:
            feed.close()
        end_all(namespace)


class _Decoded(Feed):
    """A recording whose frames are all in memory."""

    def __init__(self, path: str) -> None:
        self.stream_id, self.stats = path, SourceStats()
        with open_source(path, stream_id=path) as source:
            self._left = list(source.sampled(RateSampler(_FPS)))[::-1]

    def on_news(self, callback: Callable[[], None]) -> None:
        callback()

    def take(self) -> Frame | None:
        return self._left.pop() if self._left else None

    @property
    def num_waiting(self) -> int:
        return len(self._left)

    @property
    def num_overtaken(self) -> int:
        return 0

    @property
    def is_ended(self) -> bool:
        return not self._left

    @property
    def problem(self) -> None:
        return None

    def close(self) -> None:
        self._left.clear()

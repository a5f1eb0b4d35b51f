"""How old a robot's view is when it is used: control loops of several rates over cameras that wait for nobody."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ..encoders import VideoLLM
from .bench_robot_scenes import to_and_fro
from .bench_shapes import wait_for
from .bench_streams_latency import PERCENTILES, percentiles
from .bench_streams_latency import Camera as BenchCamera
from .robot.camera import Camera, StaleView
from .robot.feed import RobotFeed
from .robot.memory import RobotMemory

_log = logging.getLogger(__name__)

QUESTION = "Where did you last see the red square?"

_SHOWN = ("fixed", "wrist", "fixed")
_FIRST_WITHIN_S = 300.0
_ANSWER_WITHIN_S = 120.0


@dataclass(frozen=True)
class LoopPlan:
    """Control loops over one feed, with and without a question beside them in turn.

    camera_rate_hz: of each camera. length_s: of one stretch; without and with a question by turns. warm_s: before the
    first. max_age_s: an older view is as good as none. num_pictures: that a camera shows, to and fro. num_cameras: one
    is a camera on a stand; of three, the second is on the wrist.
    """

    rates_hz: tuple[float, ...] = (10.0, 30.0, 50.0)
    num_cameras: tuple[int, ...] = (1, 3)
    camera_rate_hz: float = 30.0
    length_s: float = 8.0
    warm_s: float = 4.0
    max_age_s: float = 0.5
    num_pictures: int = 45

    def __post_init__(self) -> None:
        for name in ("camera_rate_hz", "length_s", "num_pictures"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")
        if not self.rates_hz or not set(self.num_cameras) <= {1, 2, 3}:
            raise ValueError(
                f"a plan needs a rate at least, and 1 to 3 cameras; got {self.rates_hz} and {self.num_cameras}"
            )


@dataclass(slots=True)
class Ticks:
    """What came of a loop's ticks. A tick is missed where nothing fresh was there before the next one was due."""

    ages_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    num_ticks: int = 0
    num_missed: int = 0

    def add(self, other: Ticks) -> None:
        self.ages_s += other.ages_s
        self.late_s += other.late_s
        self.num_ticks += other.num_ticks
        self.num_missed += other.num_missed

    def row(self) -> dict[str, Any]:
        """age_s: at the moment of use; None where nothing ever was. jitter_s: how late a tick began."""
        nothing = dict.fromkeys(f"p{share}" for share in PERCENTILES)
        return {
            "age_s": percentiles(self.ages_s) if self.ages_s else nothing,
            "jitter_s": percentiles(self.late_s) if self.late_s else nothing,
            "missed": self.num_missed,
            "ticks": self.num_ticks,
        }


class Used(NamedTuple):
    """What a tick used: how old it was, and whether it may pass for fresh."""

    age_s: float
    is_fresh: bool = True


def run_loop(look: Callable[[], Used], *, rate_hz: float, length_s: float) -> Ticks:
    """A control loop by this machine's clock: at each tick `look` gives what it uses.

    Ticks whose time is over when the one before is done are not made up for: they are missed. Where `look` raises
    StaleView, there was nothing to use.
    """
    ticks = Ticks(num_ticks=math.ceil(length_s * rate_hz - 1e-9))
    began_s, number = time.monotonic(), 0
    while number < ticks.num_ticks:
        due_s = began_s + number / rate_hz
        time.sleep(max(0.0, due_s - time.monotonic()))
        ticks.late_s.append(time.monotonic() - due_s)
        is_fresh = False
        try:
            used = look()
            ticks.ages_s.append(used.age_s)
            is_fresh = used.is_fresh
        except StaleView as error:
            _log.debug("%s", error)
        done_s = time.monotonic()
        ticks.num_missed += not is_fresh or done_s >= due_s + 1 / rate_hz
        following = max(number + 1, math.floor((done_s - began_s) * rate_hz))
        ticks.num_missed += min(following, ticks.num_ticks) - number - 1
        number = following
    return ticks


class Measured(NamedTuple):
    """One feed's loops: rows by rate, without and with a question, and by a loop that encodes for itself."""

    alone: dict[float, dict[str, Any]]
    asked: dict[float, dict[str, Any]]
    inline: dict[float, dict[str, Any]]
    num_answers: int
    answer_s: float
    tokens_kept: int
    num_places: int


def measure_loops(
    model: VideoLLM,
    plan: LoopPlan,
    num_cameras: int,
    make_memory: Callable[[], RobotMemory],
    *,
    repeats: int,
    budget_tokens: int | None = None,
    has_inline: bool = True,
) -> Measured:
    """All rates over one feed, each without and with a question, by turns; then a loop that encodes for itself."""
    alone = {rate_hz: Ticks() for rate_hz in plan.rates_hz}
    asked = {rate_hz: Ticks() for rate_hz in plan.rates_hz}
    cameras = _cameras(plan, num_cameras)
    tolerance_s = 2 / plan.camera_rate_hz
    feed = RobotFeed(
        cameras,
        model,
        memory=make_memory(),
        budget_tokens=budget_tokens,
        pair_tolerance_s=tolerance_s,
        when_stale="flag",  # refused, an old view would be missing from the ages, and make them look younger
    )
    with feed:
        feed.wait(_FIRST_WITHIN_S)
        asker = Asker(feed)
        asker.wait_for_first()
        time.sleep(plan.warm_s)

        def look() -> Used:
            perception = feed.latest(max_age_s=plan.max_age_s)
            return Used(perception.age_s, not perception.is_stale)

        for _ in range(repeats):
            for rate_hz in plan.rates_hz:
                alone[rate_hz].add(run_loop(look, rate_hz=rate_hz, length_s=plan.length_s))
                with asker.asking():
                    asked[rate_hz].add(run_loop(look, rate_hz=rate_hz, length_s=plan.length_s))
        perception = feed.latest(max_age_s=math.inf)
        num_kept = perception.num_tokens
        num_places = sum(height * width for height, width in perception.grids_hw)
    inline = _inline(model, plan, num_cameras, repeats) if has_inline else {}
    return Measured(
        {rate_hz: ticks.row() for rate_hz, ticks in alone.items()},
        {rate_hz: ticks.row() for rate_hz, ticks in asked.items()},
        inline,
        len(asker.took_s),
        sum(asker.took_s) / max(1, len(asker.took_s)),
        num_kept,
        num_places,
    )


class Asker:
    """Asks a feed's memory one question after the other, in a thread of its own, whenever it is told to."""

    def __init__(self, feed: RobotFeed) -> None:
        self._feed = feed
        self.took_s: list[float] = []

    def wait_for_first(self) -> None:
        """Until the memory answers at all: it has loaded its model, and has seen something."""
        until_s = time.monotonic() + _FIRST_WITHIN_S
        while True:
            try:
                self._feed.ask(QUESTION).result(_FIRST_WITHIN_S)
                return
            except ValueError:  # nothing was seen yet
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.2)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Meanwhile there is always a question on its way."""
        is_under_way, is_over = threading.Event(), threading.Event()
        failed: list[Exception] = []

        def ask() -> None:
            try:
                while not is_over.is_set():
                    started_s = time.perf_counter()
                    future = self._feed.ask(QUESTION)
                    is_under_way.set()
                    future.result(_ANSWER_WITHIN_S)
                    self.took_s.append(time.perf_counter() - started_s)
            except Exception as error:  # noqa: BLE001 - figures with nobody asking must not pass for others
                failed.append(error)
                is_under_way.set()

        thread = threading.Thread(target=ask, name="millpond robot questions", daemon=True)
        thread.start()
        is_under_way.wait(_ANSWER_WITHIN_S)
        try:
            yield
        finally:
            is_over.set()
            thread.join(_ANSWER_WITHIN_S)
        if failed:
            raise failed[0]


def _cameras(plan: LoopPlan, num_cameras: int) -> list[Camera]:
    period_s = 1 / plan.camera_rate_hz
    return [
        Camera(
            BenchCamera(
                to_and_fro(_SHOWN[number], plan.num_pictures),
                rate_hz=plan.camera_rate_hz,
                offset_s=number * period_s / max(1, num_cameras),
                stream_id=f"camera-{number}",
            )
        )
        for number in range(num_cameras)
    ]


@torch.inference_mode()
def _inline(model: VideoLLM, plan: LoopPlan, num_cameras: int, repeats: int) -> dict[float, dict[str, Any]]:
    """A loop that takes each camera's newest picture and encodes it, whole, when it needs it."""
    cameras: Sequence[Camera] = _cameras(plan, num_cameras)
    rows = {rate_hz: Ticks() for rate_hz in plan.rates_hz}
    try:
        for camera in cameras:
            camera.start()
        for camera in cameras:
            camera.read(_FIRST_WITHIN_S)

        def look() -> Used:
            pictures = [camera.read_latest(math.inf) for camera in cameras]
            model.see([picture.frame for picture in pictures])
            wait_for(model.spec.device)
            age_s = max(picture.age_s() for picture in pictures)
            return Used(age_s, age_s <= plan.max_age_s)

        look()
        for _ in range(repeats):
            for rate_hz, ticks in rows.items():
                ticks.add(run_loop(look, rate_hz=rate_hz, length_s=plan.length_s))
    finally:
        for camera in cameras:
            camera.close()
    return {rate_hz: ticks.row() for rate_hz, ticks in rows.items()}

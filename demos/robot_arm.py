"""A simulated robot that puts a block on a mat, and knows where they are from Millpond's robot feed alone.

MuJoCo moves an arm and paints what a camera above the table and one on its wrist see. Both go into a RobotFeed with
the built-in model. A scripted controller takes the newest perception at each tick, reads from its tokens where the
block and the mat are, and acts. On the way somebody moves the block, and a camera is unplugged for a while: the feed
then refuses to give an old view for a new one, and the arm holds still. Meanwhile a second process remembers, and is
asked.

    python demos/robot_arm.py robot_arm.gif

Needs `pip install 'millpond[robot]'`, and without a screen EGL (Debian: libegl1, libgl1 and libgl1-mesa-dri).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from robot_controller import Controller, Phase
from robot_eyes import Studio
from robot_film import FILM_HZ, Shot, write_film
from robot_reading import Reader, teach
from robot_scene import BLOCK, HOME_M, MAT, TOP, Command, Scene

from millpond.encoders import load_model
from millpond.pipeline import Answer
from millpond.pipeline.robot import Camera, Perception, ProcessMemory, RobotFeed, StaleView

QUESTION = f"Where is the {BLOCK}?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """rate_hz: ticks of the control loop a second. camera_hz: pictures a second. max_age_s: of a view that is acted on.
    limit_s: of the world's time, for all of it. moves_block: whether somebody moves the block on the way.
    unplugged_s: how long a camera shows nothing; 0: it never does. remembers: whether there is a memory to ask.
    """

    rate_hz: float = 20.0
    camera_hz: float = 15.0
    budget_tokens: int = 48
    max_age_s: float = 0.4
    limit_s: float = 60.0
    moves_block: bool = True
    unplugged_s: float = 1.5
    remembers: bool = True
    num_lessons: int = 64


@dataclass(slots=True)
class Report:
    """What came of a run.

    ages_s, num_tokens: of the perceptions that were acted on. num_refused, reasons: ticks without a fresh one, and why.
    num_moved_blind: ticks without one at which the arm was told anything new.
    recomputed: by camera, share of the patches that the tower computed. away_m: how far the block's middle ended from
    the mat's, in truth. time_s: of the world.
    """

    phases: list[Phase] = field(default_factory=list)
    ages_s: list[float] = field(default_factory=list)
    num_late_ticks: int = 0
    num_refused: int = 0
    reasons: list[str] = field(default_factory=list)
    num_moved_blind: int = 0
    num_tokens: list[int] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    shots: list[Shot] = field(default_factory=list)
    recomputed: dict[str, float] = field(default_factory=dict)
    away_m: float = math.inf
    time_s: float = 0.0


class Run:
    """One run of the demo: the world, its cameras, the feed, the controller, and what happens to them."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings, self._say = settings, say
        self.scene = Scene()
        self.report = Report()
        self._controller = Controller(settings.rate_hz)
        self._marked: dict[str, np.ndarray] = {}
        self._asked: list[Future[Answer]] = []
        self._plugged_at_s: float | None = None  # on `time.monotonic`'s clock
        self._was_moved = not settings.moves_block
        self._was_unplugged = settings.unplugged_s <= 0
        self._shown: Perception | None = None

    def go(self) -> Report:
        settings = self._settings
        model = load_model("millpond/mini", device="cpu", dtype="float32")
        self._say(f"teaches the reader from {settings.num_lessons} pictures of each camera")
        reader = teach(model, self.scene, num_pictures=settings.num_lessons)
        studio = Studio(self.scene, settings.camera_hz)
        memory = ProcessMemory() if settings.remembers else None
        feed = RobotFeed(
            [Camera(camera) for camera in studio.cameras.values()],
            model,
            budget_tokens=settings.budget_tokens,
            pair_tolerance_s=2 / settings.camera_hz,
            paired_by="pts",  # both tell the world's time
            memory=memory,
        )
        with ExitStack() as stack:
            stack.callback(studio.close)
            studio.start()
            stack.enter_context(feed)
            feed.wait(120.0)
            if memory is not None:
                memory.wait_until_ready(300.0)
            self._drive(feed, reader, studio)
            self.report.recomputed = {name: stats.recomputed_share for name, stats in feed.stats.items()}
            self.report.answers = [future.result(timeout=120.0) for future in self._asked]
        block, mat = self.scene.truth_m(BLOCK), self.scene.truth_m(MAT)
        self.report.away_m, self.report.time_s = math.dist(block[:2], mat[:2]), self.scene.time_s
        return self.report

    def _drive(self, feed: RobotFeed, reader: Reader, studio: Studio) -> None:
        """The control loop, at its own pace: it takes what the feed has, and never waits for it."""
        tick_s, report, controller = 1 / self._settings.rate_hz, self.report, self._controller
        due_s, command = time.monotonic(), Command(*HOME_M)
        while controller.phase is not Phase.DONE and self.scene.time_s < self._settings.limit_s:
            cup = self.scene.felt()
            refused = None
            try:
                perception = feed.latest(self._settings.max_age_s)
            except StaleView as error:
                refused = str(error)
                before, command = command, controller.step(None, cup, self.scene.time_s)
                report.num_moved_blind += command != before
            else:
                self._shown = perception
                report.ages_s.append(perception.age_s)
                report.num_tokens.append(perception.num_tokens)
                command = controller.step(reader.read(perception), cup, self.scene.time_s)
                self._mark(feed)
            self._note(refused, feed, studio)
            self.scene.act(command, tick_s)
            studio.tell(self.scene.posture())
            self._happen(studio)
            due_s += tick_s
            late_s = time.monotonic() - due_s
            if late_s > 0:
                report.num_late_ticks += 1
                due_s += late_s  # what was missed is not made up for
            else:
                time.sleep(-late_s)

    def _mark(self, feed: RobotFeed) -> None:
        """Tells the feed what the controller looks at now."""
        for camera_id, mask in self._controller.must_be_fresh().items():
            if not np.array_equal(mask, self._marked.get(camera_id)):
                self._marked[camera_id] = mask
                feed.mark_fresh(camera_id, mask)

    def _happen(self, studio: Studio) -> None:
        """What befalls the robot: the block is moved, a camera unplugged and plugged in again."""
        phase, cup = self._controller.phase, self.scene.felt()
        if phase is Phase.APPROACH and not self._was_moved and math.dist(cup[:2], self.scene.truth_m(BLOCK)[:2]) < 0.1:
            self._was_moved = True
            self.scene.place(block_xy_m=(0.14, 0.08))
            self._say(f"{self.scene.time_s:5.1f} s  somebody moves the block")
        if phase is Phase.CARRY and not self._was_unplugged:
            self._was_unplugged = True
            self._plugged_at_s = time.monotonic() + self._settings.unplugged_s
            studio.unplug(TOP)
            self._say(f"{self.scene.time_s:5.1f} s  the {TOP} camera is unplugged")
        if self._plugged_at_s is not None and time.monotonic() >= self._plugged_at_s:
            self._plugged_at_s = None
            studio.unplug()
            self._say(f"{self.scene.time_s:5.1f} s  the {TOP} camera is plugged in again")

    def _note(self, refused: str | None, feed: RobotFeed, studio: Studio) -> None:
        """Keeps for the report and the film what this tick was like; asks the memory when the block is in the hand, and
        at the end."""
        report, phase, scene = self.report, self._controller.phase, self.scene
        if not report.phases or phase is not report.phases[-1]:
            report.phases.append(phase)
            seen = f"the view is {report.ages_s[-1]:.3f} s old" if report.ages_s else "no view yet"
            self._say(f"{scene.time_s:5.1f} s  {phase.value:27} {seen}")
            if self._settings.remembers and phase in (Phase.CARRY, Phase.DONE):
                self._asked.append(feed.ask(QUESTION, TOP))
        if refused is not None:
            if not report.num_refused or not report.reasons:
                self._say(f"{scene.time_s:5.1f} s  holds still: {refused}")
            report.num_refused += 1
            report.reasons.append(refused)
        if len(report.shots) < scene.time_s * FILM_HZ and self._shown is not None:
            report.shots.append(self._shot(refused, studio, self._shown))

    def _shot(self, refused: str | None, studio: Studio, perception: Perception) -> Shot:
        kept, pictures = {}, {}
        places = perception.kept_T3.numpy()
        for index, view in enumerate(perception.views):
            kept[view.camera_id] = np.zeros(view.grid_hw, bool)
            own = places[places[:, 0] == index]
            kept[view.camera_id][own[:, 1], own[:, 2]] = True
            pictures[view.camera_id] = studio.cameras[view.camera_id].shown_at(view.pts_s)
        of = sum(rows * columns for rows, columns in perception.grids_hw)
        note = f"the view is {perception.age_s:.2f} s old, {perception.num_tokens} of {of} tokens"
        note = note if refused is None else "no fresh view: the arm holds still"
        return Shot(self.scene.posture(), pictures, kept, self._controller.phase.value, note, refused is not None)


def summary(report: Report) -> str:
    """A run in some lines."""
    p50, p95, p99 = np.quantile(report.ages_s or [math.nan], [0.5, 0.95, 0.99])
    recomputed = ", ".join(f"{name} {share:.0%}" for name, share in report.recomputed.items())
    lines = [
        f"the block lies {100 * report.away_m:.1f} cm from the middle of the mat, after {report.time_s:.1f} s",
        f"age of the views p50 {p50:.3f}, p95 {p95:.3f}, p99 {p99:.3f} s; "
        f"{np.mean(report.num_tokens or [0]):.0f} tokens each; patches computed: {recomputed}",
        f"{report.num_refused} ticks without a fresh view, {report.num_late_ticks} of {len(report.ages_s)} late",
    ]
    for answer in report.answers:
        lines.append(f"{answer.question} {answer.text} (seen until {answer.seen_until_s:.1f} s)")
    return "\n".join(lines)


def main(
    film: Annotated[Path, typer.Argument(help="where the film goes: .gif or .mp4")] = Path("robot_arm.gif"),
    rate_hz: Annotated[float, typer.Option(min=1, max=200, help="ticks of the control loop a second")] = 20.0,
    tokens: Annotated[int, typer.Option(min=36, help="that the controller gets of both cameras, of 72")] = 48,
    memory: Annotated[bool, typer.Option(help="remember in a second process, and ask it")] = True,
) -> None:
    import torch

    torch.set_num_threads(1)  # one core to see with; the world and its cameras want the other
    run = Run(Settings(rate_hz=rate_hz, budget_tokens=tokens, remembers=memory), print)
    report = run.go()
    print(summary(report))
    write_film(report.shots, run.scene, film)
    print(f"wrote {film}")
    if report.phases[-1] is not Phase.DONE:
        raise SystemExit("the block was not put on the mat in time")


if __name__ == "__main__":
    typer.run(main)

"""RobotFeed: the newest view of a robot's cameras, encoded, to be had at any tick of a control loop without waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from ...encoders import VisionHalf
from ...encoders.reuse import Reuser, ReuseStats
from ...encoders.reuse.delta import DeltaReuse
from ...stream import Frame
from ...stream.redact import redact
from ..answer import Answer
from ..question import Question
from .camera import Camera, Picture, StaleView, check_seconds
from .eyes import RobotEyes
from .memory import NoMemory, RobotMemory
from .pairing import PairedBy, Pairing
from .perception import Perception
from .regions import attended_cells
from .slots import Published, SlotRing, publication

# Shapes: H rows and W columns of a mask, T tokens of all cameras.

_log = logging.getLogger(__name__)

# An idle worker looks around this often, for a camera that ends without a word.
_IDLE_S = 0.25


class RobotFeed:
    """One or several cameras in; at every tick of the robot's loop, the newest view of all of them in few tokens.

        cameras ──▶ [newest picture of each] ──▶ paired? ──worker──▶ [slots] ──latest()──▶ Perception
                                    └──────────▶ memory (where it is due; never waited for)

    One worker encodes whatever is newest; what comes meanwhile is overtaken. `latest` takes what was published last
    out of buffers that are there already: it waits for nothing, and allocates nothing but the record that it returns.
    What it returns stays as it is until `latest` has been called `num_held` times more.

    A view is as old as its capture. One that is older than asked for, and pictures that lie too far apart in time, are
    refused with StaleView, or flagged where `when_stale` is "flag". What ends a camera ends no feed: its view grows
    old, and the reason is told. `latest`, `read` and `async_read` are for one thread, the rest for any.

    >>> with RobotFeed([Camera(top), Camera(wrist)], model) as feed:
    ...     feed.wait(10.0)
    ...     perception = feed.latest(max_age_s=0.2)

    cameras: not started yet; they are the feed's from `start` on, and closed with it.
    model: a VideoLLM, whose vision half encodes, or a policy's eyes. Nobody else may use it meanwhile.
    budget_tokens: of all cameras together; None: all there are. What must be fresh is kept first, then what changed.
    pair_tolerance_s, paired_by: see Pairing.
    when_stale: "raise" or "flag".
    always_fresh: by camera, bool masks of any shape over the whole picture: what is under True is encoded anew in every
        picture, and kept.
    fresh_share: of the tokens, how many `observe_attention` marks.
    memory: remembers the same pictures, to be asked by `ask`; opened and closed with the feed.
    reuse: how much of the pictures before is used again.
    num_held: for how many calls of `latest` a perception outlives the next one.
    fit: makes of a frame what the model takes, such as a square; masks and places are those of what comes out.
    num_threads: of torch, for encoding on a processor; None: as many as torch takes less those that the memory answers
        with. Torch knows one number for all threads that begin later, and gets its own back when the feed ends.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        model: VisionHalf,
        *,
        budget_tokens: int | None = None,
        pair_tolerance_s: float = 0.1,
        paired_by: PairedBy = "arrival",
        when_stale: Literal["raise", "flag"] = "raise",
        always_fresh: Mapping[str, np.ndarray] | None = None,
        fresh_share: float = 0.1,
        memory: RobotMemory | None = None,
        reuse: Reuser | None = None,
        num_held: int = 2,
        fit: Callable[[Frame], Frame] | None = None,
        num_threads: int | None = None,
    ) -> None:
        names = [camera.camera_id for camera in cameras]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a feed needs a camera at least, and a name of its own for each; got {names}")
        if when_stale not in ("raise", "flag"):
            raise ValueError(f"a stale view is either to 'raise' or to 'flag'; got {when_stale!r}")
        if not 0 < fresh_share <= 1:
            raise ValueError(f"fresh_share is a share of the tokens, above 0 and up to 1; got {fresh_share}")
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"encoding takes a thread at least, or None for the feed's own choice; got {num_threads}")
        self._cameras = {camera.camera_id: camera for camera in cameras}
        self._eyes = RobotEyes(model, names, reuse or DeltaReuse(), budget_tokens=budget_tokens, fit=fit)
        self._pairing = Pairing(pair_tolerance_s, paired_by)
        self._flags = when_stale == "flag"
        self._fresh_share = fresh_share
        self._memory: RobotMemory = memory or NoMemory()
        self._num_threads, self._callers_threads = num_threads, 1
        self._ring = SlotRing(num_held)
        self._marking = threading.Lock()
        self._given: Perception | None = None  # the last that was returned
        self._num_passed_before = 0  # pictures that had passed by when that was published
        self._num_jumps_before = 0  # and jumps of clocks
        self._num_encoded = 0
        self._trouble: str | None = None  # why nothing newer was published
        self._news = threading.Event()
        self._published = threading.Condition()
        self._is_started = self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="millpond robot feed", daemon=True)
        for camera_id, mask_HW in (always_fresh or {}).items():
            self._eyes.require_fresh(camera_id, mask_HW, "always")

    # The control loop's.

    def latest(self, max_age_s: float = 0.5) -> Perception:
        """The newest perception, at once.

        Raises StaleView where there is none yet; and where it is older than `max_age_s`, or its pictures are no pair,
        unless the feed flags that.
        """
        check_seconds("max_age_s", max_age_s)
        while True:
            newest = self._ring.newest
            if newest is None:
                raise StaleView(f"the feed has seen nothing yet{self._why(newest)}")
            age_s = max(0.0, time.monotonic() - newest.captured_s)
            problem = newest.problem
            if age_s > max_age_s:
                why = self._why(newest)
                problem = f"the view is {age_s:.3f} s old, and at most {max_age_s:g} s were asked for{why}"
            if problem is not None and not self._flags:
                raise StaleView(problem)  # before it is taken: what was returned before stays
            if self._ring.hold(newest):
                break
        num_dropped, self._num_passed_before = newest.num_passed - self._num_passed_before, newest.num_passed
        num_jumps, self._num_jumps_before = newest.num_jumps - self._num_jumps_before, newest.num_jumps
        self._given = Perception(
            newest.tokens_TD,
            newest.kept_T3,
            newest.changed_T,
            newest.views,
            age_s,
            num_dropped,
            newest.number,
            problem is not None,
            problem,
            num_jumps > 0,
        )
        return self._given

    def read_latest(self, max_age_s: float = 0.5) -> Perception:
        """`latest`, by the name that LeRobot's cameras have for it."""
        return self.latest(max_age_s)

    def read(self, timeout_s: float = 10.0, *, max_age_s: float = 0.5) -> Perception:
        """Waits for the next perception that is published. Raises TimeoutError where none is within `timeout_s`."""
        newest = self._ring.newest
        return self._later_than(-1 if newest is None else newest.number, timeout_s, max_age_s)

    def async_read(self, timeout_s: float = 0.2, *, max_age_s: float = 0.5) -> Perception:
        """The newest perception that was not returned yet; waits for one where there is none. Raises TimeoutError where
        none is published within `timeout_s`."""
        return self._later_than(-1 if self._given is None else self._given.number, timeout_s, max_age_s)

    def _later_than(self, number: int, timeout_s: float, max_age_s: float) -> Perception:
        check_seconds("timeout_s", timeout_s)

        def is_there() -> bool:
            newest = self._ring.newest
            return newest is not None and newest.number > number

        with self._published:
            self._published.wait_for(lambda: is_there() or self._is_closed, timeout_s)
        if not is_there():
            raise TimeoutError(f"the feed published no new view in {timeout_s:g} s{self._why(self._ring.newest)}")
        return self.latest(max_age_s)

    # Anybody's.

    def start(self) -> Self:
        """Opens memory and cameras and begins to encode. Where a camera cannot be opened, all are closed again, and
        its error is raised."""
        if self._is_started or self._is_closed:
            raise ValueError(f"this feed was started already; got start() again on {self!r}; make another")
        self._is_started = True
        self._callers_threads = torch.get_num_threads()  # which no other feed has changed
        try:
            self._memory.open(tuple(self._cameras))
            for camera in self._cameras.values():
                camera.on_news(self._news.set)
                camera.start()
        except BaseException:
            self.close()
            raise
        self._thread.start()
        return self

    def wait(self, timeout_s: float = 10.0) -> None:
        """Waits until something can be taken. Raises TimeoutError, with the reason where it is known."""
        check_seconds("timeout_s", timeout_s)
        with self._published:
            self._published.wait_for(lambda: self._ring.newest is not None or self._is_closed, timeout_s)
        if self._ring.newest is None:
            when = "before it was closed" if self._is_closed else f"in {timeout_s:g} s"
            raise TimeoutError(f"the feed saw nothing {when}{self._why(None)}")

    def mark_fresh(self, camera_id: str, mask_HW: np.ndarray | None) -> None:
        """From the camera's next picture on, what is under True is encoded anew whether it changed or not, and its
        tokens are kept; None takes that back. It joins `always_fresh`.

        mask_HW: bool, of any shape: it is laid over the whole picture.
        """
        with self._marking:
            self._eyes.require_fresh(camera_id, mask_HW, "policy")

    def observe_attention(self, weights_T: Tensor, perception: Perception | None = None) -> None:
        """The policy's own attention: the `fresh_share` of the tokens that got most of it are kept fresh from the next
        pictures on, until it is observed again.

        weights_T: how much attention each token of a perception got, 0 or more; summed over heads and queries.
        perception: whose tokens those are; by default the one that was returned last. Raises ValueError for one that
            is held no longer: its places are those of another picture by now, unless they were copied.
        """
        seen = perception or self._given
        if seen is None:
            raise ValueError(f"attention is paid to a perception; got {tuple(weights_T.shape)} weights before any")
        self._check_held(seen)
        cells = attended_cells(weights_T, seen.kept_T3, seen.views, share=self._fresh_share)
        self._check_held(seen)  # what is held now was held all along
        with self._marking:
            for camera_id, cells_HW in cells.items():
                self._eyes.require_fresh_cells(camera_id, cells_HW, "attention")

    def ask(self, question: str | Question, camera_id: str | None = None) -> Future[Answer]:
        """Asks the memory what a camera saw, by default the first one; the feed runs on meanwhile."""
        camera_id = next(iter(self._cameras)) if camera_id is None else camera_id
        if camera_id not in self._cameras:
            raise ValueError(f"there is no camera {camera_id!r}; got {', '.join(self._cameras)}")
        return self._memory.ask(camera_id, Question(question) if isinstance(question, str) else question)

    @property
    def cameras(self) -> Mapping[str, Camera]:
        return self._cameras

    @property
    def stats(self) -> Mapping[str, ReuseStats]:
        """How each camera's pictures were encoded."""
        return self._eyes.stats

    @property
    def num_encoded(self) -> int:
        """How many perceptions were published."""
        return self._num_encoded

    @property
    def problem(self) -> str | None:
        """Why nothing newer is published, in a sentence; None where all is well."""
        for camera in self._cameras.values():
            if camera.problem is not None:  # the cause; that pictures then lie apart is what follows
                state = "" if camera.state == "live" else f" is {camera.state}"
                return f"camera {camera.camera_id!r}{state}: {camera.problem}"
        return self._trouble

    def close(self) -> None:
        """Ends cameras, worker and memory. May be called again."""
        self._is_closed = True
        self._news.set()
        for camera in self._cameras.values():
            camera.close()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(10.0)
        self._memory.close()
        with self._published:
            self._published.notify_all()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RobotFeed({', '.join(self._cameras)[:60]}, {self._num_encoded} published)"

    def _check_held(self, perception: Perception) -> None:
        if self._ring.may_be_written(perception.kept_T3):
            raise ValueError(
                f"a perception holds until latest() was called {self._ring.num_held} times more; got attention on "
                f"number {perception.number}, which may be overwritten; raise num_held, or copy what is kept longer"
            )

    def _why(self, newest: Published | None) -> str:
        """What is known of why there is no newer view."""
        told = self.problem
        if told is None and newest is not None:
            oldest = min(newest.views, key=lambda view: view.captured_s)
            told = f"the newest picture of camera {oldest.camera_id!r} is as old"
        return "" if told is None else f": {told}"

    # The worker's, from here on.

    def _run(self) -> None:
        """Where the feed's threads spin for their next piece of work on every core there is, the scheduler owes them
        nothing once the memory answers on one of them, and a picture waits for whole slices of time."""
        torch.set_num_threads(self._num_threads or max(1, self._callers_threads - self._memory.num_threads))
        try:
            self._look_on()
        finally:
            torch.set_num_threads(self._callers_threads)

    def _look_on(self) -> None:
        while not self._is_closed:
            self._news.wait(_IDLE_S)
            self._news.clear()
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - a picture that cannot be encoded must not end the feed
                self._stumble(redact(f"a picture cannot be encoded: {error or type(error).__name__}"))

    def _look(self) -> None:
        """Encodes the newest pictures, where there is a new one among them and all are there."""
        newest = {camera_id: camera.newest for camera_id, camera in self._cameras.items()}
        pictures = [picture for picture in newest.values() if picture is not None]
        if len(pictures) < len(newest):
            missing = next(camera_id for camera_id, picture in newest.items() if picture is None)
            self._trouble = f"camera {missing!r} has shown nothing yet"
            return
        if self._is_published(pictures):
            return
        for picture in pictures:
            self._memory.offer(picture)
        problem = self._pairing.problem(pictures)
        if problem is not None and not self._flags:
            self._stumble(problem)
            return
        self._eyes.see(pictures)
        self._ring.make_room(self._eyes.num_places, self._eyes.tokens_like)
        slot = self._ring.free()
        views = self._eyes.write(slot)
        captured_s = min(view.captured_s for view in views)
        self._ring.publish(publication(slot, views, captured_s, self._num_passed(pictures), self._num_encoded, problem))
        self._num_encoded += 1
        if self._trouble is not None and problem is None:
            _log.info("the robot feed goes on")
        self._trouble = problem
        with self._published:
            self._published.notify_all()

    def _is_published(self, pictures: Sequence[Picture]) -> bool:
        newest = self._ring.newest
        numbers = None if newest is None else [view.number for view in newest.views]
        return numbers == [picture.number for picture in pictures]

    def _num_passed(self, pictures: Sequence[Picture]) -> int:
        """Pictures of all cameras that had come by now, and are in no perception."""
        encoded = sum(stats.num_blocks for stats in self._eyes.stats.values())
        return sum(picture.number + 1 for picture in pictures) - encoded

    def _stumble(self, trouble: str) -> None:
        if self._trouble != trouble:
            was_well, self._trouble = self._trouble is None, trouble
            if was_well:
                _log.warning("the robot feed publishes nothing new: %s", trouble)

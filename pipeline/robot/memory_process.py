"""ProcessMemory: a robot's memory in a process of its own, so that answering takes nothing from the feed but cores."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ...stream import Frame
from ...stream.frame import carry_gap
from ...stream.redact import redact
from ..answer import Answer
from ..hub_events import HubStopped
from ..question import NothingRemembered, Question
from .camera import Picture
from .memory import GapsTold, RobotMemory, remembered
from .memory_words import frame_message, question_message, read_answer, write_line

_log = logging.getLogger(__name__)

_CLOSE_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMemoryConfig:
    """What the process that remembers runs with.

    model, device, dtype, fps, max_new_tokens: as an engine's; fps: pictures a second that are remembered of a camera.
    at: by camera, a directory where its session outlives the process.
    max_questions: that wait for their answers at once; one more is refused.
    niceness: how far behind the feed it stands when both want a core: 0, alike, to 19.
    num_threads: that its model may use; 0: as many as torch takes by itself. One, where there are two cores, leaves the
        other to the feed.
    """

    model: str = "millpond/mini"
    device: str = "auto"
    dtype: str = "auto"
    fps: float = 1.0
    max_new_tokens: int = 64
    at: Mapping[str, str | Path] = field(default_factory=dict)
    max_questions: int = 64
    niceness: int = 10
    num_threads: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.niceness <= 19:
            raise ValueError(f"niceness goes from 0 to 19; got {self.niceness}")
        if self.num_threads < 0:
            raise ValueError(f"num_threads is 1 or more, or 0 for torch's own choice; got {self.num_threads}")
        if self.max_questions < 1:
            raise ValueError(f"max_questions is how many may wait at once, 1 or more; got {self.max_questions}")

    def message(self, camera_ids: Sequence[str]) -> dict[str, Any]:
        """The first line that the process reads."""
        given = asdict(self)
        engine = {name: given[name] for name in ("model", "device", "dtype", "fps", "max_new_tokens")}
        at = {camera_id: str(path) for camera_id, path in self.at.items()}
        rest = {"niceness": self.niceness, "num_threads": self.num_threads}
        return {"engine": engine, "cameras": list(camera_ids), "at": at, **rest}


class TooManyQuestions(ValueError):
    """As many questions as may wait for their answers do."""


class ProcessMemory(RobotMemory):
    """Sessions in a process of its own, with a model of its own, behind the feed wherever both want a core.

        feed ──offer──▶ [newest of each camera] ──sender──▶ pipe ──▶ process: Hub, sessions
             ──ask────▶ [questions]             ──thread──▶      ◀── answers ──reader thread──▶ futures

    The pipe may be full and the process busy: then the sender waits, and newer pictures replace those that wait; a
    question beyond `max_questions` fails with TooManyQuestions. Where the process ends, questions fail with HubStopped,
    `problem` says why, and the feed goes on.
    """

    def __init__(self, config: ProcessMemoryConfig | None = None) -> None:
        self._config = config or ProcessMemoryConfig()
        self._process: subprocess.Popen[bytes] | None = None
        self._changed = threading.Condition()
        self._pictures: dict[str, Frame] = {}
        self._last_s: dict[str, float] = {}
        self._gaps = GapsTold()
        self._questions: deque[dict[str, Any]] = deque()
        self._futures: dict[int, Future[Answer]] = {}
        self._num_asked = 0
        self._num_taken = 0
        self._is_ready = False
        self._problem: str | None = None
        self._is_closed = False
        self._threads: list[threading.Thread] = []

    def open(self, camera_ids: Sequence[str]) -> None:
        """Starts the process, and does not wait for it: it loads its model meanwhile."""
        if self._process is not None:
            raise ValueError(f"this memory remembers already; got {', '.join(camera_ids)}; make another for them")
        command = [sys.executable, "-m", f"{__package__}.memory_child"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        source, out = self._process.stdout, self._process.stdin
        assert source is not None and out is not None
        first = self._config.message(camera_ids)
        self._threads = [
            threading.Thread(target=self._send, args=(out, first), name="millpond memory sender", daemon=True),
            threading.Thread(target=self._hear, args=(source,), name="millpond memory reader", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Waits until its model is loaded. Raises TimeoutError, or HubStopped where it will never be."""
        with self._changed:
            there = self._changed.wait_for(lambda: self._is_ready or self._problem is not None, timeout_s)
        if self._problem is not None:
            raise HubStopped(self._problem)
        if not there:
            raise TimeoutError(f"the memory's process was not ready in {timeout_s:g} s")

    def offer(self, picture: Picture) -> None:
        # A tenth sooner than due: which frames are, the process decides, on the same times.
        due_s = self._last_s.get(picture.camera_id, -float("inf")) + 0.9 / self._config.fps
        if picture.pts_s < due_s or self._problem is not None or not self._is_ready:
            return
        self._last_s[picture.camera_id] = picture.pts_s
        frame = remembered(picture, self._gaps.tell(picture))
        with self._changed:
            overtaken = self._pictures.get(picture.camera_id)
            self._pictures[picture.camera_id] = frame if overtaken is None else carry_gap(overtaken, frame)
            self._changed.notify_all()

    def ask(self, camera_id: str, question: Question) -> Future[Answer]:
        future: Future[Answer] = Future()
        with self._changed:
            if self._process is None or self._is_closed or self._problem is not None:
                future.set_exception(HubStopped(self._problem or "the memory is not open; start the feed"))
                return future
            if len(self._futures) >= self._config.max_questions:
                future.set_exception(
                    TooManyQuestions(
                        f"{len(self._futures)} questions wait for their answers, which is as many as may; "
                        f"got {question.text[:80]!r}; ask again once one is answered"
                    )
                )
                return future
            self._num_asked += 1
            self._futures[self._num_asked] = future
            self._questions.append(question_message(self._num_asked, camera_id, question))
            self._changed.notify_all()
        return future

    @property
    def num_taken(self) -> int:
        return self._num_taken

    @property
    def num_threads(self) -> int:
        return self._config.num_threads

    @property
    def problem(self) -> str | None:
        return self._problem

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        process = self._process
        if process is None:
            return
        if not self._is_ready:
            process.terminate()  # it loads its model, and would notice only afterwards
        try:
            process.wait(_CLOSE_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for thread in self._threads:
            thread.join(2.0)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    # The sender's thread.

    def _send(self, out: IO[bytes], first: dict[str, Any]) -> None:
        try:
            write_line(out, first)
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._is_closed or self._pictures or self._questions)
                    if self._is_closed:
                        break
                    # Pictures first: whoever asks asks about what was shown before.
                    frames, self._pictures = list(self._pictures.values()), {}
                    questions = [self._questions.popleft() for _ in range(len(self._questions))]
                for frame in frames:
                    write_line(out, frame_message(frame), frame.rgb_HW3.tobytes())
                    self._num_taken += 1
                for question in questions:
                    write_line(out, question)
        except (OSError, ValueError, TypeError) as error:
            self._end(f"the memory's process takes nothing any more: {error}")
        finally:
            with suppress(OSError):
                out.close()

    # The reader's thread.

    def _hear(self, source: IO[bytes]) -> None:
        told = "the memory's process ended"
        try:
            for line in source:
                message = json.loads(line)
                if "ready" in message:
                    with self._changed:
                        self._is_ready = True
                        self._changed.notify_all()
                elif "failed" in message:
                    told = redact(f"the memory's process did not start: {message['failed']}")
                else:
                    self._answered(message)
        except (OSError, ValueError, KeyError, TypeError) as error:
            told = f"the memory's process cannot be understood: {error}"
        self._end(told)

    def _answered(self, message: dict[str, Any]) -> None:
        answer: Answer | None = None
        error: Exception | None = None
        if "answer" in message:
            answer = read_answer(message["answer"])
        else:
            kinds = {"HubStopped": HubStopped, "NothingRemembered": NothingRemembered}
            error = kinds.get(message["kind"], ValueError)(message["error"])
        with self._changed:  # only what was understood is no longer waited for
            future = self._futures.pop(int(message["answered"]), None)
        if future is None or not future.set_running_or_notify_cancel():
            return
        if answer is not None:
            future.set_result(answer)
        else:
            future.set_exception(error)

    def _end(self, problem: str) -> None:
        """No more is remembered or answered."""
        with self._changed:
            is_news = self._problem is None and not self._is_closed
            self._problem = self._problem or problem
            left, self._futures = list(self._futures.values()), {}
            self._changed.notify_all()
        if is_news:
            _log.warning("%s; the robot feed goes on without it", problem)
        for future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(HubStopped(problem))

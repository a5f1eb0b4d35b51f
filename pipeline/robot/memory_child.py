"""The process that remembers for a robot feed: pictures and questions in, answers out, with a model of its own.

Started as `python -m millpond.pipeline.robot.memory_child`; ends when its input does.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from concurrent.futures import Future
from typing import IO, Any

from ...stream import RateSampler
from ..answer import Answer
from ..config import EngineConfig
from ..engine import Engine
from ..hub import Hub
from ..question import Question
from .memory import OfferedFeed
from .memory_words import answer_message, read_frame, write_line

_log = logging.getLogger(__name__)


class _Child:
    """The hub of this process, and the one line out that all its threads write to."""

    def __init__(self, settings: dict[str, Any], out: IO[bytes]) -> None:
        self._out = out
        self._writing = threading.Lock()
        config = EngineConfig(**settings["engine"])
        self._engine = Engine(config)
        self._hub = Hub(self._engine).start()
        sampler = RateSampler(config.fps)
        self._feeds = {camera_id: OfferedFeed(camera_id, sampler) for camera_id in settings["cameras"]}
        for feed in self._feeds.values():
            self._hub.add(feed, narrate=False, at=settings["at"].get(feed.stream_id)).result()
        self.tell({"ready": True})

    def tell(self, message: dict[str, Any]) -> None:
        with self._writing:
            write_line(self._out, message)

    def serve(self, source: IO[bytes]) -> None:
        for line in source:
            message = json.loads(line)
            if "picture" in message:
                frame = read_frame(message, source)
                self._feeds[frame.stream_id].offer(frame)
            else:
                number = message["ask"]
                future = self._hub.ask(message["camera"], Question(**message["question"]))
                future.add_done_callback(lambda done, number=number: self._answered(number, done))  # type: ignore[misc]

    def _answered(self, number: int, done: Future[Answer]) -> None:
        error = done.exception()
        try:
            if error is None:
                self.tell(answer_message(number, done.result()))
            else:
                self.tell({"answered": number, "kind": type(error).__name__, "error": str(error)})
        except OSError:
            _log.debug("nobody is left to hear an answer")

    def close(self) -> None:
        self._hub.close()
        self._engine.close()


def _out_alone() -> IO[bytes]:
    """Where the answers go, which from now on nobody else writes to: whatever a library prints, from Python or from C,
    goes where errors go."""
    sys.stdout.flush()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return out


def main() -> int:
    """Reads its settings from the first line, and serves until its input ends."""
    source, out = sys.stdin.buffer, _out_alone()
    # Who stops the robot's program by hand stops this one too, by the end of its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = json.loads(source.readline())
    if settings["niceness"] and hasattr(os, "nice"):
        os.nice(settings["niceness"])
    if settings["num_threads"]:
        import torch

        torch.set_num_threads(settings["num_threads"])
    try:
        child = _Child(settings, out)
    except Exception as error:  # noqa: BLE001 - whatever keeps it from starting is told to the one who waits
        write_line(out, {"failed": " ".join(str(error).split())[:500] or type(error).__name__})
        return 1
    try:
        child.serve(source)
    except EOFError as error:
        _log.debug("%s", error)
    finally:
        child.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

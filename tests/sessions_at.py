"""Small sessions that outlive their process, for tests of what may go wrong with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from millpond.pipeline import Answer, EngineConfig, Session
from millpond.stream import Frame

from .ingesting import config

FIRST, COUNT = "What appeared first?", "How many objects have appeared?"
WAIT_S = 20.0


def settings(*, memory: dict[str, Any] | None = None, **history: Any) -> EngineConfig:
    """Those of `ingesting`, with some of the memory's and the history's own."""
    base = config()
    assert base.memory is not None
    return replace(
        base,
        memory=replace(base.memory, **(memory or {})),
        history=replace(base.history, **{"flush_every_s": 0.05, **history}),
    )


def push(session: Session, frames: Sequence[Frame]) -> None:
    for frame in frames:
        session.push(frame)


def until(holds: Callable[[], bool], what: str) -> None:
    """Waits until it holds; fails where that takes too long."""
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


def at_rest(session: Session) -> None:
    """Waits until all that the session knows is written."""
    session.flush()
    until(lambda: _stats(session).num_waiting == 0, f"{_stats(session)} after {WAIT_S} s")


def _stats(session: Session) -> Any:
    stats = session.history.writer_stats
    assert stats is not None
    return stats


def told(answer: Answer) -> tuple[str, tuple[Any, ...]]:
    return answer.text, answer.used


def check(session: Session) -> None:
    """All books balance."""
    session.memory.check()
    session.history.archive.check()
    session.history.log.check()

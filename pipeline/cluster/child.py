"""Child: one actor as its supervisor knows it, and what it last said."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ...stream import redact
from .names import is_worker
from .reconcile import WorkerSight
from .restarts import RestartLimit
from .source_host import SourceReport
from .worker_host import WorkerReport


@dataclass(eq=False, slots=True)
class Child:
    """Made by a Supervisor, and changed by its thread alone.

    handle: None while there is no such actor.
    was_found: it ran when the supervisor was started, so it may carry anything.
    asked: the call for a report that is open, since asked_at_s.
    report: the newest; None before the first.
    near: the machine that it was to be started on.
    adding, removing: calls of a worker that are open, by stream.
    """

    name: str
    limit: RestartLimit
    handle: Any = None
    was_found: bool = False
    asked: Any = None
    asked_at_s: float = 0.0
    report: SourceReport | WorkerReport | None = None
    near: str | None = None
    problem: str = ""
    num_starts: int = 0
    adding: dict[str, Any] = field(default_factory=dict)
    removing: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        if isinstance(self.report, WorkerReport) and self.report.problem:
            return "hopeless"
        if self.report is not None:
            return "running"
        return "dead" if self.handle is None else "starting"

    @property
    def streams(self) -> frozenset[str]:
        """What a worker carries, as far as is known."""
        return frozenset(self.report.streams) if isinstance(self.report, WorkerReport) else frozenset()

    @property
    def node_id(self) -> str | None:
        """The machine that a worker is on, or is to be."""
        return self.report.node_id if isinstance(self.report, WorkerReport) else self.near

    def sight(self, is_gathering: bool) -> WorkerSight | None:
        """A worker, as it counts for `next_steps`; None where it does not: it has nothing, or never will.

        is_gathering: whether those that are starting for the first time are waited for.
        """
        if not is_worker(self.name):
            return None
        if self.state == "running":
            return WorkerSight(self.streams, frozenset(self.adding))
        # One that was found may carry anything, and has not said yet.
        is_awaited = self.was_found or (is_gathering and self.num_starts == 1)
        return WorkerSight(None) if self.state == "starting" and is_awaited else None

    def carries(self, stream_id: str, *, carries: bool) -> None:
        """It has opened a stream, or let it go. A report that was asked for before may not know, and is not heard."""
        if isinstance(self.report, WorkerReport):
            streams = {name: state for name, state in self.report.streams.items() if name != stream_id}
            self.report = replace(self.report, streams=streams | ({stream_id: "open"} if carries else {}))
            self.asked = None

    def is_gone(self) -> None:
        """The actor is dead; nothing that it had is there."""
        self.handle = self.asked = self.report = self.near = None
        self.was_found = False
        self.adding.clear()
        self.removing.clear()


def last_line(error: Exception) -> str:
    """What an error of Ray's says, without its pages of traceback, and without secrets."""
    cause = getattr(error, "cause", None)
    text = redact(str(cause if isinstance(cause, Exception) else error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]

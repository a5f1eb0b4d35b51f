"""Progress: what a run tells while it works, and bars of it on a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..bars import TerminalBars
from ..output import clock

_MAX_BARS = 8  # videos that are shown at a time


@dataclass(frozen=True, slots=True)
class Looked:
    """So many of the files were looked at, to find out what they are."""

    num_looked: int
    num_files: int


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be done. num_same: files that are others again; num_chunks_kept: done by an earlier run."""

    num_videos: int
    num_broken: int
    num_same: int
    length_s: float
    num_chunks: int
    num_chunks_kept: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """How far one video is."""

    content: str
    name: str
    done_s: float
    length_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more happens to one video. record: as the manifest has it; is_old: done by an earlier run."""

    content: str | None
    record: dict[str, Any]
    is_old: bool = False


Event = Looked | Planned | Advanced | Ended


class Bars(TerminalBars):
    """Bars on stderr, over videos and over time within those that are worked on; nothing where it is no terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[str, Any] = {}
        self._whole: Any = None
        if self._bars is not None:
            self._whole = self._bars.add_task("looking", total=None, at="")

    def show(self, event: Event) -> None:
        """Takes an event of the run, from any thread."""
        if self._bars is None:
            return
        if isinstance(event, Looked):
            at = f"{event.num_looked} of {event.num_files} files"
            self._bars.update(self._whole, total=event.num_files, completed=event.num_looked, at=at)
        elif isinstance(event, Planned):
            self._num_ended, self._num_videos = 0, event.num_videos
            self._bars.reset(self._whole, total=event.num_videos, description="videos", at=f"0 of {event.num_videos}")
        elif isinstance(event, Advanced):
            self._advance(event)
        elif event.content is not None:
            self._num_ended += 1
            at = f"{self._num_ended} of {self._num_videos}"
            self._bars.update(self._whole, completed=self._num_ended, at=at)
            task = self._tasks.pop(event.content, None)
            if task is not None:
                self._bars.remove_task(task)

    def _advance(self, event: Advanced) -> None:
        if event.content not in self._tasks:
            if len(self._tasks) >= _MAX_BARS:
                return
            self._tasks[event.content] = self._bars.add_task(event.name[:40], total=event.length_s or None, at="")
        at = f"{clock(event.done_s)} of {clock(event.length_s)}"
        self._bars.update(self._tasks[event.content], completed=event.done_s, at=at)

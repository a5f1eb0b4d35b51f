"""Progress: what a run tells while it works, and bars of it on a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from ..bars import TerminalBars
from ..output import clock
from .record import Answered


@dataclass(frozen=True, slots=True)
class Began:
    """A method's turn. num_items: of the suite; num_kept: answered by an earlier run."""

    method: str
    num_items: int
    num_kept: int


@dataclass(frozen=True, slots=True)
class Watched:
    """How far the video at hand is; length_s None where nobody knows."""

    method: str
    video: str
    pts_s: float
    length_s: float | None


@dataclass(frozen=True, slots=True)
class Gave:
    """An answer was given, and is kept."""

    method: str
    answered: Answered


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Items of one video that are not scored, and why. is_missing: the video is not there; else it is broken, or
    shows nothing where they ask."""

    video: str
    reason: str
    num_items: int
    is_missing: bool


Event = Began | Watched | Gave | LeftOut


class Bars(TerminalBars):
    """Bars on stderr, over the questions of the method at hand and over the time of its video; nothing where that is no
    terminal."""

    def __init__(self) -> None:
        super().__init__(shows_left=True)
        if self._bars is not None:
            self._questions = self._bars.add_task("questions", total=None, at="")
            self._video = self._bars.add_task("", total=None, at="", visible=False)

    def show(self, event: Event) -> None:
        """Takes an event of the run."""
        if self._bars is None:
            return
        if isinstance(event, Began):
            self._num_right, self._num_given = 0.0, 0
            self._bars.reset(
                self._questions, total=event.num_items, completed=event.num_kept, description=event.method, at=""
            )
        elif isinstance(event, Watched):
            at = clock(event.pts_s) + (f" of {clock(event.length_s)}" if event.length_s else "")
            name = event.video[-40:]
            self._bars.update(
                self._video, description=name, total=event.length_s, completed=event.pts_s, at=at, visible=True
            )
        elif isinstance(event, Gave):
            self._num_given += 1
            self._num_right += event.answered.score
            at = f"{self._num_right / self._num_given:.0%} right of {self._num_given}"
            self._bars.update(self._questions, advance=1, at=at)
        else:
            self._bars.update(self._questions, advance=event.num_items)

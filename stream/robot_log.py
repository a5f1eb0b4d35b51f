"""Robot logs: recorded pictures, each with what the robot's joints told and were told at its time."""

from __future__ import annotations

import math
from abc import ABC
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

import numpy as np

from .frame import Frame
from .source import Source, SourceError

# Shapes: D numbers that the robot tells at one moment.

MAX_NUMBERS = 4096
"""A row of more is no robot's: a hand has a hundred at most."""


@dataclass(frozen=True, slots=True, eq=False)
class RobotRow:
    """What a robot told at one moment: where its joints are, or where they are to go.

    Made by a RobotLogSource, read by whoever learns from or checks against it, written by nobody.

    values_D: float64, in the log's own units (radians, metres); what a joint does not tell is NaN.
    names: of each number; as many.
    pts_s: when it was told, on the clock of the frames. The row of a frame is never later than the frame, and may be
        much earlier: see `age_s`.
    """

    values_D: np.ndarray
    names: tuple[str, ...]
    pts_s: float

    def __post_init__(self) -> None:
        values = self.values_D
        if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype != np.float64:
            got = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
            raise ValueError(f"a row is a float64 array of one axis; got {got}")
        if not 1 <= len(values) <= MAX_NUMBERS:
            raise ValueError(f"a row has 1 to {MAX_NUMBERS} numbers; got {len(values)}")
        if len(self.names) != len(values):
            raise ValueError(f"a row needs a name for each of its {len(values)} numbers; got {len(self.names)}")
        if not math.isfinite(self.pts_s):
            raise ValueError(f"a row needs a finite time in seconds; got pts_s={self.pts_s}")
        if values.flags.writeable:
            view = values.view()
            view.flags.writeable = False
            object.__setattr__(self, "values_D", view)

    def age_s(self, at_s: float) -> float:
        """How long before that moment it was told."""
        return at_s - self.pts_s

    def __repr__(self) -> str:
        return f"RobotRow({len(self.values_D)} numbers at {self.pts_s:.3f} s)"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RobotFrame(Frame):
    """A frame of a robot's log, with the last rows told at or before its time; nothing is interpolated.

    Made by a RobotLogSource, read like any frame.

    state: where the robot was; None where nothing was told yet, or nothing since the log was damaged.
    action: what it was told to do; None likewise, and where the log has none.
    """

    state: RobotRow | None = None
    action: RobotRow | None = None

    def __post_init__(self) -> None:
        Frame.__post_init__(self)
        for name, row in (("state", self.state), ("action", self.action)):
            if row is not None and not isinstance(row, RobotRow):
                raise ValueError(f"{name} is a RobotRow or None; got {type(row).__name__}")


class RobotLogSource(Source, ABC):
    """A recorded run of a robot: one camera's pictures as RobotFrames. What MCAP files and LeRobot datasets share.

    state_names, action_names: of the numbers in the rows, where they are known before reading; else empty.
    """

    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()


class RowTimeline:
    """Rows of one kind in order of time, all in memory; tells the last at or before a moment.

    times_s: never decreasing.
    values_ND: float64, a row for each time.
    """

    def __init__(self, times_s: Sequence[float], values_ND: np.ndarray, names: Sequence[str]) -> None:
        self._times_s = list(times_s)
        if values_ND.ndim != 2 or len(values_ND) != len(self._times_s):
            raise ValueError(f"{len(self._times_s)} times need as many rows; got an array of shape {values_ND.shape}")
        if any(later < earlier for earlier, later in zip(self._times_s, self._times_s[1:], strict=False)):
            raise ValueError("the times of rows must not decrease; sort them first")
        self._values_ND = values_ND.astype(np.float64)
        self.names = tuple(names)

    def at(self, pts_s: float, slack_s: float = 0.0) -> RobotRow | None:
        """The last row at or before that moment; None where there is none.

        slack_s: a row later by so little counts as of that moment: two clocks round differently.
        """
        place = bisect_right(self._times_s, pts_s + slack_s) - 1
        if place < 0:
            return None
        return RobotRow(self._values_ND[place], self.names, min(self._times_s[place], pts_s))

    def __len__(self) -> int:
        return len(self._times_s)


class LogAddress(NamedTuple):
    """Where a log is, and what is wanted of it."""

    path: Path
    settings: dict[str, str]


def log_address(uri: str, scheme: str, known: Mapping[str, str]) -> LogAddress:
    """Takes `scheme://path?name=value` apart; a plain path has no settings.

    known: the settings that there are, each with what it is.
    """
    prefix = f"{scheme}://"
    if not uri.lower().startswith(prefix):
        return LogAddress(Path(uri).expanduser(), {})
    place, _, query = uri[len(prefix) :].partition("?")
    if not place:
        raise SourceError(f"{uri} names no place; write {prefix}path?{next(iter(known))}=...")
    settings: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            listed = ", ".join(f"{name} ({about})" for name, about in known.items())
            raise SourceError(f"{prefix} has no setting {name!r}; it has: {listed}")
        if name in settings:
            raise SourceError(f"{prefix} takes one {name}; got {settings[name]!r} and {value!r}")
        settings[name] = value
    return LogAddress(Path(unquote(place)).expanduser(), settings)

"""SessionClock: one session's time, which goes on where an earlier session of the stream left it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..stream import Frame
from .history import Known

# What lies between two sessions of a stream is believed up to a year: more is a clock that was set wrong.
_MAX_AWAY_S = 366 * 86400.0


class SessionClock:
    """Places frames in stream time, and remembers from when to when there were any.

    A source's clock starts anew with the source. The first frame after an earlier session comes after the last one of
    that: by as much as passed on the wall, where both frames know the time of their capture, with the time between as
    its gap; else one frame period later.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.num_frames = 0
        self._last_wall_s: float | None = None
        self._must_align = False
        self._offset_s = 0.0

    def resume(self, known: Known) -> None:
        """Goes on from what an earlier session knew."""
        self.first_s, self.last_s, self.num_frames, self._last_wall_s = known
        self._must_align = self.last_s is not None

    def place(self, frame: Frame) -> Frame:
        """The frame in stream time, counted. ValueError for one that comes before the last."""
        if self._must_align:
            frame = self._aligned(frame)
        elif self._offset_s:
            frame = replace(frame, pts_s=frame.pts_s + self._offset_s)
        if self.last_s is not None and frame.pts_s < self.last_s:
            raise ValueError(
                f"frames must come in order of time; got {frame!r} after one at {self.last_s:.3f} s; "
                "sort them, or start another session"
            )
        self._must_align = False
        if self.first_s is None:
            self.first_s = frame.pts_s
        self.last_s, self._last_wall_s = frame.pts_s, frame.wall_s
        self.num_frames += 1
        return frame

    @property
    def state(self) -> dict[str, Any]:
        """What `resume` wants to know later."""
        return {
            "seen_from_s": self.first_s,
            "seen_until_s": self.last_s,
            "wall_until_s": self._last_wall_s,
            "num_frames": self.num_frames,
        }

    def _aligned(self, frame: Frame) -> Frame:
        assert self.last_s is not None
        away_s = 0.0
        if frame.wall_s is not None and self._last_wall_s is not None:
            away_s = frame.wall_s - self._last_wall_s
        if self._period_s < away_s < _MAX_AWAY_S:
            self._offset_s = self.last_s + away_s - frame.pts_s
            return replace(frame, pts_s=self.last_s + away_s, gap_s=away_s)
        if frame.pts_s <= self.last_s:
            self._offset_s = self.last_s + self._period_s - frame.pts_s
        return replace(frame, pts_s=frame.pts_s + self._offset_s)

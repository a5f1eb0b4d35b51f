"""LiveClock: stream time over all connections of a live source, and the wall-clock time that its sender tells."""

from __future__ import annotations

import logging
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, NamedTuple

from .clock import StreamClock

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

_log = logging.getLogger(__name__)

WallClock = Literal["server", "arrival"]

# A picture that claims to be so much later than the one before than it came later is a clock that was set.
_MAX_JUMP_S = 10.0

# Seconds per second: more than two clocks drift apart, and little beside the time that a late picture is late.
_DRIFT = 1e-3


class LivePlaced(NamedTuple):
    """A picture's place in time. `is_own`: the time is the stream's own; `gap_s`: nothing could be seen for so long
    before it, 0 where nothing is missing."""

    pts_s: float
    is_own: bool
    gap_s: float


class LiveClock:
    """Goes by the sender's clock while a connection stands, and by this machine's from one to the next; never runs
    backwards. Not thread-safe: one per source.

    gap_after_s: two pictures of one connection that are further apart have a gap between them; two of different
        connections always have.
    """

    def __init__(self, gap_after_s: float) -> None:
        self._gap_after_s = gap_after_s
        self._clock: StreamClock | None = None
        self._offset_s = 0.0
        self._is_first = True  # of its connection
        self._last_s: float | None = None  # stream time of the newest picture
        self._last_at_s = 0.0  # and when it was placed
        self._lead_s = 0.0  # what stream time is ahead of this machine's clock, by the pictures that came soonest

    def connect(self, time_base: Fraction, step_ticks: int, began_at_s: float) -> None:
        """A connection begins. What it sends first was taken when it began to be made: FFmpeg reads a while to learn
        what comes, and then gives it in a burst."""
        self._clock = StreamClock(time_base, None, step_ticks)
        self._is_first = True
        if self._last_s is not None:
            self._offset_s = max(self._last_s, began_at_s + self._lead_s)

    def place(self, ticks: int | None, duration_ticks: int | None, now_s: float) -> LivePlaced:
        """The time of the next picture of the connection, which came at `now_s`, seconds that only grow."""
        if self._clock is None:
            raise RuntimeError("place() before connect()")
        placed = self._clock.place(ticks, duration_ticks)
        pts_s, is_own, gap_s = self._offset_s + placed.pts_s, placed.is_own, 0.0
        if self._last_s is not None:
            passed_s = max(0.0, now_s - self._last_at_s)
            step_s = pts_s - self._last_s
            if not self._is_first and (step_s - passed_s > _MAX_JUMP_S or (placed.is_anew and step_s < passed_s)):
                pts_s, is_own = self._last_s + passed_s, False
                self._offset_s += passed_s - step_s
            step_s = pts_s - self._last_s
            gap_s = step_s if self._is_first or step_s > self._gap_after_s else 0.0
        # The last picture of a connection is often late: FFmpeg has held it until it was sure that no more comes.
        lead_s = pts_s - now_s
        if self._last_s is not None:
            lead_s = max(lead_s, self._lead_s - _DRIFT * (now_s - self._last_at_s))
        self._is_first = False
        self._last_s, self._last_at_s, self._lead_s = pts_s, now_s, lead_s
        return LivePlaced(pts_s, is_own, gap_s)


# A sender whose clock is further from ours was never set: cameras wake up in 1970, or in 2000.
MAX_WALL_ERROR_S = 86_400.0
_NTP_EPOCH_S = 2_208_988_800  # from 1900 to 1970
_REPORT = struct.Struct("@IQI")  # as FFmpeg lays out the head of an RTCP sender report: ssrc, NTP time, RTP time


class SenderClock:
    """The wall-clock time of a connection's pictures, from the RTCP sender reports of an RTSP server, which tie one of
    its timestamps to its own clock every few seconds: drift and a clock set late are followed.

    Not thread-safe: one per connection.
    """

    def __init__(self, container: InputContainer, time_base: Fraction, shown: str) -> None:
        self._container, self._time_base, self._shown = container, time_base, shown
        self._anchor: tuple[int, float] | None = None  # ticks of the pictures, and the wall-clock time there
        self._rtp_ticks: int | None = None  # of the report before
        self._has_told = False
        self._has_reports = _av_gives_reports()

    def note(self, packet: av.Packet) -> None:
        """Takes in what came with a packet."""
        if self._has_reports and packet.has_sidedata("rtcp_sr"):
            report = bytes(packet.get_sidedata("rtcp_sr"))
            if len(report) >= _REPORT.size:
                _, ntp, rtp_ticks = _REPORT.unpack_from(report)
                self._take(ntp / 2**32 - _NTP_EPOCH_S, rtp_ticks)
        elif self._anchor is None and (start_us := self._start_us()) is not None:
            self._anchor = (0, start_us / 1e6)

    def _start_us(self) -> int | None:
        """When tick 0 was, by the first report."""
        return getattr(self._container, "start_time_realtime", None)

    def _take(self, wall_s: float, rtp_ticks: int) -> None:
        """A report. FFmpeg says when its tick 0 was by the first one; those that follow count on from it."""
        if self._rtp_ticks is None or self._anchor is None:
            start_us = self._start_us()
            if start_us is None:
                return
            self._anchor = (round(Fraction(wall_s - start_us / 1e6) / self._time_base), wall_s)
        else:
            step = (rtp_ticks - self._rtp_ticks + 2**31) % 2**32 - 2**31  # 32 bits that wrap
            self._anchor = (self._anchor[0] + step, wall_s)
        self._rtp_ticks = rtp_ticks

    def wall_s(self, ticks: int | None, arrived_s: float) -> float | None:
        """When the picture was taken by the sender's clock; None where that is not told, or not to be believed."""
        if self._anchor is None or ticks is None:
            return None
        wall_s = self._anchor[1] + float((ticks - self._anchor[0]) * self._time_base)
        if abs(wall_s - arrived_s) <= MAX_WALL_ERROR_S:
            return wall_s
        if not self._has_told:
            self._has_told = True
            _log.info("the clock of %s is %.0f s off; times of arrival are taken", self._shown, wall_s - arrived_s)
        return None


def _av_gives_reports() -> bool:
    """Whether this PyAV hands out each report; older ones tell of the first alone."""
    from typing import get_args

    from av import packet

    return "rtcp_sr" in get_args(getattr(packet, "PktSideDataT", None))

"""Connection: one connection to a live peer, from FFmpeg's container to pictures in their places."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from .decoding import DamageGuard, first_video
from .live_clock import LiveClock, SenderClock, WallClock
from .lost_pictures import LostPictures
from .source import SourceError, SourceStalled
from .stats import SourceStats

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

    from .address import Address


class Arrival(NamedTuple):
    """A decoded picture on its way from the reader thread; converted only if somebody takes it.

    wall_s: when it was taken or came. arrived_at_s: seconds that only grow. gap_s: the gaps of the whole stream up
    to here, so that none is lost with a picture that nobody takes.
    """

    picture: av.VideoFrame
    pts_s: float
    index: int
    wall_s: float
    arrived_at_s: float
    gap_s: float


class Limits(NamedTuple):
    """What a connection is held to: pixels of a picture, and seconds that damage may keep pictures back."""

    max_pixels: int
    max_skip_s: float


class Connection:
    """One connection: `pictures()` until it ends. Used by one thread; `close()` it there too.

    began_at_s: when it began to be made, in seconds that only grow.
    """

    def __init__(self, where: Address, container: InputContainer, limits: Limits, began_at_s: float) -> None:
        self._where, self._container, self._limits = where, container, limits
        self._began_at_s = began_at_s
        self.num_pictures = 0
        self.last_read_at_s = time.monotonic()
        self.wall_clock: WallClock = "arrival"
        is_web = where.scheme in ("http", "https")
        self.duration_s = _length_of(container) if is_web else None
        self.is_live = not (is_web and (self.duration_s is not None or _is_whole(container)))

    def pictures(
        self, clock: LiveClock, stats: SourceStats, first_index: int, closed: threading.Event
    ) -> Iterator[Arrival]:
        """The pictures. The time goes on from where the connection before left it.

        Raises:
            SourceLost: the peer sends, but no video for the read timeout, or none that decodes.
            SourceError: its pictures are too large.
            av.FFmpegError: whatever FFmpeg ends the connection with.
        """
        video = first_video(self._container)
        if video is None:
            raise SourceError(f"{self._where.shown} sends no video")
        if self.is_live:
            # Threads over frames would hold each picture back by as many frames, and threads over slices switch off
            # what notices that some are missing.
            video.codec_context.thread_count = 1
        else:
            video.thread_type = "AUTO"
        time_base = video.time_base or Fraction(1, 90000)
        rate_hz = video.average_rate or video.guessed_rate or Fraction(25)
        clock.connect(time_base, round(1 / (rate_hz * time_base)), self._began_at_s)
        sender = SenderClock(self._container, time_base, self._where.shown)
        is_hls = self._container.format.name == "hls"
        guard = DamageGuard(
            stats,
            self._limits.max_skip_s if self.is_live else 0.0,
            believes_marks=not is_hls,
        )
        lost = LostPictures(video.codec_context.name if self.is_live else "", video.codec_context.extradata)
        pace = _Pace(closed) if self.is_live and is_hls else None
        silence = _Silence(self._where.read_timeout_s, self._limits.max_skip_s)
        for packet in self._container.demux():  # of all streams: sound alone is silence too
            if closed.is_set():
                return
            if packet.stream_index != video.index:
                self._check_silence(silence)
                continue
            sender.note(packet)
            silence.packet()
            for picture in guard.decode(packet, time.monotonic(), is_after_loss=lost.notice(packet)):
                self._check_size(picture)
                if pace is not None and picture.pts is not None:
                    pace.wait(float(picture.pts * time_base))
                now_s, arrived_s = time.monotonic(), time.time()
                placed = clock.place(picture.pts, picture.duration, now_s)
                told_s = sender.wall_s(picture.pts, arrived_s)
                self.wall_clock = "arrival" if told_s is None else "server"
                stats.num_frames += 1
                stats.num_retimed += not placed.is_own
                stats.num_gaps += placed.gap_s > 0
                stats.gap_s += placed.gap_s
                index = first_index + self.num_pictures
                self.num_pictures += 1
                wall_s = arrived_s if told_s is None else told_s
                yield Arrival(picture, placed.pts_s, index, wall_s, now_s, stats.gap_s)
                silence.picture()  # after the yield: time that a blocking buffer took is not the peer's
            self._check_silence(silence)

    def _check_silence(self, silence: _Silence) -> None:
        self.last_read_at_s = time.monotonic()
        if silence.is_too_long:
            raise SourceStalled(f"{self._where.shown} sends, but no picture came for {silence.lasted_s:.0f} s")

    def close(self) -> None:
        self._container.close()

    def check(self) -> None:
        """Raises SourceError where there is no video that can be read, before any of it is."""
        video = first_video(self._container)
        if video is None:
            raise SourceError(f"{self._where.shown} sends no video")
        if video.codec_context is None:
            raise SourceError(f"{self._where.shown} sends video in a codec that this FFmpeg cannot decode")
        self._check_size(video.codec_context)

    def _check_size(self, what: av.VideoFrame | av.VideoCodecContext) -> None:
        if what.width * what.height > self._limits.max_pixels:
            raise SourceError(
                f"{self._where.shown} sends pictures of {what.width}x{what.height},"
                f" more than max_pixels={self._limits.max_pixels}"
            )


class _Silence:
    """How long a peer has sent no video, or none that decodes; the latter may take as long as the next key frame."""

    def __init__(self, read_timeout_s: float, max_skip_s: float) -> None:
        self._read_timeout_s, self._max_skip_s = read_timeout_s, max_skip_s
        self._packet_at_s = self._picture_at_s = time.monotonic()

    def packet(self) -> None:
        self._packet_at_s = time.monotonic()

    def picture(self) -> None:
        self._packet_at_s = self._picture_at_s = time.monotonic()

    @property
    def lasted_s(self) -> float:
        return time.monotonic() - self._picture_at_s

    @property
    def is_too_long(self) -> bool:
        is_silent = time.monotonic() - self._packet_at_s > self._read_timeout_s
        return is_silent or self.lasted_s > self._read_timeout_s + self._max_skip_s


_MAX_PACE_S = 2.0


class _Pace:
    """HLS comes a segment at a time: handed out as fast as it comes, most of it would be dropped at once. Not faster
    than it was taken, the segments behind the newest are what covers the wait for the next."""

    def __init__(self, closed: threading.Event) -> None:
        self._closed = closed
        self._start_s: float | None = None  # what the clock here says at time 0 of the stream

    def wait(self, pts_s: float) -> None:
        """Until the picture at this time is due."""
        now_s = time.monotonic()
        # Late: the peer was, and what was late is not caught up with. Early: segments were skipped.
        if self._start_s is None or abs(self._start_s + pts_s - now_s) > _MAX_PACE_S:
            self._start_s = now_s - pts_s
        elif (wait_s := self._start_s + pts_s - now_s) > 0:
            self._closed.wait(wait_s)


def _length_of(container: InputContainer) -> float | None:
    return container.duration / 1_000_000 if container.duration and container.duration > 0 else None


def _is_whole(container: InputContainer) -> bool:
    """Whether the server says how many bytes it will send; of HLS it would be those of the playlist."""
    return container.format.name != "hls" and container.size > 0

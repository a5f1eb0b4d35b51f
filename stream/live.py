"""LiveSource: a network stream or a camera, read by its own thread so that nobody holds it up."""

from __future__ import annotations

import time
from collections.abc import Iterator

from .address import Address
from .backoff import Backoff
from .buffer import POLICIES
from .connection import Limits
from .decoding import MAX_PIXELS, to_rgb
from .frame import Frame
from .live_clock import WallClock
from .live_reader import HandOver, LiveReader
from .sampling import EveryFrame, Sampler
from .source import Source, State
from .way import Way

# Shapes: H rows, W columns, 3 colours.


class LiveSource(Source):
    """A camera or a network stream, newest frame first: rtsp://host/path, http://host/live.m3u8, udp://host:port, device://0.

    A thread reads, and hands over through a FrameBuffer. Time starts with the first frame and never runs backwards;
    while the peer is away it goes on by this machine's clock. A peer that closes, or sends nothing for
    `read_timeout_s`, is lost: the first frame after that says in `gap_s` for how long nothing could be seen. A lost
    peer is tried again and again, after waits that double up to `max_reconnect_wait_s` and are cut short by chance;
    what a user has to set right, such as a password, only at that longest wait.

    `wall_s` is the sender's time of capture where `wall_clock` says "server": an RTSP server that reports it, and is
    not a day off; else this machine's time of arrival.

    After damage, frames are held back until the next key frame. HLS, which comes in segments, is handed out as fast
    as it was taken; give it a `read_timeout_s` that is longer than a segment. What comes over http(s) with a known
    length is a recording: it is not live, nothing is dropped, it ends where it ends, and one that is lost is not
    begun again.

    uri: rtsp(s)://, http(s):// (a file, HLS or MPEG-TS), tcp:// or udp:// (MPEG-TS), device://0 or /dev/video0.
    transport: of RTSP's media, "tcp" or "udp".
    open_timeout_s, read_timeout_s: how long the peer may take to answer, and to send the next frame.
    must_answer: whether the first connection must come about at once, or SourceError or SourceLost is raised. Else
        it is tried as a lost peer is, so that one dead camera does not keep others from starting, and `is_live` is
        True until there is a connection.
    reconnects: attempts in a row before a lost peer is given up and iteration raises SourceLost; None: never. With a
        number, what a user has to set right ends it at once.
    reconnect_wait_s, max_reconnect_wait_s: before the first attempt, and at the longest.
    max_skip_s: frames are held back after damage for so long at most.
    policy: what the FrameBuffer does when its user is slow; by default newest_only where live, else block.
    capacity: frames that may wait, unless newest_only.
    max_pixels: a stream of larger pictures is refused.
    way: what FFmpeg gets there by; by default, itself.
    """

    def __init__(
        self,
        uri: str,
        *,
        stream_id: str | None = None,
        transport: str = "tcp",
        open_timeout_s: float = 10.0,
        read_timeout_s: float = 5.0,
        must_answer: bool = True,
        reconnects: int | None = None,
        reconnect_wait_s: float = 1.0,
        max_reconnect_wait_s: float = 30.0,
        max_skip_s: float = 10.0,
        policy: str | None = None,
        capacity: int = 4,
        max_pixels: int = MAX_PIXELS,
        way: Way | None = None,
    ) -> None:
        where = Address(uri, transport, open_timeout_s, read_timeout_s, way)
        super().__init__(uri, stream_id=stream_id or where.name, is_live=True)
        if policy is not None and policy not in POLICIES:
            raise ValueError(f"no buffer policy named {policy!r}; there are: {', '.join(POLICIES)}")
        if reconnects is not None and reconnects < 0:
            raise ValueError(f"reconnects is a number of attempts, or None for no limit; got {reconnects}")
        if not max_skip_s >= 0:
            raise ValueError(f"max_skip_s is 0 or more; got {max_skip_s}")
        self._told_gap_s = 0.0
        self._reader = LiveReader(
            where,
            self.stats,
            limits=Limits(max_pixels, max_skip_s),
            hand_over=HandOver(policy, capacity),
            reconnects=reconnects,
            backoff=Backoff(reconnect_wait_s, max(reconnect_wait_s, max_reconnect_wait_s)),
        )
        if must_answer:
            self._reader.connect()
            self._note_length()
        self._reader.start()

    @property
    def state(self) -> State:
        """ "connecting" until the first picture, "lost" while the peer is away, "ended" once none will come."""
        return self._reader.status.state

    @property
    def problem(self) -> str | None:
        """Why no pictures come, with no credentials in it; None where they do."""
        return self._reader.status.problem

    @property
    def wall_clock(self) -> WallClock:
        """Whose clock gives `wall_s` now: the sender's, or this machine's when a frame arrives."""
        return self._reader.wall_clock

    def __iter__(self) -> Iterator[Frame]:
        return self.sampled(EveryFrame())

    def sampled(self, sampler: Sampler) -> Iterator[Frame]:
        """The frames that are due; the others are never converted to RGB. A gap before one of those is told by the
        next that is due."""
        self.check_open()
        run = sampler.start()
        while (arrival := self._reader.next_arrival()) is not None:
            self._note_length()
            self.stats.num_dropped = self._reader.num_dropped
            self.stats.lag_s = time.monotonic() - arrival.arrived_at_s
            if run.take(arrival.pts_s):
                gap_s, self._told_gap_s = arrival.gap_s - self._told_gap_s, arrival.gap_s
                yield Frame(
                    to_rgb(arrival.picture),
                    arrival.pts_s,
                    self.stream_id,
                    arrival.index,
                    arrival.wall_s,
                    gap_s=max(0.0, gap_s),
                )
            if self.is_closed:
                return

    def close(self) -> None:
        """Ends an iteration under way and the connection. A reader that waits for its peer ends by itself, at
        the latest after a timeout; it is not waited for longer than a second."""
        super().close()
        self._reader.close()

    def _note_length(self) -> None:
        self.duration_s, self.is_live = self._reader.duration_s, self._reader.is_live

"""LiveSource: a network stream or a camera, read by its own thread so that nobody holds it up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from .address import Address
from .buffer import POLICIES, FrameBuffer
from .clock import StreamClock
from .decoding import MAX_PIXELS, decode_packet, first_video, to_rgb
from .frame import Frame
from .sampling import EveryFrame, Sampler
from .source import Source, SourceError, SourceLost

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

_log = logging.getLogger(__name__)

# Shapes: H rows, W columns, 3 colours.


class _Arrival(NamedTuple):
    """A decoded picture on its way from the reader thread; converted only if somebody takes it."""

    picture: av.VideoFrame
    pts_s: float
    index: int
    wall_s: float


class LiveSource(Source):
    """A camera or a network stream, newest frame first: rtsp://host/path, http://host/clip.mp4, device://0.

    Connects at once; a thread reads from then on, and hands over through a FrameBuffer. Time starts with the
    first frame and never runs backwards, `wall_s` is this machine's time of arrival. A peer that closes, or
    sends nothing for `read_timeout_s`, is lost: after `reconnects` vain attempts in a row iteration raises
    SourceLost. What comes over http(s) with a known length is a recording: it is not live, nothing is
    dropped, and it ends where it ends.

    uri: rtsp(s)://, http(s)://, device://0 or /dev/video0.
    transport: of RTSP's media, "tcp" or "udp".
    open_timeout_s, read_timeout_s: how long the peer may take to answer, and to send the next frame.
    reconnects: attempts in a row before a lost peer is given up; `reconnect_wait_s` apart.
    policy: what the FrameBuffer does when its user is slow; by default newest_only where live, else block.
    capacity: frames that may wait, unless newest_only.
    max_pixels: a stream of larger pictures is refused.
    """

    def __init__(
        self,
        uri: str,
        *,
        stream_id: str | None = None,
        transport: str = "tcp",
        open_timeout_s: float = 10.0,
        read_timeout_s: float = 5.0,
        reconnects: int = 0,
        reconnect_wait_s: float = 1.0,
        policy: str | None = None,
        capacity: int = 4,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._where = Address(uri, transport, open_timeout_s, read_timeout_s)
        super().__init__(uri, stream_id=stream_id or self._where.name, is_live=True)
        if policy is not None and policy not in POLICIES:
            raise ValueError(f"no buffer policy named {policy!r}; there are: {', '.join(POLICIES)}")
        if reconnects < 0:
            raise ValueError(f"reconnects is a number of attempts; got {reconnects}")
        self._reconnects, self._reconnect_wait_s = reconnects, reconnect_wait_s
        self._max_pixels = max_pixels
        self._next_index = 0
        self._last_s, self._last_at = 0.0, 0.0  # of the newest picture: stream time, and monotonic time
        self._last_frame_at: float | None = None  # monotonic; None while not connected
        container = self._connect()
        self.duration_s = _length_of(container) if self._where.scheme in ("http", "https") else None
        self.is_live = self.duration_s is None
        self._buffer: FrameBuffer[_Arrival] = FrameBuffer(
            capacity, policy or ("newest_only" if self.is_live else "block")
        )
        # A daemon: a driver that hangs in the kernel must not keep the process from ending.
        self._reader = threading.Thread(
            target=self._read, args=(container,), name=f"millpond {self.stream_id}", daemon=True
        )
        self._reader.start()
        _log.info("connected to %s", self.uri)

    def __iter__(self) -> Iterator[Frame]:
        return self.sampled(EveryFrame())

    def sampled(self, sampler: Sampler) -> Iterator[Frame]:
        """The frames that are due; the others are never converted to RGB."""
        self.check_open()
        run = sampler.start()
        while (arrival := self._next_arrival()) is not None:
            self.stats.num_dropped = self._buffer.num_dropped
            self.stats.lag_s = time.time() - arrival.wall_s
            if run.take(arrival.pts_s):
                rgb_HW3 = to_rgb(arrival.picture)
                yield Frame(rgb_HW3, arrival.pts_s, self.stream_id, arrival.index, arrival.wall_s)
            if self.is_closed:
                return

    def close(self) -> None:
        """Ends an iteration under way and the connection. A reader that waits for its peer ends by itself, at
        the latest after the read timeout; it is not waited for longer than a second."""
        super().close()
        self._buffer.close()
        if threading.current_thread() is not self._reader:
            self._reader.join(1.0)

    def _next_arrival(self) -> _Arrival | None:
        """The next picture, or None at the end. Watches the reader too: some drivers hang where no timeout
        reaches."""
        while True:
            try:
                return self._buffer.get(timeout_s=0.5)
            except TimeoutError:
                since = self._last_frame_at
                if since is not None and time.monotonic() - since > self._where.read_timeout_s + 1.0:
                    break
        raise self._stalled()

    # The reader thread, from here on; only `_connect` is also called by the constructor, before the thread
    # starts.

    def _read(self, container: InputContainer | None) -> None:
        """Reads until closed, until the end of a recording, or until the peer is lost for good."""
        attempts_left = self._reconnects
        problem: Exception | None = None
        while container is not None:
            num_before = self.stats.num_frames
            problem = self._read_connection(container)
            if self.is_closed or problem is None:
                break
            if self.stats.num_frames > num_before:
                attempts_left = self._reconnects
            container = None
            while container is None and attempts_left > 0 and isinstance(problem, SourceLost):
                attempts_left -= 1
                _log.warning("%s; trying again in %.1f s", problem, self._reconnect_wait_s)
                if self._closed.wait(self._reconnect_wait_s):
                    break
                try:
                    container = self._connect()
                    self.stats.num_reconnects += 1
                    _log.info("%s is back", self.uri)
                except (SourceError, SourceLost) as error:
                    problem = type(error)(str(error))  # a fresh one, without this thread's traceback
        if problem is not None and not self.is_closed:
            _log.info("%s", problem)
        self._buffer.finish(problem)

    def _connect(self) -> InputContainer:
        """A container whose video can be read. Raises SourceError or SourceLost, with nothing of the uri's
        secrets."""
        self._connecting_at = time.monotonic()
        container, problem = self._where.open()
        if container is not None:
            video = first_video(container)
            context = None if video is None else video.codec_context
            if video is None:
                problem = SourceError(f"{self.uri} sends no video")
            elif context is None:
                problem = SourceError(f"{self.uri} sends video in a codec that this FFmpeg cannot decode")
            elif context.width * context.height > self._max_pixels:
                problem = self._too_large(context.width, context.height)
            else:
                self._last_frame_at = time.monotonic()
                return container
            container.close()
        assert problem is not None
        raise problem

    def _read_connection(self, container: InputContainer) -> Exception | None:
        """Reads one connection to its end, and says what ended it; None for an end that was to be
        expected."""
        import av

        began_s = time.monotonic()
        try:
            for arrival in self._arrivals(container):
                if not self._buffer.put(arrival):
                    return None
            problem: Exception | None = None
            if self.is_live:
                lasted_s = time.monotonic() - began_s
                problem = SourceLost(f"{self.uri} closed the connection after {lasted_s:.1f} s")
            elif not self.stats.num_frames:
                problem = SourceError(f"{self.uri} has a video stream but no picture in it can be decoded")
        except av.FFmpegError as error:
            problem = self._where.explain_loss(error)
        except (SourceError, SourceLost) as error:
            problem = type(error)(str(error))
        except Exception as error:  # noqa: BLE001 - the user's thread has to learn of whatever ends this one
            problem = SourceLost(f"{self.uri} was lost: {type(error).__name__}: {self._where.clean(str(error))}")
        finally:
            self._last_frame_at = None
            container.close()
        return problem

    def _arrivals(self, container: InputContainer) -> Iterator[_Arrival]:
        """The pictures of one connection. The time goes on from where the connection before left it."""
        video = first_video(container)
        assert video is not None
        video.thread_type = "SLICE"  # threads over frames would hold each picture back by as many frames
        time_base = video.time_base or Fraction(1, 90000)
        rate_hz = video.average_rate or video.guessed_rate or Fraction(25)
        clock = StreamClock(time_base, None, round(1 / (rate_hz * time_base)))
        silent_since = time.monotonic()
        # FFmpeg reads a while to learn what comes, and then gives it in a burst: so the connection's
        # beginning counts.
        offset_s = self._last_s + (self._connecting_at - self._last_at if self._next_index else 0.0)
        for packet in container.demux(video):
            if self.is_closed:
                return
            for picture in decode_packet(packet, self.stats):
                if picture.width * picture.height > self._max_pixels:
                    raise self._too_large(picture.width, picture.height)
                placed = clock.place(picture.pts, picture.duration)
                self._last_s, self._last_at = offset_s + placed.pts_s, time.monotonic()
                self.stats.num_frames += 1
                self.stats.num_retimed += not placed.is_own
                yield _Arrival(picture, self._last_s, self._next_index, time.time())
                self._next_index += 1
                # Taken after the yield: time that a blocking buffer took is not the peer's.
                silent_since = self._last_frame_at = time.monotonic()
            if time.monotonic() - silent_since > self._where.read_timeout_s:
                raise self._stalled()

    def _stalled(self) -> SourceLost:
        return SourceLost(f"{self.uri} sent no picture for {self._where.read_timeout_s:g} s")

    def _too_large(self, width: int, height: int) -> SourceError:
        return SourceError(f"{self.uri} sends pictures of {width}x{height}, more than max_pixels={self._max_pixels}")


def _length_of(container: InputContainer) -> float | None:
    return container.duration / 1_000_000 if container.duration and container.duration > 0 else None

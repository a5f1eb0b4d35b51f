"""LiveReader: the thread of a live source; connects, reads, and connects again until it is told to stop."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from .address import Address
from .backoff import Backoff
from .buffer import FrameBuffer
from .connection import Arrival, Connection, Limits
from .live_clock import LiveClock, WallClock
from .live_status import LiveStatus
from .source import SourceError, SourceLost, SourceStalled
from .stats import SourceStats

# A connection that stood for so long was a good one: when it goes, the waits begin anew.
_STEADY_S = 10.0


class HandOver(NamedTuple):
    """How pictures wait for their user: a policy of FrameBuffer, None for the usual one, and room."""

    policy: str | None
    capacity: int


class LiveReader:
    """Owns the connection. `connect()` may be called before `start()`; all else that talks to the peer is done by the
    thread.

    reconnects: attempts in a row before a lost peer is given up; None: never.
    """

    def __init__(
        self,
        where: Address,
        stats: SourceStats,
        *,
        limits: Limits,
        hand_over: HandOver,
        reconnects: int | None,
        backoff: Backoff,
    ) -> None:
        self._where, self._stats, self._limits, self._hand_over = where, stats, limits, hand_over
        self._reconnects, self._backoff = reconnects, backoff.start()
        self._attempts_left = reconnects
        self.status = LiveStatus(where.shown, stats)
        self.wall_clock: WallClock = "arrival"
        self.duration_s: float | None = None  # of a recording, where it is known
        self.is_live = True  # as long as it is not known to be a recording
        self._buffer: FrameBuffer[Arrival] | None = None
        self._is_known = threading.Event()  # whether this is a recording, and with it the buffer
        self._closed = threading.Event()
        self._clock = LiveClock(where.read_timeout_s)
        self._next_index = 0
        self._connection: Connection | None = None
        # A daemon: a driver that hangs in the kernel must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"millpond {where.name}", daemon=True)

    @property
    def num_dropped(self) -> int:
        return 0 if self._buffer is None else self._buffer.num_dropped

    def connect(self) -> None:
        """Makes the first connection. Raises SourceError or SourceLost, with nothing of the uri's secrets."""
        self._connection = self._connect()

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the connection and whoever waits. A thread that waits for its peer ends by itself, at the latest after
        a timeout; it is not waited for longer than a second."""
        self._closed.set()
        self.status.end()
        if self._buffer is not None:
            self._buffer.close()
        self._is_known.set()
        if self._thread.ident is not None and threading.current_thread() is not self._thread:
            self._thread.join(1.0)

    def next_arrival(self) -> Arrival | None:
        """The next picture, or None at the end; called by the user's thread. Watches the reader too: some drivers
        hang where no timeout reaches."""
        self._is_known.wait()
        while self._buffer is not None:
            try:
                return self._buffer.get(timeout_s=0.5)
            except TimeoutError:
                self._look_for_a_hang()
        return None

    def _look_for_a_hang(self) -> None:
        connection = self._connection
        if connection is None or self.status.state == "lost":
            return
        silent_s = time.monotonic() - connection.last_read_at_s
        if silent_s > self._where.read_timeout_s + 1.0:
            # A second reader would find a device in use: what can be done is to wait, and to say so.
            problem = self._where.stalled()
            self._stats.num_stalls += 1
            self.status.fail(problem)
            if self._reconnects is not None:
                raise problem

    # The reader's thread, from here on; `_connect` is also called by `connect`, before the thread starts.

    def _run(self) -> None:
        """Reads until closed, until the end of a recording, or until the peer is lost for good."""
        problem: Exception | None = None
        while not self._closed.is_set():
            try:
                if self._connection is None:
                    self._connection = self._connect()
                problem = self._read(self._connection)
                if problem is None or not self.is_live:
                    break
            except (SourceError, SourceLost) as error:
                problem = type(error)(str(error))  # a fresh one, without this thread's traceback
            if not self._will_retry(problem):
                break
            self._stats.num_stalls += isinstance(problem, SourceStalled)
            self.status.fail(problem)
            # What the user can set right does not mend itself, and a camera may lock out who knocks too often.
            is_slow = isinstance(problem, SourceError)
            self._closed.wait(self._backoff.draw_slow() if is_slow else self._backoff.draw())
        self.status.end(None if self._closed.is_set() else problem)
        self._open_buffer().finish(None if self._closed.is_set() else problem)

    def _will_retry(self, problem: Exception) -> bool:
        """Whether to go on after a problem; where attempts are counted, this takes one."""
        if self._attempts_left is None:
            return True
        if self._attempts_left < 1 or isinstance(problem, SourceError):
            return False
        self._attempts_left -= 1
        return True

    def _connect(self) -> Connection:
        began_at_s = time.monotonic()
        container, problem = self._where.open()
        if container is None:
            raise problem or SourceLost(f"cannot connect to {self._where.shown}")
        connection = Connection(self._where, container, self._limits, began_at_s)
        try:
            connection.check()
        except SourceError:
            connection.close()
            raise
        if self._buffer is None:
            self.duration_s, self.is_live = connection.duration_s, connection.is_live
            self._open_buffer()
        return connection

    def _open_buffer(self) -> FrameBuffer[Arrival]:
        """The buffer; made once it is known whether this is a recording."""
        if self._buffer is None:
            policy = self._hand_over.policy or ("newest_only" if self.is_live else "block")
            self._buffer = FrameBuffer(self._hand_over.capacity, policy)
            self._is_known.set()
        if self._closed.is_set():
            self._buffer.close()
        return self._buffer

    def _read(self, connection: Connection) -> Exception | None:
        """Reads one connection to its end, and says what ended it; None for an end that was to be expected."""
        import av

        began_s = time.monotonic()
        buffer = self._open_buffer()
        try:
            for arrival in connection.pictures(self._clock, self._stats, self._next_index, self._closed):
                self._next_index = arrival.index + 1
                self.wall_clock = connection.wall_clock
                self._attempts_left = self._reconnects
                self.status.come()
                if not buffer.put(arrival):
                    return None
            return self._ended(time.monotonic() - began_s)
        except av.FFmpegError as error:
            return self._where.explain_loss(error)
        except (SourceError, SourceLost) as error:
            return type(error)(str(error))
        except Exception as error:  # noqa: BLE001 - the user's thread has to learn of whatever ends this one
            return SourceLost(f"{self._where.shown} was lost: {type(error).__name__}: {self._where.clean(str(error))}")
        finally:
            self._connection = None
            connection.close()
            if time.monotonic() - began_s > _STEADY_S and connection.num_pictures:
                self._backoff.reset()

    def _ended(self, lasted_s: float) -> Exception | None:
        """What it means that nothing more comes. Of HLS it is also how FFmpeg tells of a segment that stalls."""
        if self.is_live:
            return SourceLost(f"{self._where.shown} closed the connection after {lasted_s:.1f} s")
        if not self._stats.num_frames:
            return SourceError(f"{self._where.shown} has a video stream but no picture in it can be decoded")
        return None

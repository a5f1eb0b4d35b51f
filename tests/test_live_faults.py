"""LiveSource stays up: servers die, freeze, lose packets and change, and the stream goes on with its gaps told."""

from __future__ import annotations

import gc
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path

import pytest

from millpond.stream import Frame, RateSampler, Source, SourceError, SourceLost, open_source

from .conftest import RtspServer

Start = Callable[..., RtspServer]
QUICK = {"reconnect_wait_s": 0.1, "max_reconnect_wait_s": 0.2}
LIMIT_S = 30.0


def wait_for(holds: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
    deadline_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


@contextmanager
def watched(uri: str, **options: object) -> Iterator[Source]:
    """An open source. What is never lost for good can be waited for for ever: here it ends, and the test fails."""
    with open_source(uri, **options) as source:
        limit = threading.Timer(4 * LIMIT_S, source.close)
        limit.start()
        yield source
        limit.cancel()


def frames_until(frames: Iterator[Frame], is_enough: Callable[[], bool]) -> list[Frame]:
    """Takes frames until it is enough; there is to be one that follows."""
    deadline_s = time.monotonic() + LIMIT_S
    taken = []
    for frame in frames:
        taken.append(frame)
        if is_enough():
            return taken
        assert time.monotonic() < deadline_s
    raise AssertionError("the stream ended")


def test_a_server_killed_and_started_again_leaves_one_gap(rtsp_server: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = rtsp_server()
    with watched(first.uri(), policy="block", capacity=1000, **QUICK) as source:
        frames = iter(source)
        taken = list(islice(frames, 5))
        assert source.state == "live" and source.problem is None
        first.kill()
        wait_for(lambda: source.state == "lost", "nobody noticed")
        time.sleep(1.0)
        rtsp_server("--port", str(first.port))
        taken += frames_until(frames, lambda: bool(taken) and source.stats.num_reconnects == 1)
        taken += list(islice(frames, 5))
        stats = source.stats
        assert source.state == "live" and source.problem is None
    assert source.state == "ended"
    gaps = [frame for frame in taken if frame.gap_s]
    assert len(gaps) == stats.num_gaps == 1 and gaps[0].gap_s == pytest.approx(stats.gap_s) and stats.gap_s > 1.0
    times_s = [frame.pts_s for frame in taken]
    assert times_s == sorted(times_s) and [f.index for f in taken] == sorted({f.index for f in taken})
    at = taken.index(gaps[0])
    assert gaps[0].pts_s - taken[at - 1].pts_s == pytest.approx(gaps[0].gap_s)
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("millpond.stream")]
    assert len(lines) == 3, lines
    assert lines[0].startswith("connected to rtsp://") and lines[1].endswith("; trying again until it answers")
    assert " is back after " in lines[2]


def test_a_frozen_server_is_lost_and_thawed_is_found_again(rtsp_server: Start) -> None:
    server = rtsp_server()
    with watched(server.uri(), read_timeout_s=1.0, open_timeout_s=1.0, **QUICK) as source:
        frames = iter(source)
        next(frames)
        server.freeze()
        wait_for(lambda: source.state == "lost", "nobody noticed")
        assert source.stats.num_stalls == 1 and "sent nothing for 1 s" in (source.problem or "")
        server.thaw()
        taken = frames_until(frames, lambda: source.stats.num_reconnects == 1)
        taken += list(islice(frames, 3))
    assert sum(frame.gap_s > 0 for frame in taken) == 1
    assert max(frame.gap_s for frame in taken) > 1.0


def test_a_gap_is_not_lost_with_a_frame_that_is_not_due_or_not_taken(rtsp_server: Start) -> None:
    first = rtsp_server()
    with watched(first.uri(), **QUICK) as source:
        frames = source.sampled(RateSampler(0.5))
        taken = [next(frames)]
        first.kill()
        wait_for(lambda: source.state == "lost", "nobody noticed")
        rtsp_server("--port", str(first.port))
        wait_for(lambda: source.state == "live", "it did not come back")
        time.sleep(0.5)  # the first frames after the gap are dropped: nobody takes them
        taken += list(islice(frames, 2))
        stats = source.stats
        assert stats.num_gaps >= 1 and stats.num_dropped > 0
    assert [frame.gap_s > 0 for frame in taken] == [False, True, False]
    assert taken[1].gap_s == pytest.approx(stats.gap_s)


def test_a_stream_that_ends_is_asked_for_again(rtsp_server: Start) -> None:
    server = rtsp_server("--num-frames", "15")
    with watched(server.uri(), policy="block", read_timeout_s=2.0, **QUICK) as source:
        taken = frames_until(iter(source), lambda: source.stats.num_reconnects >= 2)
    times_s = [frame.pts_s for frame in taken]
    assert times_s == sorted(times_s) and sum(frame.gap_s > 0 for frame in taken) == 2
    assert len(taken) > 20


def test_the_size_may_change_in_mid_stream(rtsp_server: Start) -> None:
    server = rtsp_server("--sizes", "160x120,320x240")
    with watched(server.uri(), policy="block", reconnects=0) as source:
        sizes = [(frame.width, frame.height) for frame in islice(source, 60)]
        assert source.stats.num_reconnects == 0
    changes = [b for a, b in pairwise(sizes) if a != b]
    assert set(sizes) == {(160, 120), (320, 240)} and len(changes) >= 2


def test_a_size_that_becomes_too_large_is_refused_and_asked_for_again(rtsp_server: Start) -> None:
    server = rtsp_server("--sizes", "160x120,320x240")
    with watched(server.uri(), policy="block", max_pixels=200 * 200, **QUICK) as source:
        taken = frames_until(iter(source), lambda: source.stats.num_reconnects >= 1)
        assert {frame.width for frame in taken} == {160}
    with (
        watched(server.uri(), policy="block", max_pixels=200 * 200, reconnects=0) as source,
        pytest.raises(SourceError, match="pictures of 320x240, more than max_pixels=40000"),
    ):
        list(source)


def is_as_sent(frame: Frame) -> bool:
    """Whether the picture is the server's: black, with one white ball of one size, and little between the two."""
    grey_HW = frame.rgb_HW3.mean(axis=2)
    return 0.056 < (grey_HW > 128).mean() < 0.0615 and ((grey_HW > 60) & (grey_HW < 190)).mean() < 0.012


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_lost_packets_cost_what_they_are_in_and_nothing_made_up_is_shown(rtsp_server: Start, transport: str) -> None:
    """Without the wait for a key frame one picture in fifteen has two balls, or half of one."""
    server = rtsp_server("--lose", "0.03")
    with watched(server.uri(), transport=transport, policy="block", **QUICK) as source:
        taken = frames_until(iter(source), lambda: source.stats.num_damaged >= 8)
        stats = source.stats
        assert stats.num_skipped > 0 and stats.num_reconnects == stats.num_gaps == 0
    assert all(is_as_sent(frame) for frame in taken)
    times_s = [frame.pts_s for frame in taken]
    assert times_s == sorted(times_s) and len(taken) >= 10


def test_a_stream_without_key_frames_goes_on_after_damage(rtsp_server: Start) -> None:
    server = rtsp_server("--lose", "0.02", "--intra-refresh", "--key-every", "100000")
    with watched(server.uri(), policy="block", max_skip_s=1.0, read_timeout_s=3.0, **QUICK) as source:
        frames = iter(source)
        frames_until(frames, lambda: source.stats.num_skipped > 0)
        list(islice(frames, 5))
        assert source.stats.num_reconnects == 0


def test_the_timestamps_of_rtp_wrap(rtsp_server: Start) -> None:
    server = rtsp_server("--first-ticks", str(2**32 - 90_000))
    with watched(server.uri(), policy="block", reconnects=0) as source:
        times_s = [frame.pts_s for frame in islice(source, 40)]
    assert [b - a for a, b in pairwise(times_s)] == pytest.approx([1 / 15] * 39, abs=0.03)


def test_the_servers_clock_is_told_where_it_gives_one(rtsp_server: Start) -> None:
    server = rtsp_server()
    with watched(server.uri(), policy="block") as source:
        frames = iter(source)
        frames_until(frames, lambda: source.wall_clock == "server")
        taken = list(islice(frames, 15))
    # One machine, one clock: it was taken before it came, and not long before.
    assert all(-5 < time.time() - frame.wall_s < 60 for frame in taken if frame.wall_s)
    # By the sender's count, however late each came: as even as the stream's own times.
    shifts_s = [frame.wall_s - frame.pts_s for frame in taken if frame.wall_s]
    assert max(shifts_s) - min(shifts_s) < 1e-3


def test_a_servers_clock_that_was_never_set_is_not_believed(rtsp_server: Start) -> None:
    server = rtsp_server("--clock", "running")  # it says that it is 1900
    with watched(server.uri(), policy="block") as source:
        taken = list(islice(source, 60))
        assert source.wall_clock == "arrival"
    assert all(frame.wall_s is not None and abs(frame.wall_s - time.time()) < 60 for frame in taken)


def test_one_dead_camera_does_not_keep_others_from_starting(
    rtsp_server: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = rtsp_server()
    server.kill()
    began_s = time.monotonic()
    with watched(server.uri(), must_answer=False, policy="block", **QUICK) as source:
        assert time.monotonic() - began_s < 1.0 and source.state == "connecting" and source.is_live
        wait_for(lambda: source.problem is not None, "nothing was tried")
        rtsp_server("--port", str(server.port))
        frame = next(iter(source))
        assert source.state == "live" and source.problem is None
        # Time begins with the first frame: before it there was nothing to miss.
        assert frame.pts_s == 0 and frame.gap_s == 0 and source.stats.num_reconnects == 0
    lines = [r.getMessage() for r in caplog.records if r.levelno >= logging.INFO]
    assert len(lines) == 2 and "refuses the connection" in lines[0] and "connected to rtsp://" in lines[1]


def test_what_a_user_can_set_right_is_tried_again_without_haste(
    rtsp_server: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = rtsp_server("--user", "keeper7", "--password", "QXpw")
    source = open_source(server.uri("keeper7:QXno"), must_answer=False, reconnect_wait_s=0.01, max_reconnect_wait_s=60)
    wait_for(lambda: source.problem is not None, "nothing was tried")
    time.sleep(1.0)
    assert source.state == "connecting" and "refuses the user name or password" in (source.problem or "")
    assert caplog.text.count("refuses the user name or password") == 1
    began_s = time.monotonic()
    source.close()
    assert time.monotonic() - began_s < 2.0 and source.state == "ended"
    assert "QX" not in caplog.text and "keeper7" not in caplog.text
    with watched(server.uri("keeper7:QXno"), must_answer=False, reconnects=3, **QUICK) as source:
        with pytest.raises(SourceError, match="refuses the user name or password"):
            next(iter(source))


def test_a_number_of_reconnects_is_kept_to(rtsp_server: Start) -> None:
    server = rtsp_server()
    with watched(server.uri(), reconnects=2, **QUICK) as source:
        frames = iter(source)
        next(frames)
        server.kill()
        with pytest.raises(SourceLost, match="refuses the connection"):
            for _ in frames:
                pass
        assert source.state == "ended" and "refuses the connection" in (source.problem or "")


def silent_server() -> socket.socket:
    """Accepts, and never answers."""
    return socket.create_server(("127.0.0.1", 0), backlog=50)


@pytest.mark.parametrize("where", ["connecting", "waiting", "reading"])
def test_close_returns_soon_from_any_wait(rtsp_server: Start, where: str) -> None:
    with silent_server() as silent:
        if where == "connecting":
            source = open_source(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x", must_answer=False, open_timeout_s=4.0)
        elif where == "waiting":
            source = open_source("rtsp://127.0.0.1:9/x", must_answer=False, reconnect_wait_s=500.0)
            wait_for(lambda: source.problem is not None, "nothing was tried")
        else:
            server = rtsp_server()
            source = open_source(server.uri(), read_timeout_s=4.0)
            next(iter(source))
            server.freeze()
        ended = threading.Event()

        def watch(source: Source = source) -> None:
            for _ in source:
                pass
            ended.set()

        threading.Thread(target=watch, daemon=True).start()
        time.sleep(0.3)
        began_s = time.monotonic()
        source.close()
        assert time.monotonic() - began_s < 2.0
        assert ended.wait(2.0) and source.state == "ended"
        wait_for(lambda: not is_reading(source), "the reader stayed", 10.0)


def is_reading(source: Source) -> bool:
    return any(thread.name == f"millpond {source.stream_id}" for thread in threading.enumerate())


class Cut:
    """A way through to a server that can be cut: each connection is carried until `cut()`."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            self._open += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(a, b), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()

    def cut(self) -> None:
        for end in self._open:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.slow
def test_many_reconnects_leave_nothing_behind(rtsp_server: Start) -> None:
    """Threads, files and memory after 60 cycles are those after 10."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc to count open files in")
    server = rtsp_server()
    way = Cut(server.port)
    uri = f"rtsp://127.0.0.1:{way.port}/clip"
    counts = {}
    before = threading.active_count()
    with watched(uri, reconnect_wait_s=0.01, max_reconnect_wait_s=0.02, read_timeout_s=5.0) as source:
        frames = iter(source)
        for cycle in range(1, 61):
            next(frames)
            way.cut()
            wait_for(lambda cycle=cycle: source.stats.num_reconnects >= cycle, f"cycle {cycle}")
            if cycle in (10, 60):
                next(frames)
                gc.collect()
                wait_for(lambda: threading.active_count() <= before + 4, "threads stayed")
                counts[cycle] = (threading.active_count(), len(os.listdir("/proc/self/fd")), resident_bytes())
        assert source.stats.num_gaps >= 60
        times_s = [frame.pts_s for frame in islice(frames, 5)]
        assert times_s == sorted(times_s)
    way.close()
    threads, files, held_bytes = zip(counts[10], counts[60], strict=True)
    assert threads[1] <= threads[0] and files[1] <= files[0], counts
    assert held_bytes[1] - held_bytes[0] < 10 * 2**20, counts
    wait_for(lambda: not is_reading(source), "the reader stayed", 10.0)

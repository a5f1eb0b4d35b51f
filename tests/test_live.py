"""LiveSource against a real RTSP server: plays, loses its peer in every way, and never tells a password."""

from __future__ import annotations

import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable
from itertools import pairwise

import pytest

from millpond.stream import Source, SourceError, SourceLost, open_source

from .clips import VIDEOS
from .conftest import RtspServer

Start = Callable[..., RtspServer]

PASSWORD = "QX:p/w@Z#?%J"
WRONG = "keeper7:QXwrong%J"
LOGIN = ("--user", "keeper7", "--password", PASSWORD)


def tells_nothing(text: str) -> bool:
    return not any(secret in text for secret in ("QX", "p/w@", "Z#", "%J", "keeper7", "QX%3A"))


def everything_about(error: BaseException) -> str:
    """What any handler of the error could print."""
    chain, seen = [], error
    while seen is not None:
        chain += [str(seen), repr(seen), str(vars(seen)), str(seen.args)]
        seen = seen.__cause__ or seen.__context__  # type: ignore[assignment]
    return "\n".join([*chain, *traceback.format_exception(error)])


def lost(source: Source) -> SourceLost:
    """Watches until the peer is lost."""
    with pytest.raises(SourceLost, match="rtsp://") as caught:
        for _ in source:
            pass
    return caught.value


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
def test_a_real_clip_plays_to_its_end(rtsp_server: Start) -> None:
    server = rtsp_server("--clip", str(VIDEOS / "cup.mp4"))
    times_s = []
    with open_source(server.uri(), policy="block", reconnects=0) as source:
        assert source.is_live and source.duration_s is None
        with pytest.raises(SourceLost, match=r"closed the connection after \d"):
            for frame in source:
                times_s.append(frame.pts_s)
                assert (frame.width, frame.height) == (640, 480)
                assert frame.wall_s is not None and abs(frame.wall_s - time.time()) < 60
    # The server drops nothing; frame times are the clip's own, 1000/26777 s apart.
    assert len(times_s) >= 210
    assert times_s == sorted(times_s) and times_s[0] == 0.0
    steps_s = sorted(b - a for a, b in pairwise(times_s))
    assert steps_s[len(steps_s) // 2] == pytest.approx(1000 / 26777, abs=1e-3)


def test_a_password_of_any_characters_opens_and_is_never_told(
    rtsp_server: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = rtsp_server(*LOGIN)
    with open_source(server.uri(f"keeper7:{PASSWORD}"), reconnects=0) as source:
        assert next(iter(source)).width == 160
        assert tells_nothing(f"{source!r} {source.uri} {source.stream_id} {vars(source)} {source.stats}")
        server.kill()
        error = lost(source)
    assert tells_nothing(everything_about(error)) and error.__context__ is None
    assert "connected to rtsp://***@127.0.0.1" in caplog.text
    assert tells_nothing(caplog.text)


def test_a_wrong_password_is_bad_input(rtsp_server: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = rtsp_server(*LOGIN)
    with pytest.raises(SourceError, match="refuses the user name or password") as caught:
        open_source(server.uri(WRONG))
    assert tells_nothing(everything_about(caught.value) + caplog.text)


def test_a_wrong_path_is_bad_input(rtsp_server: Start) -> None:
    server = rtsp_server()
    with pytest.raises(SourceError, match="404, check the path"):
        open_source(f"rtsp://127.0.0.1:{server.port}/other")


def test_a_server_killed_mid_stream_is_lost(rtsp_server: Start) -> None:
    server = rtsp_server()
    with open_source(server.uri(), reconnects=0) as source:
        next(iter(source))
        threading.Timer(0.3, server.kill).start()
        error = lost(source)
    assert "closed the connection after" in str(error) or "was lost" in str(error)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_frozen_server_is_lost_within_the_read_timeout(rtsp_server: Start, transport: str) -> None:
    server = rtsp_server()
    with open_source(server.uri(), transport=transport, read_timeout_s=1.0, reconnects=0) as source:
        next(iter(source))
        server.freeze()
        began_s = time.monotonic()
        error = lost(source)
        assert time.monotonic() - began_s < 4.0
    assert "for 1 s" in str(error)


def test_close_ends_a_wait_for_a_frozen_server(rtsp_server: Start) -> None:
    server = rtsp_server()
    source = open_source(server.uri(), read_timeout_s=3.0)
    frames = iter(source)
    next(frames)
    server.freeze()
    ended = threading.Event()

    def watch() -> None:
        for _ in frames:
            pass
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    began_s = time.monotonic()
    source.close()
    assert ended.wait(2.0) and time.monotonic() - began_s < 2.5


def test_a_lost_server_is_found_again(rtsp_server: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = rtsp_server()
    times_s, walls_s = [], []
    with open_source(first.uri(), reconnects=100, reconnect_wait_s=0.1, max_reconnect_wait_s=0.1) as source:
        for frame in source:
            times_s.append(frame.pts_s)
            walls_s.append(frame.wall_s)
            if len(times_s) == 3:
                first.kill()
                second = rtsp_server("--port", str(first.port))
            if source.stats.num_reconnects and len(times_s) > 6:
                break
        assert source.stats.num_reconnects >= 1
    assert second.port == first.port
    assert times_s == sorted(times_s)
    # The time that nobody saw has passed all the same.
    assert times_s[-1] - times_s[0] == pytest.approx(walls_s[-1] - walls_s[0], abs=1.0)
    assert "; trying again until it answers" in caplog.text and " is back after " in caplog.text


def test_a_slow_user_gets_the_newest_and_the_loss_is_counted(rtsp_server: Start) -> None:
    server = rtsp_server()
    with open_source(server.uri()) as source:
        frames = iter(source)
        first = next(frames)
        time.sleep(1.0)
        second, third = next(frames), next(frames)
        assert source.stats.num_dropped >= 8
        assert second.index == third.index - 1 or third.index > second.index
        # 15 frames a second: what was handed out is what arrived last, not what waited longest.
        assert second.pts_s - first.pts_s > 0.7
        assert source.stats.lag_s < 0.5


def test_a_server_that_accepts_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began_s = time.monotonic()
        with pytest.raises(SourceLost, match="did not answer within 1 s") as caught:
            open_source(f"rtsp://{WRONG}@127.0.0.1:{port}/x", open_timeout_s=1.0, read_timeout_s=1.0)
        assert time.monotonic() - began_s < 4.0
    assert tells_nothing(everything_about(caught.value))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\n", b"\0" * 5000, b""])
def test_a_server_that_talks_nonsense(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        port = listener.getsockname()[1]
        with pytest.raises((SourceLost, SourceError), match=rf"rtsp://\*\*\*@127.0.0.1:{port}/x") as caught:
            open_source(f"rtsp://{WRONG}@127.0.0.1:{port}/x", open_timeout_s=2.0)
    assert tells_nothing(everything_about(caught.value))


def test_nobody_there() -> None:
    with pytest.raises(SourceLost, match=r"rtsp://\*\*\*@127.0.0.1:9/x refuses the connection"):
        open_source("rtsp://u:QX@127.0.0.1:9/x")
    with pytest.raises(SourceLost, match=r"cannot connect to rtsp://\*\*\*@nowhere.invalid/x"):
        open_source("rtsp://u:QX@nowhere.invalid/x")


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"transport": "smoke"}, "no transport named 'smoke'; there are: tcp, udp"),
        ({"policy": "newest"}, "no buffer policy named 'newest'"),
        ({"open_timeout_s": 0.0}, "timeouts must be above 0 s; got open_timeout_s=0.0"),
        ({"reconnects": -1}, "reconnects is a number of attempts, or None for no limit; got -1"),
        ({"max_skip_s": -1.0}, "max_skip_s is 0 or more; got -1.0"),
        ({"reconnect_wait_s": 0.0}, "0 < first_s <= longest_s, finite; got first_s=0.0"),
    ],
)
def test_wrong_options(option: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        open_source("rtsp://127.0.0.1:9/x", **option)

"""Attacks with time, over raw sockets to a real server: clients that send or take next to nothing, and too many."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from .guarded_server import GuardedServer, read_answer

HEAD = b"GET /name/x HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GENEROUS_S = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[GuardedServer]:
    with GuardedServer(
        header_s=1.0, body_s=1.0, send_s=1.0, idle_s=1.0, num_followers=3, num_connections=20, head_bytes=8192
    ) as running:
        yield running


def hangs_up(connection: socket.socket, drip: bytes = b"") -> bool:
    """Whether the server ends this within a generous time, while it is sent a little now and then."""
    connection.settimeout(0.2)
    deadline_s = time.monotonic() + GENEROUS_S
    while time.monotonic() < deadline_s:
        try:
            if drip:
                connection.sendall(drip)
            if not connection.recv(4096):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


@pytest.mark.parametrize(
    ("begun", "drip"),
    [
        (b"", b""),
        (b"G", b""),
        (HEAD, b""),
        (HEAD, b"X-A: b\r\n"),
        (b"GET /name/", b"x"),
        (b"", b"\r\n"),
        (HEAD + b"X-Folded: a", b"\r\n b"),
    ],
    ids=lambda part: repr(part[-12:]),
)
def test_a_head_that_does_not_end(server: GuardedServer, begun: bytes, drip: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(begun)
        assert hangs_up(connection, drip)
    assert server.ask("GET", "/name/x").status == 200


def test_a_second_head_that_does_not_end(server: GuardedServer) -> None:
    with server.connect() as connection:
        connection.sendall(HEAD + b"\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(HEAD)
        assert hangs_up(connection, b"X-A: b\r\n")


def test_a_head_that_is_too_long(server: GuardedServer) -> None:
    told = server.say(HEAD, *[b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(100)])
    assert told.status in (0, 400, 431)
    assert server.ask("GET", "/name/x").status == 200


@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
@pytest.mark.parametrize("drip", [b"", b"1\r\n \r\n"])
def test_a_body_that_does_not_end(server: GuardedServer, framing: bytes, drip: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(POST + framing)
        ended = threading.Event()

        def drips() -> None:
            while drip and not ended.wait(0.1):
                try:
                    connection.sendall(drip)
                except OSError:
                    return

        thread = threading.Thread(target=drips)
        thread.start()
        told = read_answer(connection)
        ended.set()
        thread.join()
    assert told.status == 408 and told.code == "body_too_slow"


def test_a_client_that_takes_nothing(server: GuardedServer) -> None:
    """It asks for what does not fit any buffer, and does not read. Meanwhile others are served."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n")
        deadline_s = time.monotonic() + GENEROUS_S
        seen = 0
        while (seen < 1 or server.num_connections) and time.monotonic() < deadline_s:
            seen = max(seen, server.num_connections)
            time.sleep(0.05)
        assert seen and not server.num_connections
    assert server.ask("GET", "/name/x").status == 200


def test_a_client_that_takes_slowly_is_served_to_the_end(server: GuardedServer) -> None:
    """For longer than it may take nothing."""
    with server.connect() as connection:
        connection.sendall(b"GET /much?num_blocks=320 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        num_bytes = 0
        while block := connection.recv(1 << 20):
            num_bytes += len(block)
            time.sleep(0.1)
    assert num_bytes > 320 * (64 << 10)


def test_a_connection_between_requests_is_let_go(server: GuardedServer) -> None:
    with server.connect() as connection:
        connection.sendall(HEAD + b"\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert hangs_up(connection)


def test_followers_are_counted_and_forgotten_when_they_go(server: GuardedServer) -> None:
    ask = b"GET /follow HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    with ExitStack() as stack:
        followers = [stack.enter_context(server.connect()) for _ in range(3)]
        for follower in followers:
            follower.sendall(ask)
            assert b"200 OK" in follower.recv(4096)
        told = server.ask("GET", "/follow", accept="text/event-stream")
        assert told.status == 429 and told.code == "too_many_followers" and told.header("retry-after")
        assert server.ask("GET", "/name/x").status == 200
        # Events come as they are made, through every guard: one by one, without an end.
        assert b"data: 3\n" in b"".join(followers[0].recv(4096) for _ in range(12))
        # Longer than any wait that a client is held to, and nobody hangs up on it.
        time.sleep(1.5)
        assert followers[1].recv(1 << 20)
    deadline_s = time.monotonic() + GENEROUS_S
    status = 429
    while status == 429 and time.monotonic() < deadline_s:
        with server.connect() as follower:
            follower.sendall(ask)
            status = int(follower.recv(4096).split()[1])
        time.sleep(0.1)
    assert status == 200


def test_more_connections_than_there_may_be(server: GuardedServer) -> None:
    deadline_s = time.monotonic() + GENEROUS_S
    while server.num_connections and time.monotonic() < deadline_s:
        time.sleep(0.05)
    with ExitStack() as stack:
        for _ in range(120):
            stack.enter_context(server.connect())
        time.sleep(0.3)
        assert server.num_connections <= 20 + 64
        assert server.ask("GET", "/name/x").status in (0, 503)
    status = 503
    while status != 200 and time.monotonic() < deadline_s + GENEROUS_S:
        status = server.ask("GET", "/name/x").status
        time.sleep(0.1)
    assert status == 200

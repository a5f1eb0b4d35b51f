"""Attacks by RTSP servers and their like, against the real FFmpeg of PyAV."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import av
import pytest

from millpond.pipeline.serve.gateway import Gateway
from millpond.pipeline.serve.pump import Cut
from millpond.pipeline.serve.rtsp_filter import RtspFilter
from millpond.pipeline.serve.url_guard import UrlRefused

from .clips import RATE_HZ
from .conftest import RtspServer
from .guarded_parts import Inside, Names, num_frames, rules_with
from .transport_streams import tcp_sender, transport_stream


def test_a_real_rtsp_server_plays_through(gateway: Gateway, rtsp_server: Callable[..., RtspServer]) -> None:
    server = rtsp_server()
    uri = server.uri().replace("127.0.0.1", "cam.example")
    assert num_frames(gateway, uri, rtsp_transport="tcp") == 5
    moved = RtspTalker(lambda method: redirect(server.uri()) if method == "DESCRIBE" else OK)
    with moved:
        assert num_frames(gateway, f"rtsp://cam.example:{moved.port}/x", rtsp_transport="tcp") == 5


OK = b"RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n"


def redirect(target: str, *, line: str = "Location") -> bytes:
    return f"RTSP/1.0 302 Found\r\nCSeq: {{cseq}}\r\n{line}: {target}\r\n\r\n".encode()


class RtspTalker:
    """A server that says what it is told to, by method; counts what it was asked."""

    def __init__(self, answer: Callable[[str], bytes]) -> None:
        self.asked: list[str] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while head := client.recv(8192).decode():
                method = head.split()[0]
                self.asked.append(method)
                cseq = next(line for line in head.splitlines() if line.lower().startswith("cseq")).partition(":")[2]
                client.sendall(self._answer(method).replace(b"{cseq}", cseq.strip().encode()))

    def __enter__(self) -> RtspTalker:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.mark.parametrize("at", ["OPTIONS", "DESCRIBE"])
@pytest.mark.parametrize(
    "answer",
    [
        redirect("rtsp://127.0.0.2:{port}/x"),
        redirect("rtsp://inside.example:{port}/x"),
        redirect("rtsp://cam.example:{port}@127.0.0.2:{port}/x"),
        redirect("rtsp://127.0.0.2:{port}/x", line="location"),
        redirect("http://127.0.0.2:{port}/x"),
        redirect("rtsp://127.0.0.2:{port}/x", line=" Location"),
        redirect("rtsp://cam.example/\r\nLocation: rtsp://127.0.0.2:{port}/x"),
        redirect("rtsp://127.0.0.2:{port}/x").replace(b"\r\n", b"\n"),
        b"$\x00\x00\x02ab" + redirect("rtsp://127.0.0.2:{port}/x"),
        b"\r\n" + redirect("rtsp://127.0.0.2:{port}/x"),
        b"RTSP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nabcd" + redirect("rtsp://127.0.0.2:{port}/x"),
        b" " + redirect("rtsp://127.0.0.2:{port}/x"),
        redirect("rtsp://127.0.0.2:{port}/x").replace(b"302", b"+302"),
        redirect("rtsp://127.0.0.2:{port}/x").replace(b"302", b"0302"),
    ],
)
def test_a_redirect_of_rtsp_does_not_lead_inside(gateway: Gateway, inside: Inside, at: str, answer: bytes) -> None:
    told = answer.replace(b"{port}", str(inside.port).encode())
    with RtspTalker(lambda method: told if method == at else OK) as talker:
        with pytest.raises(av.FFmpegError):
            num_frames(gateway, f"rtsp://cam.example:{talker.port}/x", rtsp_transport="tcp")
        assert at in talker.asked
    assert inside.num_visits == 0


def test_ffmpeg_by_itself_follows_such_a_redirect(inside: Inside) -> None:
    with RtspTalker(lambda method: redirect(f"rtsp://127.0.0.2:{inside.port}/x")) as talker, suppress(av.FFmpegError):
        av.open(f"rtsp://127.0.0.1:{talker.port}/x", timeout=(5.0, 5.0)).close()
    assert inside.num_visits


def test_redirects_of_rtsp_have_an_end(gateway: Gateway) -> None:
    with RtspTalker(lambda method: redirect(f"rtsp://127.0.0.1:{talker.port}/x")) as talker:
        with pytest.raises(av.FFmpegError):
            num_frames(gateway, f"rtsp://cam.example:{talker.port}/x")
        assert len(talker.asked) <= 4


def test_mpeg_ts_over_tcp_comes_through_one_connection_only(gateway: Gateway) -> None:
    with tcp_sender(transport_stream(2 * RATE_HZ), 1.0) as port:
        target, options, _ = gateway.opening(f"tcp://cam.example:{port}")
        with av.open(target, format="mpegts", options=options, timeout=(10.0, 10.0)) as container:
            assert next(container.decode(video=0)) is not None
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2])), timeout=5).close()


def test_nobody_there_is_told_at_once(gateway: Gateway) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(OSError):
            gateway.opening(f"rtsp://cam.example:{unused.getsockname()[1]}/x")


def test_closing_ends_what_is_open(names: Names) -> None:
    heard = threading.Event()

    def silent(method: str) -> bytes:
        heard.set()
        return b""

    with RtspTalker(silent) as talker:
        gateway = Gateway(rules_with(names))
        target = gateway.opening(f"rtsp://cam.example:{talker.port}/x").target
        with socket.create_connection(("127.0.0.1", int(target.rsplit(":", 1)[1].split("/")[0])), timeout=10) as near:
            near.sendall(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
            assert heard.wait(10)
            gateway.close()
            gateway.close()
            assert near.recv(10) == b""
        with pytest.raises(UrlRefused):
            gateway.opening("http://cam.example/x")


# What is held back of a conversation


def test_the_filter_gives_on_whole_messages_and_pictures_as_they_are() -> None:
    talk = RtspFilter(lambda target: "rtsp://127.0.0.1:1/" + target[-1])
    said = OK + b"$\x00\x00\x03abc" + b"RTSP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nv=0\r\n" + redirect("rtsp://x/y")
    heard = b"".join(talk.inward(said[place : place + 1]) for place in range(len(said)))
    assert heard == said.replace(b"rtsp://x/y", b"rtsp://127.0.0.1:1/y")
    assert talk.outward(b"PLAY rtsp://x/ RTSP/1.0\r\n\r\n").startswith(b"PLAY")
    anything = b"RTSP/1.0 302 Found\r\nLocation: rtsp://127.0.0.2/\r\n\r\n" + bytes(range(256))
    assert talk.inward(anything) == anything


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 302 Found\r\nLocation: rtsp://x\r\n\r\n",
        b"RTSP/1.0 302 Found\r\n\r\n",
        b"RTSP/1.0 302 Found\r\nLocation: a\r\nLocation: b\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 9999999\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nno header\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n$\x00\x00\x01: a\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nA: b\nRTSP/1.0 302 Found\nLocation: rtsp://x\r\n\r\n",
        b"x" * 20_000,
        b"A: b\r\n" * 2000,
    ],
    ids=lambda said: repr(said[:40]),
)
def test_what_could_be_read_in_two_ways_is_cut(said: bytes) -> None:
    with pytest.raises(Cut):
        RtspFilter(lambda target: target).inward(said)

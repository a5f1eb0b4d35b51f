"""MPEG-TS made on the spot, whose every picture carries its own number, and real servers on loopback that send it."""

from __future__ import annotations

import base64
import http.server
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction

import av

from .clips import H264, HEIGHT, NUM_BITS, RATE_HZ, WIDTH, numbered_picture

TICKS = 90_000 // RATE_HZ
MAX_NUMBER = 1 << NUM_BITS
_BLOCK = 188 * 7  # what fits a datagram


def transport_stream(num_frames: int, *, first: int = 0, first_ticks: int = 0, key_every: int = RATE_HZ) -> bytes:
    """So many numbered pictures from number `first` on; its time is `first_ticks` of 90 kHz, of which 33 bits are
    sent."""
    made = io.BytesIO()
    with av.open(made, "w", format="mpegts", options={"mpegts_copyts": "1"}) as container:
        settings = {"g": str(key_every), "bf": "0"}
        if H264 == "libx264":
            settings |= {"preset": "veryfast", "tune": "zerolatency", "sc_threshold": "0"}
        stream = container.add_stream(H264, rate=RATE_HZ, options=settings)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        for number in range(num_frames):
            picture = av.VideoFrame.from_ndarray(numbered_picture((first + number) % MAX_NUMBER), format="rgb24")
            picture.time_base, picture.pts = Fraction(1, 90_000), first_ticks + number * TICKS
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return made.getvalue()


def in_real_time(data: bytes, lasts_s: float, ended: threading.Event) -> Iterator[bytes]:
    """The parts of a stream, given out evenly over the time that it lasts."""
    began_s = time.monotonic()
    num_blocks = -(-len(data) // _BLOCK)
    for number in range(num_blocks):
        if ended.wait(max(0.0, began_s + lasts_s * number / num_blocks - time.monotonic())):
            return
        yield data[number * _BLOCK : (number + 1) * _BLOCK]


Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class WebServer:
    """A web server on loopback: `pages` says what each path answers; all of it behind a password if there is one."""

    def __init__(self, port: int = 0, login: str = "") -> None:
        self.pages: dict[str, bytes | Answer] = {}
        self.asked: list[str] = []
        self.ended = threading.Event()
        wanted = "Basic " + base64.b64encode(login.encode()).decode() if login else None
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                page = outer.pages.get(self.path.partition("?")[0])
                if wanted and self.headers.get("Authorization") != wanted:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="cameras"')
                    self.end_headers()
                elif page is None:
                    self.send_error(404)
                elif isinstance(page, bytes):
                    send_page(self, page)
                else:
                    with suppress(OSError):  # the client went away
                        page(self)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def uri(self, path: str, user: str = "") -> str:
        return f"http://{user}{'@' if user else ''}127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> WebServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def send_page(handler: http.server.BaseHTTPRequestHandler, page: bytes) -> None:
    handler.send_response(200)
    kind = "application/vnd.apple.mpegurl" if page.startswith(b"#EXTM3U") else "video/mp2t"
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(page)))
    handler.end_headers()
    handler.wfile.write(page)


def endless(server: WebServer, data: bytes, lasts_s: float) -> Answer:
    """Sends MPEG-TS in real time and without a length, as a camera does."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp2t")
        handler.end_headers()
        for part in in_real_time(data, lasts_s, server.ended):
            handler.wfile.write(part)

    return answer


class LiveHls:
    """A playlist of the newest segments, each of a second, on a server; it moves on with time from its first
    request."""

    def __init__(self, server: WebServer, path: str, num_listed: int = 4) -> None:
        self._server, self._path, self._num_listed = server, path, num_listed
        self._began_s: float | None = None
        server.pages[f"{path}/live.m3u8"] = self._playlist

    def _playlist(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self._began_s = self._began_s or time.monotonic()
        first = int(time.monotonic() - self._began_s)
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        for number in range(first, first + self._num_listed):
            name = f"{self._path}/{number}.ts"
            if name not in self._server.pages:
                at = number * RATE_HZ
                self._server.pages[name] = transport_stream(RATE_HZ, first=at, first_ticks=90_000 + at * TICKS)
            lines += ["#EXTINF:1.000,", f"{number}.ts"]
        send_page(handler, "\n".join([*lines, ""]).encode())


@contextmanager
def tcp_sender(data: bytes, lasts_s: float) -> Iterator[int]:
    """Listens on a port, and sends the whole stream in real time to each who connects."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def serve() -> None:
            while not ended.is_set():
                with suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        for part in in_real_time(data, lasts_s, ended):
                            connection.sendall(part)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        ended.set()
        thread.join()


class UdpSender:
    """Sends streams in datagrams to a port of this machine, each in real time."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def send(self, data: bytes, lasts_s: float) -> None:
        def work() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for part in in_real_time(data, lasts_s, self._ended):
                    with suppress(OSError):
                        sender.sendto(part, self._to)

        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def __enter__(self) -> UdpSender:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

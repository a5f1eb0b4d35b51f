"""What attacks on addresses need: names that change, a server that nobody may be led to, answers that lead on, and
FFmpeg behind a gateway."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import av

from millpond.pipeline.serve.url_guard import UrlRules

if TYPE_CHECKING:
    from millpond.pipeline.serve.gateway import Gateway


class Names:
    """A resolver whose answers are set, and may change from one question to the next; the last one stays. Underscores
    in names are dots."""

    def __init__(self, **answers: list[str]) -> None:
        self.answers = {name.replace("_", "."): each for name, each in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host[0].isdigit() or ":" in host:
            return [host]
        left = self.answers[host]
        return [left.pop(0) if len(left) > 1 else left[0]]


class Inside:
    """What nobody may be led to: a server at another address of loopback, which counts who was."""

    def __init__(self) -> None:
        self.num_visits = 0
        self._listener = socket.create_server(("127.0.0.2", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                visitor = self._listener.accept()[0]
                self.num_visits += 1  # before whoever came can know that it is over
                visitor.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def leads_to(target: str, status: int = 302) -> Callable[[Any], None]:
    """What a page of a WebServer answers that is elsewhere."""

    def answer(handler: Any) -> None:
        handler.send_response(status)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def playlist(*names: str) -> bytes:
    """HLS of these segments, whole."""
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0"]
    for name in names:
        lines += ["#EXTINF:1.000,", name]
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()


def rules_with(names: Names) -> UrlRules:
    """To 127.0.0.1 alone, of all that is private."""
    schemes = ("rtsp", "rtsps", "http", "https", "tcp")
    return UrlRules(schemes=schemes, networks=("127.0.0.1/32",), resolver=names)


def num_frames(gateway: Gateway, uri: str, **options: str) -> int:
    """How many pictures FFmpeg gets through the gateway from an address, up to 5."""
    opening = gateway.opening(uri)
    given = {**opening.options, "rw_timeout": "3000000", **options}
    with av.open(opening.target, options=given, timeout=(5.0, 5.0), io_open=opening.io_open) as container:
        found = 0
        for _ in container.decode(video=0):
            found += 1
            if found == 5:
                break
    return found

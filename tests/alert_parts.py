"""What tests of alerts share: rules, a receiver of webhooks that misbehaves as it is told, and waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from millpond.pipeline.alerts.alert import Alert, new_alert
from millpond.pipeline.alerts.rule import AlertRule
from millpond.pipeline.alerts.secret import Secret
from millpond.pipeline.alerts.signing import HEADER, verify_signature
from millpond.pipeline.serve.url_guard import UrlRules
from millpond.stream import Span
from millpond.stream.backoff import Backoff

WORDS = "s3cr3t-of-the-front-door"
SECRET = Secret(WORDS)
AT_HOME = UrlRules(networks=("127.0.0.0/8",))
SOON = Backoff(first_s=0.01, longest_s=0.05)
WAIT_S = 60.0


def a_rule(**settings: Any) -> AlertRule:
    return AlertRule(**{"id": "fall", "stream_id": "hall", "says": "a person falls", **settings})


def an_alert(rule: AlertRule | None = None, at_s: float = 12.5) -> Alert:
    return new_alert(rule or a_rule(), at_s=at_s, wall="2026-11-22T01:30:00.000Z", spans=(Span(10.0, 12.5),))


def until(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, f"waited in vain: {what}"
        time.sleep(0.01)


class Got(NamedTuple):
    """A message that came. is_ours: its signature is right, as a receiver sees it."""

    path: str
    headers: dict[str, str]
    body: bytes
    is_ours: bool


class Receiver:
    """A webhook on a port of its own. Answers as `script` says, one reply a message, the last again and again: a
    status, "hang", "drip", "close", or a status and headers."""

    def __init__(self, script: list[Any], secret: Secret = SECRET) -> None:
        self.got: list[Got] = []
        self.script, self.secret = list(script), secret
        self.released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._handle(self)

            do_GET = do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/T0PSECRETPATH?key=alsos3cret"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        headers = dict(handler.headers.items())
        is_ours = verify_signature(self.secret, headers.get(HEADER, ""), body, now_s=time.time())
        self.got.append(Got(handler.path, headers, body, is_ours))
        reply = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if reply == "hang":
            self.released.wait(WAIT_S)
            handler.close_connection = True
        elif reply == "drip":  # each byte comes in time, and the answer never does
            while not self.released.wait(0.05):
                try:
                    handler.wfile.write(b"H" if not handler.close_connection else b"T")
                except OSError:
                    return
        elif reply == "close":
            handler.close_connection = True
            handler.connection.close()
        else:
            status, more = reply if isinstance(reply, tuple) else (reply, {})
            handler.send_response(status)
            for name, value in more.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()


@contextmanager
def receiving(*script: Any, secret: Secret = SECRET) -> Iterator[Receiver]:
    receiver = Receiver(list(script), secret)
    try:
        yield receiver
    finally:
        receiver.close()

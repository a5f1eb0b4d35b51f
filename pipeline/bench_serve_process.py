"""A server of Millpond's in a process of its own, for benchmarks: on loopback, with the built-in model and streams that
pass by the clock."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"

_CODE = f"from {__package__}.program import main; main()"
_BEGINS_WITHIN_S = 300.0
_ENDS_WITHIN_S = 60.0
_ANSWERS_WITHIN_S = 60.0
_LONG_S = 1800.0
_CONFIG = """
[server]
host = "{host}"
port = {port}
log_level = "warning"
[model]
name = "{model}"
fps = {fps}
[narration]
min_gap_s = 0.5
max_gap_s = {narrated_every_s}
max_new_tokens = 16
[limits]
num_followers = {num_followers}
num_connections = {num_connections}
"""
_STREAM = """
[[streams]]
id = "{name}"
source = "{source}"
as_live = true
"""


class Server:
    """One that is ready. `connect` gives a connection to it; a connection is one thread's."""

    def __init__(self, port: int, names: Sequence[str]) -> None:
        self.port, self.names = port, tuple(names)

    def connect(self, timeout_s: float = _ANSWERS_WITHIN_S) -> http.client.HTTPConnection:
        link = http.client.HTTPConnection(HOST, self.port, timeout=timeout_s)
        link.connect()
        assert link.sock is not None
        link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link

    def get(self, path: str) -> Any:
        """What a path answers; ConnectionError where that is an error."""
        return self.send("GET", path)

    def send(self, method: str, path: str, given: Any = None) -> Any:
        """The same for another method, over a connection of its own."""
        link = self.connect()
        try:
            headers = {} if given is None else {"Content-Type": "application/json"}
            link.request(method, path, None if given is None else json.dumps(given), headers)
            answer = link.getresponse()
            body = answer.read()
            if answer.status >= 300:
                raise ConnectionError(f"{path} answers {answer.status}: {body[:300].decode(errors='replace')}")
            return json.loads(body) if body else None
        finally:
            link.close()


def world(seed: int, fps: float, length_s: float) -> str:
    """The address of a world in which things come and go all the time."""
    settings = f"seed={seed}&duration_s={length_s:g}&rate_hz={fps:g}&width=320&height=240"
    return f"synthetic://shapes?{settings}&wide=1&objects=18"


@contextmanager
def running_server(
    model: str, *, num_streams: int, fps: float, narrated_every_s: float, num_followers: int
) -> Iterator[Server]:
    """Starts one, waits until it is ready, and ends it as a service manager would."""
    port = _free_port()
    names = [f"stream-{number}" for number in range(num_streams)]
    config = _CONFIG.format(
        host=HOST,
        port=port,
        model=model,
        fps=fps,
        narrated_every_s=narrated_every_s,
        num_followers=num_followers + 8,
        num_connections=2 * num_followers + 128,
    )
    config += "".join(_STREAM.format(name=name, source=world(seed, fps, _LONG_S)) for seed, name in enumerate(names, 1))
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as folder:
        path, log = Path(folder, "millpond.toml"), Path(folder, "log")
        path.write_text(config, encoding="utf-8")
        with log.open("wb") as told:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CODE, "serve", "--config", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
            )
        server = Server(port, names)
        try:
            _wait_until_ready(server, process, log)
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    until_s = time.monotonic() + _BEGINS_WITHIN_S
    problem = "nothing yet"
    while time.monotonic() < until_s:
        if process.poll() is not None:
            said = log.read_text(encoding="utf-8", errors="replace")[-1000:]
            raise ConnectionError(f"the server ended with {process.returncode} before it was ready: {said}")
        try:
            server.get("/readyz")
            return
        except (OSError, http.client.HTTPException) as error:
            problem = str(error)
            time.sleep(0.2)
    raise ConnectionError(f"the server was not ready within {_BEGINS_WITHIN_S:g} s: {problem}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port

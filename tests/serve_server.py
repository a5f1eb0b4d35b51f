"""A real server on a real port: uvicorn in a thread over the built-in model, or `millpond serve` in a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millpond.pipeline import Engine
from millpond.stream import Span

from .watched import mini

if TYPE_CHECKING:
    import httpx
    from fastapi import FastAPI

    from millpond.pipeline.serve.config_file import ServeConfig
    from millpond.pipeline.serve.streams import Streams

WAIT_S = 120.0
ENDED = "synthetic://shapes?seed=3&duration_s=12"
"""A world that is over soon: its narration and its keyframes are there."""
STEADY = "synthetic://shapes?seed=5&duration_s=3600&rate_hz=2"
"""One that goes on; as_live gives it by the clock."""


def until(is_so: Callable[[], Any], what: str = "it", wait_s: float = WAIT_S) -> Any:
    """Waits until this holds, and gives what it is."""
    deadline_s = time.monotonic() + wait_s
    while not (found := is_so()):
        assert time.monotonic() < deadline_s, f"waited in vain: {what}"
        time.sleep(0.02)
    return found


@dataclass
class Served:
    """A server that runs. url: where, without a slash at its end."""

    url: str
    streams: Streams
    config: ServeConfig
    app: FastAPI
    client: httpx.Client = field(repr=False)

    def wait_for(self, stream_id: str, *states: str) -> None:
        """Until a stream is in one of these states; by default, has ended."""
        until(lambda: self.streams.state(stream_id).state in (states or ("ended",)), f"{stream_id} {states}")

    def note(self, stream_id: str, text: str) -> int:
        """Has a line written into a stream's log where narrations are; its number, once those who follow are told."""
        hub = self.streams._room.hub
        assert hub is not None
        before = self.streams.last_event(stream_id)
        hub.look(stream_id, lambda session: session.history.note(text, Span(1.0, 2.0))).result(WAIT_S)
        number = next(row.number for row in self.streams.events(stream_id, after=before) if row.text == text)
        until(lambda: self.streams.last_event(stream_id) >= number, f"the desk knows of {text!r}")
        return number

    def wait_for_frame(self, stream_id: str) -> None:
        """Until a frame of it was taken and encoded."""
        until(lambda: self.streams.overlay(stream_id) is not None, f"a frame of {stream_id}")


@contextmanager
def served(given: Mapping[str, Any] | None = None, *, waits: bool = True, ray: str | None = None) -> Iterator[Served]:
    """A server in this process with these settings, as a config file would have them, on a free port.

    waits: until the model is loaded and the streams have begun. ray: "local": on the Ray of this process.
    """
    import httpx
    import uvicorn

    from millpond.pipeline.serve.app import alerts_of, make_app
    from millpond.pipeline.serve.config_file import config_of
    from millpond.pipeline.serve.connections import uvicorn_settings
    from millpond.pipeline.serve.serving import Server
    from millpond.pipeline.serve.streams import Streams

    config = config_of(given or {}, environment={})
    streams = Streams(config, ray=ray) if ray else Streams(config, engine=Engine(config.engine, model=mini()))
    alerts = alerts_of(streams, config)
    app = make_app(streams, config, alerts=alerts)
    settings = uvicorn.Config(
        app,
        host=config.server.host,
        port=0,
        log_config=None,
        timeout_graceful_shutdown=5,
        **uvicorn_settings(config.limits),
    )
    server = Server(settings, streams)
    thread = threading.Thread(target=server.run, name="test server", daemon=True)
    with streams, alerts:
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive(), "the server to start")
            assert thread.is_alive(), "the server did not start"
            port = server.servers[0].sockets[0].getsockname()[1]
            if waits:
                assert streams.wait_until_loaded(WAIT_S), streams.load_problem
            url = f"http://127.0.0.1:{port}"
            token = config.server.token
            headers = {} if token is None else {"Authorization": f"Bearer {token.reveal().decode()}"}
            with httpx.Client(base_url=url, headers=headers, timeout=WAIT_S, trust_env=False) as client:
                yield Served(url, streams, config, app, client)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server did not end"


class ServerProcess:
    """`millpond serve` as somebody runs it: a process, a config file, signals."""

    def __init__(self, config: Path, *, port: int = 0, environment: Mapping[str, str] | None = None) -> None:
        self._errors = config.with_suffix(".stderr")
        program = "from millpond.pipeline.serve.serving import serve; from millpond.pipeline.serve import read_config; "
        program += "from dataclasses import replace; import sys; c = read_config(sys.argv[1]); "
        program += "serve(replace(c, server=replace(c.server, port=int(sys.argv[2]))), "
        program += "on_listening=lambda place: print(place, flush=True))"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, str(config), str(port)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    @property
    def log(self) -> str:
        """What it said on standard error so far."""
        return self._errors.read_text(encoding="utf-8", errors="replace")

    def wait_until_ready(self) -> None:
        import httpx

        def is_ready() -> bool:
            assert self.process.poll() is None, self.log
            try:
                return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        until(is_ready, f"the server to be ready: {self.log[-2000:]}")

    def end(self, number: int = signal.SIGTERM, wait_s: float = 60.0) -> int:
        """Tells it to end; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(wait_s)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

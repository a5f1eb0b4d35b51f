"""Load on a server: clients that ask as fast as they are answered, and clients that follow a stream."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

from .bench_serve_process import Server
from .bench_streams_latency import percentiles

_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class LoadPlan:
    """So many clients on loopback, each with one connection, until the time is over or the requests are done."""

    num_clients: int = 8
    length_s: float = 5.0
    max_requests: int = 20_000

    def __post_init__(self) -> None:
        for name in ("num_clients", "length_s", "max_requests"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0; got {getattr(self, name)}")


def measure_load(server: Server, path: str, plan: LoadPlan) -> dict[str, Any]:
    """Requests for one path. requests_per_s: of all clients together; seconds: of each, to the last byte."""
    ends_s = time.perf_counter() + plan.length_s
    share = -(-plan.max_requests // plan.num_clients)
    asking = [_Asking(server, path, ends_s, share) for _ in range(plan.num_clients)]
    began_s = time.perf_counter()
    for one in asking:
        one.thread.start()
    for one in asking:
        one.thread.join()
    took_s = time.perf_counter() - began_s
    seconds = [second for one in asking for second in one.seconds]
    problems = [one.problem for one in asking if one.problem is not None]
    if problems:
        raise ConnectionError(f"a request for {path} failed: {problems[0]}")
    return {
        "path": path,
        "num_clients": plan.num_clients,
        "num_requests": len(seconds),
        "num_bytes": asking[0].num_bytes,
        "requests_per_s": len(seconds) / took_s,
        **{f"{name}_s": second for name, second in percentiles(seconds).items()},
    }


class _Asking:
    """One client."""

    def __init__(self, server: Server, path: str, ends_s: float, most: int) -> None:
        self._server, self._path, self._ends_s, self._most = server, path, ends_s, most
        self.seconds: list[float] = []
        self.num_bytes = 0
        self.problem: str | None = None
        self.thread = threading.Thread(target=self._run, name="millpond bench client", daemon=True)

    def _run(self) -> None:
        try:
            link = self._server.connect()
            while len(self.seconds) < self._most and (began_s := time.perf_counter()) < self._ends_s:
                link.request("GET", self._path)
                answer = link.getresponse()
                body = answer.read()
                self.seconds.append(time.perf_counter() - began_s)
                self.num_bytes = len(body)
                if answer.status != 200:
                    raise ConnectionError(f"status {answer.status}: {body[:200]!r}")
            link.close()
        except (OSError, http.client.HTTPException) as error:
            self.problem = str(error) or type(error).__name__


class Ages(NamedTuple):
    """How old the newest frame taken was, looked at again and again, and how often frames were taken."""

    age_s: list[float]
    frames_per_s: float
    num_dropped: int


def look_at_age(server: Server, name: str, length_s: float) -> Ages:
    """Asks for a stream's state for so long."""
    path = f"/v1/streams/{quote(name, safe='')}"
    link = server.connect()
    ages: list[float] = []
    states: list[dict[str, Any]] = []
    began_s = time.perf_counter()
    while True:
        link.request("GET", path)
        answer = link.getresponse()
        state = json.loads(answer.read())
        if answer.status != 200:
            raise ConnectionError(f"{path} answers {answer.status}: {state}")
        states = [*states[:1], state]
        if state["lag_s"] is not None:
            ages.append(state["lag_s"])
        took_s = time.perf_counter() - began_s
        if took_s >= length_s:
            link.close()
            num_frames = states[-1]["num_frames"] - states[0]["num_frames"]
            return Ages(ages, num_frames / took_s, states[-1]["num_dropped"] - states[0]["num_dropped"])
        time.sleep(_LOOK_EVERY_S)


@dataclass(eq=False)
class Follower:
    """One client that follows a stream by Server-Sent Events. num_lines: of the stream's log that came."""

    server: Server
    path: str
    num_lines: int = 0
    problem: str | None = None
    is_leaving: bool = False
    wire: socket.socket | None = None
    began: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        try:
            link = self.server.connect(timeout_s=120.0)
            self.wire = link.sock
            link.request("GET", self.path, headers={"Accept": "text/event-stream"})
            answer = link.getresponse()
            if answer.status != 200:
                raise ConnectionError(f"status {answer.status}: {answer.read(200)!r}")
            for line in answer:
                self.began.set()
                self.num_lines += line.startswith(b"data:")
        except (OSError, http.client.HTTPException) as error:
            if not self.is_leaving:  # its connection is closed under it when it is over
                self.problem = str(error) or type(error).__name__
        finally:
            self.began.set()

    def leave(self) -> None:
        self.is_leaving = True
        if self.wire is not None:
            with suppress(OSError):  # the server was quicker
                self.wire.shutdown(socket.SHUT_RDWR)


@contextmanager
def following(server: Server, name: str, num_clients: int) -> Iterator[Sequence[Follower]]:
    """So many clients follow a stream; all of them have begun to."""
    path = f"/v1/streams/{quote(name, safe='')}/events"
    followers = [Follower(server, path) for _ in range(num_clients)]
    threads = [threading.Thread(target=one.run, name="millpond bench follower", daemon=True) for one in followers]
    try:
        for thread in threads:
            thread.start()
        for one in followers:
            if not one.began.wait(60.0) or one.problem is not None:
                raise ConnectionError(f"a client cannot follow {name}: {one.problem or 'nothing comes'}")
        yield followers
    finally:
        for one in followers:
            one.leave()
        for thread in threads:
            thread.join(10.0)

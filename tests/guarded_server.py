"""A small app behind the guards, in a real uvicorn on a real port of loopback, and clients that do as they please."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from millpond.pipeline.alerts.secret import Secret
from millpond.pipeline.serve.connections import uvicorn_settings
from millpond.pipeline.serve.guard import install
from millpond.pipeline.serve.limits import Limits

TOKEN = "a-token-for-tests-only-0123456789"
MIB = 1 << 20


def small_app() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    @app.get("/healthz")
    def open_to_all() -> dict[str, str]:
        return {"page": "yes"}

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body(), media_type="application/json")

    @app.get("/name/{name}")
    def name(name: str) -> dict[str, str]:
        return {"name": name}

    @app.get("/header")
    def header(value: str) -> Response:
        return Response("{}", headers={"x-first": "1", "x-given": value}, media_type="application/json")

    @app.get("/fails")
    def fails() -> Response:
        raise RuntimeError("with rtsp://keeper7:QXpw@cam in it")

    @app.get("/much")
    def much(num_blocks: int = 4096) -> StreamingResponse:
        blocks = (bytes(64 << 10) for _ in range(num_blocks))
        return StreamingResponse(blocks, media_type="application/octet-stream")

    @app.get("/follow")
    async def follow() -> StreamingResponse:
        async def events() -> AsyncIterator[bytes]:
            number = 0
            while True:
                yield f"id: {number}\ndata: {number}\n\n".encode()
                number += 1
                await asyncio.sleep(0.05)

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/whole")
    def whole() -> JSONResponse:
        return JSONResponse({}, headers={"content-security-policy": "default-src 'self'", "cache-control": "no-cache"})

    return app


class GuardedServer:
    """Runs until the end of the `with`."""

    def __init__(self, *, token: str | None = None, names: tuple[str, ...] = (), **limits: Any) -> None:
        self.app = small_app()
        settings = SimpleNamespace(
            host="127.0.0.1", port=0, token=None if token is None else Secret(token), names=names
        )
        self.limits = Limits(**limits)
        install(self.app, SimpleNamespace(server=settings, limits=self.limits))  # type: ignore[arg-type]
        config = uvicorn.Config(
            self.app, host="127.0.0.1", port=0, log_config=None, lifespan="off", **uvicorn_settings(self.limits)
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> GuardedServer:
        self._thread.start()
        deadline_s = time.monotonic() + 60
        while not self._server.started:
            assert self._thread.is_alive() and time.monotonic() < deadline_s
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    @property
    def num_connections(self) -> int:
        return len(self._server.server_state.connections)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Told:
        """One request, written out as it stands; underscores in headers' names are hyphens."""
        given = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"}
        if body:
            given |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        given |= {key.replace("_", "-").title(): value for key, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in given.items() if value is not None)]
        return self.say("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def say(self, *parts: bytes) -> Told:
        """Bytes on a connection of their own, and what comes back until the server hangs up."""
        with self.connect() as connection:
            try:
                for part in parts:
                    connection.sendall(part)
            except OSError:
                pass  # it has heard enough; what it says to that is read
            return read_answer(connection)


class Told(NamedTuple):
    """An answer, taken apart. status: 0 where the server hung up without one."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        return values[0] if len(values) == 1 else None

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


def read_answer(connection: socket.socket) -> Told:
    heard = b""
    try:
        while block := connection.recv(1 << 16):
            heard += block
    except OSError:
        pass  # hung up on
    head, _, body = heard.partition(b"\r\n\r\n")
    if not head:
        return Told(0, [], b"")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    return Told(int(first.split()[1]), [(key.lower(), value.strip()) for key, _, value in pairs], body)

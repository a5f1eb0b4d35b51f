"""What a client is told that is turned away before any route has seen its request. The types that ASGI is spoken in."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]


async def refuse(
    send: Send, status: int, message: str, code: str, *, hangs_up: bool = False, headers: Iterable[Header] = ()
) -> None:
    """Answers with an error as the routes' own look.

    hangs_up: ends the connection: what the client goes on to send is not read.
    """
    kind = "server_error" if status >= 500 else "invalid_request_error"
    told = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    body = json.dumps(told).encode()
    given = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *([(b"connection", b"close")] if hangs_up else []),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": given})
    await send({"type": "http.response.body", "body": body})


def headers_of(scope: Scope, name: bytes) -> list[str]:
    """All values of a request's header, by its name in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def header_of(scope: Scope, name: bytes) -> str | None:
    """The one value of a header; None where there is none, or more than one."""
    values = headers_of(scope, name)
    return values[0] if len(values) == 1 else None

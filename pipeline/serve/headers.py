"""What stands around every request: a number to find it by, an address that means one thing, headers that protect."""

from __future__ import annotations

import logging
import re
import secrets

from .refusals import App, Header, Message, Receive, Scope, Send, header_of, headers_of, refuse

_log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z\-]+")
_HEADER_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_MAX_PATH_BYTES = 2_048
_MAX_QUERY_BYTES = 4_096
_MODELS = b"/v1/models/"

# For what is no page: nothing of it runs or loads anything. The page brings its own.
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PROTECTING: tuple[Header, ...] = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    (b"cache-control", b"no-store"),
)


class RequestFrame:
    """The outermost: gives each request a number, turns away addresses that could mean two things, adds the headers
    that protect where a route has set none, and lets no header out that a client has smuggled line breaks into. What
    a route did not catch becomes an answer, with the number and nothing else in it.

    The number is the client's own X-Request-Id where that is one, and is in `scope["state"]["request_id"]`.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header_of(scope, b"x-request-id") or ""
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        is_begun = False

        async def send_framed(message: Message) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                message = {**message, "headers": _framed(message.get("headers", ()), request_id)}
            await send(message)

        if headers_of(scope, b"content-length") and headers_of(scope, b"transfer-encoding"):
            told = "a body has a length or comes in chunks; got both"
            await refuse(send_framed, 400, told, "two_lengths", hangs_up=True)  # a proxy may have believed the other
            return
        if not is_plain_path(scope):
            await refuse(send_framed, 400, "the address has something in it that no address here has", "bad_path")
            return
        try:
            await self._app(scope, receive, send_framed)
        except Exception:
            if is_begun:
                raise  # the server hangs up, which is all that can still be told
            _log.exception("request %s failed: %s %s", request_id, scope["method"], scope["path"])
            told = f"something went wrong here; its number in the log is {request_id}"
            await refuse(send_framed, 500, told, "internal_error")


def is_plain_path(scope: Scope) -> bool:
    """Whether a path means the same to whoever splits it, decodes it or joins it to a folder: no dots that lead up, no
    backslash, no encoded slash, no control characters, once decoded and in characters.

    A model's name has a slash, which clients of the API encode: nothing is split or joined there.
    """
    path: str = scope["path"]
    raw: bytes = scope.get("raw_path") or b""
    if len(raw) > _MAX_PATH_BYTES or len(scope.get("query_string", b"")) > _MAX_QUERY_BYTES:
        return False
    shut = rb"%5c" if raw.startswith(_MODELS) else rb"%2f|%5c"
    if re.search(shut, raw, re.IGNORECASE) or "\\" in path or not path.startswith("/"):
        return False
    if any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 or letter == "\ufffd" for letter in path):
        return False
    return not any(part in (".", "..") for part in path.split("/"))


def _framed(headers: object, request_id: str) -> list[Header]:
    """A response's headers with those that protect."""
    kept: list[Header] = []
    for name, value in headers:  # type: ignore[attr-defined]
        if _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value):
            kept.append((name.lower(), value))
        else:
            _log.warning("a header of request %s was left out: it would have been more than one", request_id)
    names = {name for name, _ in kept}
    kept += [header for header in _PROTECTING if header[0] not in names]
    return [*[header for header in kept if header[0] != b"x-request-id"], (b"x-request-id", request_id.encode())]

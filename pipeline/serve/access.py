"""Who is let in: by token, by the name that the server was called by, and not by other people's web pages."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from dataclasses import dataclass, field

from .refusals import App, Receive, Scope, Send, header_of, headers_of, refuse

_MIN_TOKEN_CHARS = 16
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)(?::([0-9]{1,5}))?")
# The page has nothing in it to see; health is asked by those who start and stop servers, and tells no secret.
_OPEN = re.compile(r"/|/page/[A-Za-z0-9_.\-]+|/healthz|/readyz|/favicon\.ico")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a server that listens at `host`. Made from the section [server]; shows no token.

    token: what a client must show as `Authorization: Bearer ...`; None: nobody must. Needed unless `host` is this
        machine's loopback: without one such a server is refused here, before it listens.
    names: that the server may be called by, besides localhost and addresses.
    """

    host: str
    token: bytes | None = field(default=None, repr=False)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.token is None:
            if not is_loopback(self.host):
                raise ValueError(
                    f"a server that others can reach needs a token; got host={self.host!r} and none; set token_file "
                    "under [server] or MILLPOND_TOKEN, or listen on 127.0.0.1"
                )
        elif len(self.token) < _MIN_TOKEN_CHARS or not re.fullmatch(rb"[\x21-\x7e]+", self.token):
            raise ValueError(
                f"a token has {_MIN_TOKEN_CHARS} or more printable ASCII characters without spaces; got another; make "
                "one with: openssl rand -hex 32"
            )

    def is_called(self, host_header: str | None) -> bool:
        """Whether a request that says this of its Host can be meant for here. A page of another site can have its own
        name lead here, and then reads as if it were this server's: an address it cannot rename."""
        found = _HOST.fullmatch(host_header or "")
        if found is None:
            return False
        name = found[1].strip("[]").lower().rstrip(".")
        known = {"localhost", self.host.lower().rstrip("."), *(each.lower().rstrip(".") for each in self.names)}
        return name in known or _is_address(name)

    def lets_in(self, authorization: str | None) -> bool:
        """Whether this shows the token; takes as long whatever it shows."""
        if self.token is None:
            return True
        scheme, _, shown = (authorization or "").partition(" ")
        same = hmac.compare_digest(_digest(shown.strip(" ").encode("latin-1", "replace")), _digest(self.token))
        return same and scheme.lower() == "bearer"


class AccessGuard:
    """Turns away whoever may not use the server, before anything of a body is read.

    In this order: a Host that is not this server's (421); a request that a page of another site has a browser make
    (403); no token where one is needed (401). The page and health need none.
    """

    def __init__(self, app: App, *, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = header_of(scope, b"host")
        if not self._access.is_called(host):
            told = "this server is not called by that name; add it to names under [server] if it is"
            await refuse(send, 421, told, "wrong_host", hangs_up=True)
        elif not _is_own_page(scope, host or ""):
            told = "a page of another site may not use this server from its reader's browser"
            await refuse(send, 403, told, "wrong_origin", hangs_up=True)
        elif not (_OPEN.fullmatch(scope["path"]) and scope["method"] in ("GET", "HEAD")) and not self._access.lets_in(
            header_of(scope, b"authorization")
        ):
            told = "this server wants its token, as Authorization: Bearer ..."
            await refuse(send, 401, told, "invalid_api_key", hangs_up=True, headers=[(b"www-authenticate", b"Bearer")])
        else:
            await self._app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to what listens there."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_own_page(scope: Scope, host: str) -> bool:
    """Whether no browser says that another site asks. What is no browser says nothing."""
    origins = headers_of(scope, b"origin")
    if origins and [_place(origin.partition("://")[2]) for origin in origins] != [_place(host)]:
        return False
    site = header_of(scope, b"sec-fetch-site")
    if site in (None, "same-origin", "none"):
        return True
    # Somebody followed a link to here: it is shown to them, and to nobody else.
    is_link = header_of(scope, b"sec-fetch-mode") == "navigate" and header_of(scope, b"sec-fetch-dest") == "document"
    return is_link and scope["method"] == "GET"


def _place(text: str) -> tuple[str, str]:
    """Host and port of a Host header or an origin, as far as it can be told; the scheme's own port is none."""
    found = _HOST.fullmatch(text)
    if found is None:
        return ("", text)
    port = found[2] or ""
    return (found[1].lower().rstrip("."), "" if port in ("80", "443") else port)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _digest(words: bytes) -> bytes:
    return hashlib.sha256(words).digest()

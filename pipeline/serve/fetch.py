"""The web as clients name it: requests whose every hop is checked, and files that are as large as they may be."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin

from ...stream import SourceLost
from .dialing import dial
from .url_guard import CheckedUrl, UrlRefused, UrlRules, check_url

WEB = ("http", "https")
PLAIN = {"Accept": "*/*", "Accept-Encoding": "identity"}  # as it is, not packed: its length is what is limited
_BLOCK_BYTES = 64 << 10
_MAX_REPLY_BYTES = 64 << 10
_AGENT = "millpond"
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


class FetchFailed(SourceLost):
    """An address that is let through gave nothing that can be used: one sentence, with no credentials in it."""


class Reply(NamedTuple):
    """What a server answered to a request. body: its beginning."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetched(NamedTuple):
    """A file that came. url: where from at last, credentials masked. sha256: of its bytes, in hexadecimal."""

    path: Path
    num_bytes: int
    sha256: str
    url: str
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """Fetches and sends over http(s), to where the rules let it and nowhere else. May be shared by threads.

    Each connection goes to an address that was checked for it. Redirects are followed one by one, each checked as
    the first was; what leaves https does not go on over http, and a password does not follow to another host. No
    proxy of the environment is used.

    num_redirects: in a row, at most.
    connect_s: for each connection. total_s: for all of it, from the first connection to the last byte, however slowly
        they come.
    tls: for https; None: this machine's certificate authorities.
    """

    rules: UrlRules
    num_redirects: int = 3
    connect_s: float = 10.0
    total_s: float = 300.0
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def fetch(self, url: str, path: Path, *, most_bytes: int) -> Fetched:
        """Writes what is at `url` to `path`, which must not exist; nothing is left there where it fails.

        Raises:
            UrlRefused: the address, or one that it leads to, is not let through.
            FetchFailed: nothing usable came, or too much, or too slowly.
        """
        with closing(self._ask(url, "GET", None, PLAIN)) as connection:
            shown, reply = connection.where.shown, connection.reply
            if reply.status != 200:
                raise FetchFailed(f"{shown} answers with status {reply.status}; wanted a video")
            if reply.getheader("Content-Encoding", "identity").lower() != "identity":
                raise FetchFailed(f"{shown} sends what nobody asked for: a body packed by Content-Encoding")
            promised = reply.length  # None: it does not say
            if promised is not None and promised > most_bytes:
                raise FetchFailed(f"{shown} has {promised} bytes; at most {most_bytes} are taken")
            told, num_bytes = hashlib.sha256(), 0
            file_number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                with os.fdopen(file_number, "wb") as file:
                    while block := connection.read():
                        num_bytes += len(block)
                        if num_bytes > most_bytes:
                            raise FetchFailed(f"{shown} sends more than the {most_bytes} bytes that are taken")
                        told.update(block)
                        file.write(block)
                if promised is not None and num_bytes < promised:
                    raise FetchFailed(f"{shown} broke off after {num_bytes} of {promised} bytes")
            except BaseException:
                path.unlink(missing_ok=True)
                raise
            media_type = reply.getheader("Content-Type", "").partition(";")[0].strip().lower()[:100]
        return Fetched(path, num_bytes, told.hexdigest(), shown, media_type)

    def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Posts `body`, and follows no redirect: what is said to one is not for another.

        Raises:
            UrlRefused: the address is not let through.
            FetchFailed: nobody answered, or not in time.
        """
        with closing(self._ask(url, "POST", body, headers)) as connection:
            told = b""
            while len(told) < _MAX_REPLY_BYTES and (block := connection.read()):
                told += block
            return Reply(connection.reply.status, dict(connection.reply.getheaders()), told[:_MAX_REPLY_BYTES])

    def open(self, url: str, headers: Mapping[str, str], *, read_s: float) -> WebConnection:
        """A connection whose answer has begun, redirects followed; `total_s` is for that much. What follows may take as
        long as it likes, in pieces each within `read_s`. The caller closes it.

        Raises:
            UrlRefused: the address, or one that it leads to, is not let through.
            FetchFailed: nobody answered, or not in time.
        """
        connection = self._ask(url, "GET", None, headers)
        connection.go_on(read_s)
        return connection

    def _ask(self, url: str, method: str, body: bytes | None, headers: Mapping[str, str]) -> WebConnection:
        """The end of a chain of redirects, each of which was checked; of a POST, the first answer."""
        deadline_s = time.monotonic() + self.total_s
        where = check_url(url, self.rules, WEB)
        for _ in range(1 + self.num_redirects):
            connection = WebConnection(where, self, deadline_s)
            try:
                connection.ask(method, body, headers)
                if method != "GET" or not connection.is_redirect:
                    return connection
                where = self._next(where, connection.leads_to)
            except BaseException:
                connection.close()
                raise
            connection.close()
        raise UrlRefused(f"{where.shown} is led to by more than {self.num_redirects} redirects")

    def _next(self, where: CheckedUrl, target: str) -> CheckedUrl:
        """Where a redirect leads, checked as an address that a client gave."""
        following = check_url(urljoin(where.url, target), self.rules, WEB)
        if where.scheme == "https" and following.scheme == "http":
            raise UrlRefused(f"{where.shown} leads from https to http; give an address that stays with https")
        is_same = (where.scheme, where.host, where.port) == (following.scheme, following.host, following.port)
        user = where.user if is_same and following.user is None else following.user
        return CheckedUrl(following.scheme, following.host, following.port, user, following.rest)


class WebConnection:
    """One request over one connection that ends at the deadline, whatever the peer does: a timer hangs up, since a
    timeout for each read is met by a peer that sends a byte before each."""

    reply: http.client.HTTPResponse

    def __init__(self, where: CheckedUrl, web: Web, deadline_s: float) -> None:
        self.where = where
        self._web, self._deadline_s = web, deadline_s
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None
        self._is_late = False

    def ask(self, method: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        """Sends the request and reads the head of its answer."""
        where = self.where
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise self._late()
        with self._explained():
            raw = self._socket = dial(where.host, where.port, self._web.rules, min(self._web.connect_s, left_s))
            self._timer = threading.Timer(max(0.0, self._deadline_s - time.monotonic()), self._hang_up)
            self._timer.daemon = True
            self._timer.start()
            if where.scheme == "https":
                context = self._web.tls or ssl.create_default_context()
                self._socket = context.wrap_socket(raw, server_hostname=where.host)
            self._socket.settimeout(None)  # the timer sees to it
            connection = http.client.HTTPConnection(where.host, where.port)
            connection.sock = self._socket  # connected already: it looks up no name, and knows no proxy
            given = {"Host": where.place, "User-Agent": _AGENT, **headers, "Connection": "close"}
            if where.user is not None:
                given["Authorization"] = "Basic " + base64.b64encode(unquote(where.user).encode()).decode()
            connection.request(method, where.rest or "/", body=body, headers=given)
            self.reply = connection.getresponse()

    def read(self, num_bytes: int = _BLOCK_BYTES) -> bytes:
        """What comes next of the answer's body, up to so many bytes; nothing at its end."""
        with self._explained():
            return self.reply.read1(num_bytes)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever ends the connection, as a sentence."""
        shown = self.where.shown
        try:
            yield
        except UrlRefused:
            raise
        except ssl.SSLCertVerificationError as error:
            raise FetchFailed(f"{shown} shows no certificate that can be trusted: {error.verify_message}") from None
        except (http.client.HTTPException, OSError, ValueError, AttributeError) as error:
            # http.client meets a socket that is hung up in the midst of its work in more ways than OSError.
            if self._is_late or isinstance(error, TimeoutError):
                raise self._late() from None
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise FetchFailed(f"{shown} cannot be read: {reason.lower()}") from None
        if self._is_late:
            raise self._late()

    @property
    def is_redirect(self) -> bool:
        return self.reply.status in (301, 302, 303, 307, 308)

    @property
    def leads_to(self) -> str:
        """Where a redirect does. Raises FetchFailed where it does not say."""
        target = self.reply.getheader("Location")
        if not target:
            raise FetchFailed(f"{self.where.shown} redirects, and does not say where to")
        return quote(target.encode("latin-1"), safe=_PRINTABLE)

    def go_on(self, read_s: float) -> None:
        """From now on there is no deadline for all of it, and one for each piece."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._socket.settimeout(read_s)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._shut_down()  # the answer holds the socket too, and a close alone would wait for it
        if self._socket is not None:
            self._socket.close()

    def _hang_up(self) -> None:
        self._is_late = True
        self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it is gone already
                self._socket.shutdown(socket.SHUT_RDWR)

    def _late(self) -> FetchFailed:
        return FetchFailed(f"{self.where.shown} did not finish within {self._web.total_s:g} s")

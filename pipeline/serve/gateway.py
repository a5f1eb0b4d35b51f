"""Gateway: how FFmpeg reaches the streams that clients name: every connection that it makes is made here."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from ...stream.way import Opening, Way
from .dialing import dial
from .fetch import WEB, Web
from .pump import FAR_S, Cut, as_it_is, pump
from .rtsp_filter import RtspFilter
from .url_guard import CheckedUrl, UrlRefused, UrlRules, check_url
from .web_file import WebFile

_log = logging.getLogger(__name__)

_ACCEPT_S = 10.0


class Gateway(Way):
    """Connections for FFmpeg that go where the rules let them. By itself it looks a name up again, and goes on to
    wherever it is redirected, and to whatever a playlist names: so it is given no network.

        rtsp, rtsps, tcp:  FFmpeg --127.0.0.1, a port for one connection--> here --checked address--> camera
        http, https:       FFmpeg --a file--> here --checked address, for each request--> web

    Redirects are followed here, each checked, up to `num_redirects`. rtsps is undone here; as with FFmpeg itself, a
    camera's certificate is not verified, for hardly any has one that could be. That of https is. May be used by
    threads.

    connect_s: for which a peer may take to accept a connection and to begin its answer. read_s: for each piece of a
    file on the web.
    """

    def __init__(
        self, rules: UrlRules, *, num_redirects: int = 3, connect_s: float = 10.0, read_s: float = 10.0
    ) -> None:
        self._rules, self._num_redirects, self._connect_s, self._read_s = rules, num_redirects, connect_s, read_s
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_closed = False

    def opening(self, uri: str) -> Opening:
        """For one connection to `uri`, which is made now.

        Raises:
            SourceError: UrlRefused: it may not be opened, or what it leads to may not; or there is nothing there.
            OSError: its peer does not answer.
        """
        where = check_url(uri, self._rules)
        if self._is_closed:
            raise UrlRefused("the server is ending; nothing is opened any more")
        if where.scheme not in WEB:
            protocols = "tcp" if where.scheme == "tcp" else "rtsp,tcp"
            return Opening(self._relayed(where, self._num_redirects), {"protocol_whitelist": protocols}, None)
        web = Web(
            rules=self._rules, num_redirects=self._num_redirects, connect_s=self._connect_s, total_s=self._connect_s
        )
        first = WebFile(web, where.url, read_s=self._read_s)
        target = first.url  # after redirects: what a playlist there names is relative to it
        waiting = {target: first}

        def io_open(url: str, flags: int, options: dict[str, str]) -> WebFile:
            return waiting.pop(url, None) or WebFile(web, url, read_s=self._read_s)

        # Connections that HLS keeps are ones that FFmpeg made itself, which these are not.
        return Opening(target, {"protocol_whitelist": "none", "http_persistent": "0"}, io_open)

    def close(self) -> None:
        """Ends every connection through it; may be called again."""
        with self._lock:
            self._is_closed = True
            ending = list(self._open)
        for end in ending:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _relayed(self, where: CheckedUrl, num_redirects: int) -> str:
        """An address of loopback in its place, for one connection."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        listener.settimeout(_ACCEPT_S)
        port = listener.getsockname()[1]
        try:
            far = self._dial(where)
        except BaseException:
            listener.close()
            raise
        relay = threading.Thread(
            target=self._relay,
            args=(listener, far, where, num_redirects),
            name=f"millpond to {where.host}",
            daemon=True,
        )
        relay.start()
        scheme = "tcp" if where.scheme == "tcp" else "rtsp"
        user = "" if where.user is None else f"{where.user}@"
        return f"{scheme}://{user}127.0.0.1:{port}{where.rest}"

    def _dial(self, where: CheckedUrl) -> socket.socket:
        far = dial(where.host, where.port, self._rules, self._connect_s)
        if where.scheme != "rtsps":
            return far
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            return context.wrap_socket(far, server_hostname=where.host)
        except BaseException:
            far.close()
            raise

    def _relay(self, listener: socket.socket, far: socket.socket, where: CheckedUrl, num_redirects: int) -> None:
        """Carries one connection to its end; nobody else can make another."""
        near: socket.socket | None = None
        try:
            with listener:
                if not self._keep(listener, far):
                    return
                near, _ = listener.accept()
            if not self._keep(near):
                return
            near.settimeout(None)
            far.settimeout(FAR_S)
            if where.scheme == "tcp":
                pump(near, far, outward=as_it_is, inward=as_it_is)
                return
            talk = RtspFilter(lambda target: self._redirected(target, num_redirects))
            pump(near, far, outward=talk.outward, inward=talk.inward)
        except Cut as error:
            _log.warning("%s: %s", where.shown, error)
        except OSError as error:
            _log.debug("a connection to %s ended: %s", where.host, type(error).__name__)
        finally:
            with self._lock:
                self._open -= {listener, far, *([] if near is None else [near])}
            for end in (near, far):
                if end is not None:
                    end.close()

    def _redirected(self, target: str, num_redirects: int) -> str:
        if num_redirects < 1:
            raise UrlRefused("it leads on more often than is followed")
        return self._relayed(check_url(target, self._rules, ("rtsp", "rtsps")), num_redirects - 1)

    def _keep(self, *ends: socket.socket) -> bool:
        """Whether the gateway is still open, and closes these when it is closed."""
        with self._lock:
            self._open |= set(ends)
            return not self._is_closed

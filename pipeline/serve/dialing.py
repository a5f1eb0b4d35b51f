"""Connections to what clients name: to an address that was checked, never to a name that is looked up again."""

from __future__ import annotations

import socket
import time

from .url_guard import UrlRefused, UrlRules, check_host


def dial(host: str, port: int, rules: UrlRules, timeout_s: float) -> socket.socket:
    """A connection to one of the host's addresses; they are looked up and checked now, once.

        name --resolver, once--> addresses --each checked--> connect        nothing resolves it a second time

    Raises:
        UrlRefused: the host may not be reached.
        OSError: it may, and does not answer.
    """
    deadline_s = time.monotonic() + timeout_s
    problem: OSError = TimeoutError(f"{host} did not answer within {timeout_s:g} s")
    for address in check_host(host, port, rules):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            break
        try:
            connected = socket.create_connection((address, port), timeout=left_s)
        except OSError as error:
            problem = error
            continue
        if is_own_end(connected):
            connected.close()
            raise UrlRefused(f"{host}:{port} answers with itself; nothing listens there")
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected
    raise problem


def is_own_end(connected: socket.socket) -> bool:
    """Whether a connection to an unused port of this machine met itself, as TCP lets it."""
    return bool(connected.getsockname() == connected.getpeername())

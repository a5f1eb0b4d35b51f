"""Bytes between two sockets, until either ends."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable

Filter = Callable[[bytes], bytes]
_BLOCK_BYTES = 64 << 10
FAR_S = 60.0  # for which a peer may leave what it began to take or to say unfinished; silence is FFmpeg's to judge


class Cut(ConnectionError):
    """A connection that is ended because of what came over it: one sentence."""


def pump(near: socket.socket, far: socket.socket, *, outward: Filter, inward: Filter) -> None:
    """Carries bytes both ways, each through its filter, until one side ends or a filter raises Cut.

        near --outward--> far        near <--inward-- far

    One thread: a TLS connection is no two threads' to use. What one side does not take holds the other up.
    """
    ways = {near: (far, outward), far: (near, inward)}
    while True:
        waiting = [end for end in ways if isinstance(end, ssl.SSLSocket) and end.pending()]
        for end in waiting or select.select(list(ways), [], [])[0]:
            other, through = ways[end]
            try:
                block = end.recv(_BLOCK_BYTES)
            except (ssl.SSLWantReadError, InterruptedError):
                continue
            if not block:
                return
            if passed := through(block):
                other.sendall(passed)


def as_it_is(block: bytes) -> bytes:
    return block

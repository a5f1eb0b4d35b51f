"""Way: how FFmpeg gets to a live source: by itself, or to where somebody else has connected in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol


class Opening(NamedTuple):
    """What FFmpeg is told, to open one connection. Made by a Way, read by an Address.

    target: what it opens. options: what it is told besides, before what an Address would say. io_open: opens what it
    goes on to, and `target` itself, as a file (PyAV's `io_open`); None: it does so by itself.
    """

    target: str
    options: dict[str, str]
    io_open: Callable[[str, int, dict[str, str]], Any] | None


class Way(Protocol):
    """How to get there. May be used by several threads."""

    def opening(self, uri: str) -> Opening:
        """For one connection to `uri`, which may be made now.

        Raises:
            SourceError: it may not be opened, or there is nothing there.
            OSError: its peer does not answer.
        """


class StraightWay:
    """FFmpeg connects by itself, to whatever it finds at the address and is led to from there."""

    def opening(self, uri: str) -> Opening:
        return Opening(uri, {}, None)

    def __repr__(self) -> str:
        return "StraightWay()"

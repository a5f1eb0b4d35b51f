"""WebFile: something on the web as a file that FFmpeg reads from, so that it connects to nothing by itself."""

from __future__ import annotations

import os
import re

from ...stream import SourceError
from .fetch import PLAIN, FetchFailed, Web, WebConnection

_PLAYLIST = b"#EXTM3U"
_MAX_PLAYLIST_BYTES = 1 << 20
_MAX_OPENINGS = 256  # of one file: each seek to elsewhere is a request


class WebFile:
    """Reads in order, and elsewhere where the server says how long it is and gives parts of it. Not thread-safe.

    A playlist is held to a length: FFmpeg reads all of it into memory.

    Raises:
        SourceError: what the user has to set right: the address, the password.
        FetchFailed: what may be otherwise another time.
    """

    def __init__(self, web: Web, url: str, *, read_s: float) -> None:
        self._web, self._url, self._read_s = web, url, read_s
        self._connection: WebConnection | None = None
        self._place = self._stands_at = 0
        self._num_openings = 0
        self._beginning = b""
        self._num_bytes: int | None = None
        connection = self._open(0)
        self._found_at, reply = connection.where.url, connection.reply
        # Of parts of something packed nobody could tell where they are.
        if reply.getheader("Content-Encoding", "identity").lower() != "identity":
            self.close()
            raise FetchFailed(f"{self._shown} sends what nobody asked for: a body packed by Content-Encoding")
        self._num_bytes = reply.length
        self._gives_parts = reply.getheader("Accept-Ranges", "").lower() == "bytes"

    def read(self, num_bytes: int) -> bytes:
        """Up to so many bytes; none at the end."""
        if self._connection is None or self._place != self._stands_at:
            if self._num_bytes is not None and self._place >= self._num_bytes:
                return b""
            self._open(self._place)
        assert self._connection is not None
        block = self._connection.read(num_bytes)
        if len(self._beginning) == self._place < len(_PLAYLIST):
            self._beginning += block[: len(_PLAYLIST) - self._place]
        self._place += len(block)
        self._stands_at = self._place
        if self._beginning == _PLAYLIST and self._place > _MAX_PLAYLIST_BYTES:
            raise SourceError(f"{self._shown} sends a playlist of more than {_MAX_PLAYLIST_BYTES} bytes")
        return block

    @property
    def url(self) -> str:
        """Where it is, after redirects; with its password."""
        return self._found_at

    def seekable(self) -> bool:
        return self._num_bytes is not None

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes elsewhere; the request is made when something is read there. -1 where the server gives no parts: then
        FFmpeg goes on from where it was, and an exception would end it. To the beginning it goes by asking anew, after
        the first look at a short file; for the length to the end and back."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._num_bytes}[whence]
        if base is None or base + offset < 0:
            return -1
        is_for_its_length = whence == os.SEEK_END and offset in (0, -1)
        if not self._gives_parts and base + offset not in (0, self._stands_at) and not is_for_its_length:
            return -1
        self._place = base + offset
        return self._place

    def close(self) -> None:
        """Hangs up; may be called again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        # FFmpeg closes what it opens in passing, and PyAV forgets to with the first.
        if getattr(self, "_connection", None) is not None:
            self.close()

    @property
    def _shown(self) -> str:
        return "the server" if self._connection is None else self._connection.where.shown

    def _open(self, place: int) -> WebConnection:
        """A connection that gives what is there from `place` on."""
        self.close()
        self._num_openings += 1
        if self._num_openings > _MAX_OPENINGS:
            raise SourceError(f"a video's parts lie so far apart that it was asked for {_MAX_OPENINGS} times; fetch it")
        headers = {**PLAIN, "Range": f"bytes={place}-"} if place else PLAIN
        connection = self._connection = self._web.open(self._url, headers, read_s=self._read_s)
        self._stands_at = place
        reply, shown = connection.reply, connection.where.shown
        if reply.status in (401, 403):
            problem: Exception = SourceError(f"{shown} refuses the user name or password")
        elif reply.status in (404, 410):
            problem = SourceError(f"{shown} does not exist: the server answers {reply.status}, check the path")
        elif place and not re.match(rf"bytes {place}-", reply.getheader("Content-Range", "")):
            problem = FetchFailed(f"{shown} gives another part than it was asked for")
        elif reply.status != (206 if place else 200):
            problem = FetchFailed(f"{shown} answers with status {reply.status}; wanted a video")
        else:
            return connection
        self.close()
        raise problem

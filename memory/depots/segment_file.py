"""One append-only file of records: its header, and finding what is whole in it again."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

from .base import Kind
from .record import HEADER_BYTES, MAGIC, Header, read_header

SEGMENT_MAGIC = b"MPsg"
SEGMENT_VERSION = 1
# magic, version, nothing yet, kind, index, salt | crc of all before it.
_FIELDS = struct.Struct("<4sHH8sQI")
_CRC = struct.Struct("<I")
FILE_HEADER_BYTES = _FIELDS.size + _CRC.size

# Read at a time. A name that is no regular file must not make us wait, hence O_NONBLOCK.
_WINDOW_BYTES = 2**20
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_MAX_PARTS = 512  # that one writev takes


class Found(NamedTuple):
    """A record at `offset` whose header is whole; is_whole: its payload is so as well."""

    offset: int
    header: Header
    is_whole: bool

    @property
    def end(self) -> int:
        return self.offset + HEADER_BYTES + self.header.payload_bytes


class Gap(NamedTuple):
    """Bytes from `offset` to `end` that are no record."""

    offset: int
    end: int


def file_header_of(kind: Kind, index: int, salt: int) -> bytes:
    """What a segment begins with. `salt` is drawn for each one and seeds the crc of its records' headers, so
    that bytes of another segment inside a payload are never taken for records of this one."""
    fields = _FIELDS.pack(SEGMENT_MAGIC, SEGMENT_VERSION, 0, kind.encode(), index, salt)
    return fields + _CRC.pack(crc32(fields))


def read_file_header(data: bytes, kind: Kind, index: int) -> int | None:
    """The salt, or None where this is not the header of segment `index` of this kind."""
    if len(data) != FILE_HEADER_BYTES or _CRC.unpack_from(data, _FIELDS.size)[0] != crc32(data[: _FIELDS.size]):
        return None
    magic, version, _, name, found, salt = _FIELDS.unpack_from(data)
    if (magic, version, name.rstrip(b"\0"), found) != (SEGMENT_MAGIC, SEGMENT_VERSION, kind.encode(), index):
        return None
    return int(salt)


def open_to_read(path: str) -> int:
    """A file descriptor; OSError also for what is not a regular file."""
    fd = os.open(path, _READ)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path} is not a regular file")
    return fd


def read_at(fd: int, num_bytes: int, offset: int) -> bytes:
    """So many bytes, or fewer where the file ends."""
    data = os.pread(fd, num_bytes, offset)
    if len(data) == num_bytes or not data:
        return data
    parts, missing = [data], num_bytes - len(data)
    while missing and (data := os.pread(fd, missing, offset + num_bytes - missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def write_all(fd: int, parts: Sequence[bytes | memoryview]) -> None:
    """Writes all buffers at the end of the file; what is there after an OSError is for the caller to cut off."""
    left = [memoryview(part) for part in parts]
    while left:
        num_written = os.writev(fd, left[:_MAX_PARTS])
        num_whole = 0
        while num_whole < len(left) and num_written >= left[num_whole].nbytes:
            num_written -= left[num_whole].nbytes
            num_whole += 1
        del left[:num_whole]
        if num_written:
            left[0] = left[0][num_written:]


def scan(fd: int, start: int, end: int, salt: int) -> Iterator[Found | Gap]:
    """All from `start` to `end` in order, without holes: records, and gaps where there is none.

    After a gap it goes on at the next header that is whole. Reads all payloads, holds a window's worth.
    """
    window = _Window(fd, end)
    at = start
    while at < end:
        header = _header_at(window, at, salt)
        if header is None:
            after = _next_header(window, at + 1, salt)
            yield Gap(at, after)
            at = after
            continue
        found = Found(at, header, window.crc(at + HEADER_BYTES, header.payload_bytes) == header.payload_crc)
        yield found
        at = found.end


class _Window:
    """A stretch of a file in memory."""

    def __init__(self, fd: int, end: int) -> None:
        self.end = end
        self._fd = fd
        self._start = 0
        self._data = b""

    def view(self, at: int, num_bytes: int) -> memoryview:
        """Up to a window's worth; fewer bytes where the file ends."""
        if at < self._start or at + num_bytes > self._start + len(self._data):
            self._load(at)
        return memoryview(self._data)[at - self._start : at - self._start + num_bytes]

    def crc(self, at: int, num_bytes: int) -> int | None:
        """crc32 of a stretch of any length, or None where the file has got shorter."""
        crc = 0
        while num_bytes:
            part = self.view(at, min(num_bytes, _WINDOW_BYTES))
            if not part:
                return None
            crc = crc32(part, crc)
            at, num_bytes = at + len(part), num_bytes - len(part)
        return crc

    def find(self, what: bytes, at: int) -> int:
        """Where `what` is next, or `end`."""
        while at + len(what) <= self.end:
            if not self._start <= at <= self._start + len(self._data) - len(what):
                self._load(at)
                if len(self._data) < len(what):
                    break
            place = self._data.find(what, at - self._start)
            if place >= 0:
                return self._start + place
            at = self._start + len(self._data) - len(what) + 1
        return self.end

    def _load(self, at: int) -> None:
        num_bytes = max(0, min(_WINDOW_BYTES, self.end - at))
        self._start, self._data = at, read_at(self._fd, num_bytes, at)


def _header_at(window: _Window, at: int, salt: int) -> Header | None:
    header = read_header(window.view(at, HEADER_BYTES), salt=salt)
    return header if header is not None and at + HEADER_BYTES + header.payload_bytes <= window.end else None


def _next_header(window: _Window, at: int, salt: int) -> int:
    while (at := window.find(MAGIC, at)) < window.end:
        if _header_at(window, at, salt) is not None:
            return at
        at += 1
    return window.end

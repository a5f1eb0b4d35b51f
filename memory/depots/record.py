"""A record's frame: a header of fixed length, checked before anything it says is believed."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

MAGIC = b"MPrc"
VERSION = 1
PUT, DROP = 1, 2
# magic, version, what it does, nothing yet, number, length, crc of the payload | crc of all before it.
_FIELDS = struct.Struct("<4sBBHQQI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size


class Header(NamedTuple):
    """What stands before a payload: what is done to `number` (PUT or DROP), how many bytes follow, their crc32."""

    does: int
    number: int
    payload_bytes: int
    payload_crc: int


def header_of(does: int, number: int, parts: Iterable[memoryview] = (), *, salt: int = 0) -> bytes:
    """The header for these buffers. `salt` ties it to one place: a copy of it elsewhere does not pass there."""
    num_bytes = crc = 0
    for part in parts:
        num_bytes += part.nbytes
        crc = crc32(part, crc)
    fields = _FIELDS.pack(MAGIC, VERSION, does, 0, number, num_bytes, crc)
    return fields + _CRC.pack(crc32(fields, salt))


def read_header(data: bytes | memoryview, *, salt: int = 0) -> Header | None:
    """The header at the beginning of `data`, or None where there is none that is whole and ours."""
    if len(data) < HEADER_BYTES or data[:4] != MAGIC:
        return None
    fields = data[: _FIELDS.size]
    if _CRC.unpack_from(data, _FIELDS.size)[0] != crc32(fields, salt):
        return None
    _, version, does, _, number, num_bytes, crc = _FIELDS.unpack(fields)
    if version != VERSION or does not in (PUT, DROP) or number >= 1 << 63 or (does == DROP and num_bytes):
        return None
    return Header(does, number, num_bytes, crc)

"""McapFile: where the pieces of an MCAP recording are, and what is in one. The file is hostile until checked."""

from __future__ import annotations

import io
import struct
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from .require import require
from .source import SourceError

if TYPE_CHECKING:
    from mcap.records import Channel, Message, Schema

# As https://mcap.dev/spec has it: a magic, records of [opcode, length, content], a footer, the magic again.
_MAGIC = b"\x89MCAP0\r\n"
_HEAD = struct.Struct("<BQ")
_CHUNK_HEAD = struct.Struct("<QQQII")  # start, end, uncompressed size, its CRC, length of the compression's name
_MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_FOOTER_BYTES = _HEAD.size + 20 + len(_MAGIC)
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _CHUNK_INDEX, _DATA_END = 2, 3, 4, 5, 6, 8, 15
_MAX_SPECIFIED, _PRIVATE = 15, 128  # opcodes between mean nothing yet
_COMPRESSIONS = ("", "lz4", "zstd")

MAX_CHUNK_BYTES = 64 * 2**20
_MAX_NAMES_BYTES = 4 * 2**20  # of one schema or channel
_MAX_DESCRIBED_BYTES = 64 * 2**20  # of all of them that stand in chunks, which may be packed to next to nothing
_MAX_SUMMARY_BYTES = 256 * 2**20
_MAX_CHANNELS = 65536
_MAX_PIECES = 4_000_000
_EMPTY_BYTES = 32  # what nothing is packed to, at most
_MAX_CHUNK_NS = 30 * 86_400 * 10**9
_RUN_BYTES = 2**20  # messages outside of chunks are read so many at a time
_LOOK_FOR_CHANNELS = 8  # pieces at least, where the file has no summary that tells them


class DamagedPiece(ValueError):
    """What is there cannot be read, or is not what its own head says."""


class Piece(NamedTuple):
    """A stretch of the file with messages: a chunk, or messages that are in none.

    start_ticks, end_ticks: its first and last time, in nanoseconds as the file counts.
    problem: what is wrong with it, where that is known before it is read.
    """

    number: int
    offset: int
    num_bytes: int
    start_ticks: int
    end_ticks: int
    is_chunk: bool
    problem: str | None = None


class McapFile:
    """An MCAP recording: its pieces in order of their first time, and the channels and schemas by number.

    What is in the file is found by walking over its records, so a recording that was cut off is read up to there. The
    summary at its end, where there is one, says where to go on after a record that cannot be stepped over.

    max_chunk_bytes: a chunk that says it unpacks to more is damaged.
    cut_off: how the recording ends before its end; None where it is whole.
    """

    def __init__(self, path: Path, *, max_chunk_bytes: int = MAX_CHUNK_BYTES) -> None:
        self.path = path
        self.max_chunk_bytes = max_chunk_bytes
        self.schemas: dict[int, Schema] = {}
        self.channels: dict[int, Channel] = {}
        self.cut_off: str | None = None
        self._pieces: list[Piece] = []
        self._described_bytes = 0
        self._told: dict[int, tuple[int, int]] = {}  # what the summary tells of chunks, by their place
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise SourceError(f"{path} is no MCAP file: it does not begin as one")
            self._told = self._read_summary(file)
            self._offsets = sorted(self._told)
            self._walk(file)
        self._add_what_was_passed_over()
        self.pieces = tuple(sorted(self._pieces, key=lambda piece: (piece.start_ticks, piece.number)))

    @property
    def times_ticks(self) -> tuple[int, int]:
        """Time of the first and of the last message, damaged pieces included where the summary tells theirs; zeros
        where nobody knows."""
        told = [(piece.start_ticks, piece.end_ticks) for piece in self.pieces if piece.problem is None]
        told = [(start_ticks, end_ticks) for start_ticks, end_ticks in (*told, *self._told.values()) if end_ticks > 0]
        return min((start for start, _ in told), default=0), max((end for _, end in told), default=0)

    def look_for(self, wanted: str | None) -> None:
        """Reads pieces for channels that no summary told: all until there is one of that topic, or a few.

        wanted: a topic; None: any.
        """
        with self.path.open("rb") as file:
            for number, piece in enumerate(self.pieces):
                topics = {channel.topic for channel in self.channels.values()}
                if wanted in topics or (wanted is None and topics and number >= _LOOK_FOR_CHANNELS):
                    return
                try:
                    for _ in self.read(file, piece, ()):
                        pass
                except DamagedPiece:
                    continue

    def read(self, file: IO[bytes], piece: Piece, wanted: Collection[int]) -> list[Message]:
        """The messages of these channels in a piece, as they stand there. Takes in schemas and channels, too.

        Raises:
            DamagedPiece: and then nothing of it was taken in.
        """
        if piece.problem is not None:
            raise DamagedPiece(piece.problem)
        file.seek(piece.offset)
        data = file.read(piece.num_bytes)
        if len(data) != piece.num_bytes:
            raise DamagedPiece(f"{piece.num_bytes - len(data)} of its bytes are missing")
        try:
            records = _unpack(data, self.max_chunk_bytes) if piece.is_chunk else data
            return self._take(records, piece, wanted)
        except (DamagedPiece, ImportError):
            raise
        except Exception as error:  # two decompressors and a parser over bytes from a file: they raise anything
            raise DamagedPiece(f"{type(error).__name__}: {str(error)[:120]}") from error

    def _take(self, records: bytes, piece: Piece, wanted: Collection[int]) -> list[Message]:
        from mcap.data_stream import ReadDataStream
        from mcap.records import Channel, Message, Schema

        found: list[Message] = []
        schemas, channels = dict(self.schemas), dict(self.channels)
        described_bytes = self._described_bytes
        for opcode, body in _records(records):
            if opcode == _MESSAGE:
                channel_id, _, log_ticks, _ = _MESSAGE_HEAD.unpack_from(body)
                if not piece.start_ticks <= log_ticks <= piece.end_ticks:
                    raise DamagedPiece("a message in it is of another time than its head says")
                if channel_id not in channels:
                    raise DamagedPiece(f"a message in it is of channel {channel_id}, which nothing describes")
                if channel_id in wanted:
                    found.append(Message.read(_stream(ReadDataStream, body), len(body)))
            elif opcode == _SCHEMA and len(body) <= _MAX_NAMES_BYTES:
                schema = Schema.read(_stream(ReadDataStream, body))
                described_bytes += len(body) * (schema.id not in schemas)
                _learn(schemas, schema.id, schema, "schema")
            elif opcode == _CHANNEL and len(body) <= _MAX_NAMES_BYTES:
                channel = Channel.read(_stream(ReadDataStream, body))
                described_bytes += len(body) * (channel.id not in channels)
                _learn(channels, channel.id, channel, "channel")
            if described_bytes > _MAX_DESCRIBED_BYTES:
                raise DamagedPiece(f"with it, schemas and channels take more than {_MAX_DESCRIBED_BYTES} bytes")
        self.schemas, self.channels, self._described_bytes = schemas, channels, described_bytes
        return found

    def _walk(self, file: IO[bytes]) -> None:
        """Steps from record to record through the data, and notes the pieces."""
        num_bytes = file.seek(0, io.SEEK_END)
        at = len(_MAGIC)
        while True:
            file.seek(at)
            head = file.read(_HEAD.size)
            opcode, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
            if opcode in (_DATA_END, _FOOTER):
                return
            end = at + _HEAD.size + length
            is_known = 0 < opcode <= _MAX_SPECIFIED or opcode >= 0x80
            why = (
                "is no record"
                if not is_known
                else "is a record that is longer than the file"
                if end > num_bytes
                else ""
            )
            if not why:
                why = self._note(file, opcode, at, length)
            if why:
                place = bisect_right(self._offsets, at)
                further = self._offsets[place] if place < len(self._offsets) else None
                what = f"what stands at byte {at} {why}"
                if further is None:
                    self.cut_off = "it was cut off" if len(head) < _HEAD.size else what
                    return
                self._add(at, further - at, *self._told.get(at, self._after_last), False, what)
                end = further
            at = end

    def _note(self, file: IO[bytes], opcode: int, at: int, length: int) -> str:
        """Notes one record; in words what is wrong, where the walk cannot go on behind it."""
        whole = _HEAD.size + length
        if opcode == _CHUNK:
            head = file.read(_CHUNK_HEAD.size)
            if len(head) < _CHUNK_HEAD.size:
                return "is a chunk without a head"
            start_ticks, end_ticks, unpacked, _, num_letters = _CHUNK_HEAD.unpack(head)
            name = file.read(num_letters) if num_letters <= 16 else b"?" * 17
            (packed,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            if _CHUNK_HEAD.size + len(name) + 8 + packed != length:
                return "is a chunk whose head is damaged"
            problem = None
            if name.decode("ascii", "replace") not in _COMPRESSIONS:
                problem = f"it is compressed with {name!r}; wanted one of {', '.join(_COMPRESSIONS[1:])}"
            elif max(unpacked, packed) > self.max_chunk_bytes:
                problem = f"it says that it has {unpacked} bytes, more than max_chunk_bytes={self.max_chunk_bytes}"
            elif not 0 <= end_ticks - start_ticks <= _MAX_CHUNK_NS:
                problem, (start_ticks, end_ticks) = "its times cannot be true", self._after_last
            elif self._told.get(at, (start_ticks, end_ticks)) != (start_ticks, end_ticks):
                problem = "its head and the file's summary say different times"
                start_ticks, end_ticks = self._told[at]
            if unpacked or packed > _EMPTY_BYTES:
                self._add(at, whole, start_ticks, end_ticks, True, problem)
        elif opcode == _MESSAGE:
            if length < _MESSAGE_HEAD.size:
                return "is a message without a head"
            _, _, log_ticks, _ = _MESSAGE_HEAD.unpack(file.read(_MESSAGE_HEAD.size))
            problem = None if whole <= self.max_chunk_bytes else f"it has more than {self.max_chunk_bytes} bytes"
            self._add_message(at, whole, log_ticks, problem)
        elif opcode in (_SCHEMA, _CHANNEL) and length <= _MAX_NAMES_BYTES:
            self._describe(opcode, file.read(length))
        return ""

    def _add(self, at: int, num: int, start_ticks: int, end_ticks: int, is_chunk: bool, problem: str | None) -> None:
        if len(self._pieces) >= _MAX_PIECES:
            raise SourceError(f"{self.path} has more than {_MAX_PIECES} chunks; the file is damaged or hostile")
        self._pieces.append(Piece(len(self._pieces), at, num, start_ticks, end_ticks, is_chunk, problem))

    def _add_message(self, at: int, num_bytes: int, log_ticks: int, problem: str | None) -> None:
        """Joins a message to the run of messages before it, where they stand together."""
        last = self._pieces[-1] if self._pieces else None
        joins = last is not None and not (last.is_chunk or last.problem or problem)
        if last is None or not joins or last.offset + last.num_bytes != at or last.num_bytes > _RUN_BYTES:
            self._add(at, num_bytes, log_ticks, log_ticks, False, problem)
            return
        self._pieces[-1] = last._replace(
            num_bytes=last.num_bytes + num_bytes,
            start_ticks=min(last.start_ticks, log_ticks),
            end_ticks=max(last.end_ticks, log_ticks),
        )

    @property
    def _after_last(self) -> tuple[int, int]:
        """What is taken for the time of a piece that does not tell its own: right after what is before it."""
        after_ticks = 1 + (self._pieces[-1].end_ticks if self._pieces else 0)
        return after_ticks, after_ticks

    def _add_what_was_passed_over(self) -> None:
        """A chunk whose first byte is damaged may look like a record that is none of ours."""
        found = {piece.offset for piece in self._pieces}
        damaged = [piece for piece in self._pieces if piece.problem is not None]  # in order of their places
        begins = [piece.offset for piece in damaged]
        for offset, (start_ticks, end_ticks) in self._told.items():
            if offset in found or not end_ticks or self.cut_off is not None:
                continue
            place = bisect_right(begins, offset) - 1
            if place < 0 or offset >= damaged[place].offset + damaged[place].num_bytes:
                self._add(offset, 0, start_ticks, end_ticks, True, "the summary tells of a chunk, and there is none")

    def _read_summary(self, file: IO[bytes]) -> dict[int, tuple[int, int]]:
        """Takes in channels and schemas; gives where chunks begin, each with its first and last time. Nothing of a
        summary that does not fit its checksum."""
        num_bytes = file.seek(0, io.SEEK_END)
        if num_bytes < _FOOTER_BYTES + len(_MAGIC):
            return {}
        file.seek(num_bytes - _FOOTER_BYTES)
        footer = file.read(_FOOTER_BYTES)
        start, _, crc = struct.unpack_from("<QQI", footer, _HEAD.size)
        length = num_bytes - _FOOTER_BYTES - start
        is_whole = footer.endswith(_MAGIC) and _HEAD.unpack_from(footer) == (_FOOTER, 20)
        if not is_whole or not start or not 0 < length <= _MAX_SUMMARY_BYTES:
            return {}
        file.seek(start)
        summary = file.read(length)
        if crc and zlib.crc32(footer[: _HEAD.size + 16], zlib.crc32(summary)) != crc:
            return {}
        chunks: dict[int, tuple[int, int]] = {}
        try:
            for opcode, body in _records(summary):
                if opcode in (_SCHEMA, _CHANNEL) and len(body) <= _MAX_NAMES_BYTES:
                    self._describe(opcode, bytes(body))
                elif opcode == _CHUNK_INDEX and len(body) >= 24:
                    start_ticks, end_ticks, offset = struct.unpack_from("<QQQ", body)
                    chunks[offset] = (start_ticks, end_ticks)
        except DamagedPiece:
            return {}  # the walk finds what it does not tell
        return {offset: times for offset, times in chunks.items() if offset < start and len(chunks) <= _MAX_PIECES}

    def _describe(self, opcode: int, body: bytes) -> None:
        """Takes in one schema or channel that stands outside of the chunks; what is none is left out."""
        from mcap.data_stream import ReadDataStream
        from mcap.exceptions import McapError
        from mcap.records import Channel, Schema

        try:
            if opcode == _SCHEMA:
                schema = Schema.read(_stream(ReadDataStream, body))
                _learn(self.schemas, schema.id, schema, "schema")
            else:
                channel = Channel.read(_stream(ReadDataStream, body))
                _learn(self.channels, channel.id, channel, "channel")
        except (DamagedPiece, McapError, ValueError, struct.error):
            return


def _stream(reader: type, body: bytes | memoryview) -> object:
    return reader(io.BytesIO(body))


def _records(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """The records that stand one after the other in these bytes; DamagedPiece where one is longer than they are."""
    view, at = memoryview(data), 0
    while at < len(view):
        if at + _HEAD.size > len(view):
            raise DamagedPiece("it ends in the middle of a record")
        opcode, length = _HEAD.unpack_from(view, at)
        at += _HEAD.size
        if at + length > len(view) or (opcode == _MESSAGE and length < _MESSAGE_HEAD.size):
            raise DamagedPiece("a record in it has a length that cannot be")
        yield opcode, view[at : at + length]
        at += length


def _learn(known: dict[int, object], number: int, what: object, kind: str) -> None:  # type: ignore[type-arg]
    """Every record of a schema or channel says the same, or the file cannot be trusted from here on."""
    if known.setdefault(number, what) != what:
        raise DamagedPiece(f"it says otherwise than before what {kind} {number} is")
    if len(known) > _MAX_CHANNELS:
        raise DamagedPiece(f"it has more than {_MAX_CHANNELS} {kind}s")


def _unpack(record: bytes, max_bytes: int) -> bytes:
    """The records of a chunk, decompressed to the size that its head says and no further, and compared to its CRC."""
    _, _, num_bytes, crc, num_letters = _CHUNK_HEAD.unpack_from(record, _HEAD.size)
    at = _HEAD.size + _CHUNK_HEAD.size
    compression = record[at : at + num_letters].decode("ascii")
    packed = memoryview(record)[at + num_letters + 8 :]
    if num_bytes > max_bytes:
        raise DamagedPiece(f"it says that it has {num_bytes} bytes, more than max_chunk_bytes={max_bytes}")
    if compression == "zstd":
        zstandard = require("zstandard", who="robot logs", extra="robot")
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            data = reader.read(num_bytes + 1)
    elif compression == "lz4":
        frames = require("lz4.frame", who="robot logs", extra="robot")
        data = frames.LZ4FrameDecompressor().decompress(packed, max_length=num_bytes + 1)
    else:
        data = bytes(packed)
    if len(data) != num_bytes:
        raise DamagedPiece(f"it does not unpack to the {num_bytes} bytes that its head says")
    if crc and zlib.crc32(data) != crc:
        raise DamagedPiece("its checksum does not fit")
    return data

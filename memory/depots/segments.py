"""SegmentLog: the records of one kind, in append-only files that are deleted when all in them is dead."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

from .base import Kind, as_depot_error
from .record import DROP, HEADER_BYTES, PUT, header_of, read_header
from .segment_books import Place, Segment, SegmentBooks
from .segment_file import (
    FILE_HEADER_BYTES,
    Found,
    Gap,
    file_header_of,
    open_to_read,
    read_at,
    read_file_header,
    scan,
    write_all,
)

_log = logging.getLogger(__name__)
_NAME = re.compile(r"(\d{8,15})\.seg")
_MAX_FAULTS = 50
_MAX_LOOKS = 8  # for a file that compaction takes away between finding and opening it
_SKIPS_AFTER_FAILURE = 64  # puts and drops until compaction is tried again


class SegmentLog:
    """Records by number in `<folder>/NNNNNNNN.seg`; of several with one number the last written counts.

    The last file is appended to until it has segment_bytes. A file without needed records is deleted. Where dead
    bytes exceed the living by more than an eighth of segment_bytes, the needed records of the emptiest file are
    appended anew and the file deleted, so that at rest a log takes at most 2 x living + segment_bytes / 8, file
    headers and one record.

    One thread writes. `get`, `numbers` and `num_bytes` may be called by others meanwhile. A read_only log looks
    again at what another process has written whenever it is asked.
    """

    def __init__(self, folder: Path, kind: Kind, *, segment_bytes: int, read_only: bool) -> None:
        self.folder, self.kind, self.segment_bytes, self.read_only = folder, kind, segment_bytes, read_only
        self._books = SegmentBooks()
        self._faults: list[str] = []
        self._num_faults = 0
        self._bad: set[int] = set()  # what is there and not read
        self._top = 0  # no file has a higher index
        self._active: Segment | None = None
        self._fd = -1
        self._unflushed: set[int] = set()
        self._is_folder_unflushed = self._has_told = False
        self._num_skips = 0
        self._look()
        if not read_only:
            self._continue_last()
            self._delete_dead()

    @property
    def faults(self) -> list[str]:
        """Sentences on what was found damaged."""
        more = self._num_faults - len(self._faults)
        return [*self._faults, *([f"{self.folder}: {more} more such places"] if more else [])]

    def put(self, number: int, parts: Sequence[memoryview]) -> None:
        """Appends; DepotError, and nothing is changed, where it cannot."""
        self._append(PUT, number, parts)
        self._tidy()

    def drop(self, number: int) -> None:
        """Appends a drop where the number is here."""
        if number in self._books.living:
            self._append(DROP, number, ())
            self._tidy()

    def get(self, number: int) -> bytes | None:
        """The payload, or None where it is not here or is damaged."""
        for _ in range(_MAX_LOOKS):
            with self._books.lock:
                if self.read_only and number not in self._books.living:
                    self._look()
                place = self._books.living.get(number)
                if place is None:
                    return None
                segment = self._books.segments[place.index]
            try:
                return self._read(segment, place, number)
            except FileNotFoundError:  # compacted away meanwhile
                if self.read_only:
                    self._look()
        return None

    def numbers(self) -> list[int]:
        """Numbers of the records that are here, increasing."""
        if self.read_only:
            self._look()
        with self._books.lock:
            return sorted(self._books.living)

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        with self._books.lock:
            return self._books.num_bytes

    def flush(self) -> None:
        """What was written is on the disk; DepotError where that is not certain."""
        try:
            for index in sorted(self._unflushed):
                segment = self._books.segments.get(index)
                if segment is not None and segment is self._active:
                    os.fdatasync(self._fd)
                elif segment is not None:
                    sync_path(segment.path)
            self._unflushed.clear()
            if self._is_folder_unflushed:
                sync_path(self.folder)
            self._is_folder_unflushed = False
        except OSError as error:
            self._seal()  # what the system did with the pages that failed is unknown: nothing goes after them
            raise as_depot_error(error, f"cannot flush {self.folder}") from error

    def close(self) -> None:
        """Lets go of the file that is being written."""
        self._seal()

    def check(self) -> None:
        """Reads all files anew, and compares."""
        again = SegmentLog(self.folder, self.kind, segment_bytes=self.segment_bytes, read_only=True)
        with self._books.lock:
            self._books.compare(again._books, str(self.folder))

    # Writing

    def _append(self, does: int, number: int, parts: Sequence[memoryview]) -> None:
        num_bytes = HEADER_BYTES + sum(part.nbytes for part in parts)
        if self._active is not None and self._active.num_bytes + num_bytes > self.segment_bytes:
            if self._active.num_bytes > FILE_HEADER_BYTES:
                self._roll()
        segment = self._active or self._begin()
        is_whole = False
        try:
            write_all(self._fd, [header_of(does, number, parts, salt=segment.salt), *parts])
            is_whole = True
        except OSError as error:
            raise as_depot_error(error, f"cannot write {num_bytes} bytes to {segment.path}") from error
        finally:
            if not is_whole:
                self._cut_back(segment)
        self._unflushed.add(segment.index)
        with self._books.lock:
            place = Place(segment.index, segment.num_bytes, num_bytes - HEADER_BYTES)
            segment.num_bytes += num_bytes
            if does == PUT:
                self._books.put(number, place)
            else:
                self._books.drop(number, segment)

    def _cut_back(self, segment: Segment) -> None:
        """Takes half a record off again; where even that fails, no more goes into this file until it is opened anew."""
        try:
            os.ftruncate(self._fd, segment.num_bytes)
        except OSError:
            self._seal()

    def _begin(self) -> Segment:
        index, salt = self._top + 1, int.from_bytes(os.urandom(4), "little")
        path = self._path(index)
        try:
            if not self.folder.is_dir():
                self.folder.mkdir()
                sync_path(self.folder.parent)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
            write_all(self._fd, [file_header_of(self.kind, index, salt)])
        except OSError as error:
            if self._fd >= 0:
                self._seal()
                os.unlink(path)
            raise as_depot_error(error, f"cannot begin {path}") from error
        self._unflushed.add(index)
        self._is_folder_unflushed = True
        with self._books.lock:
            self._top = index
            self._active = self._books.segments[index] = Segment(path, index, salt)
        return self._active

    def _continue_last(self) -> None:
        """The newest file is appended to again, so that many short lives do not leave many short files."""
        last = self._books.segments.get(self._top)
        if last is not None:
            self._unflushed.add(last.index)  # who wrote it may have been killed
            if last.num_bytes < self.segment_bytes:
                self._fd = os.open(last.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                self._active = last

    def _roll(self) -> None:
        """The next record begins a new file; this one is flushed, for nobody will come back to do it."""
        self.flush()
        self._seal()

    def _seal(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._active = -1, None

    # Making room

    def _tidy(self) -> None:
        """Deletes and compacts. What it cannot do now it does later: the record before is written all the same."""
        try:
            self._delete_dead()
            self._num_skips = max(0, self._num_skips - 1)
            while not self._num_skips and self._has_too_much_dead():
                self._compact(max(self._books.segments.values(), key=lambda s: s.dead_bytes / s.num_bytes))
                self._delete_dead()
        except OSError as error:
            self._num_skips = _SKIPS_AFTER_FAILURE
            _log.info("%s: dead records stay for now: %s", self.folder, error)  # of a full disk, the writer warns

    def _has_too_much_dead(self) -> bool:
        segments = self._books.segments.values()
        dead_bytes = sum(segment.dead_bytes for segment in segments)
        return dead_bytes > sum(segment.living_bytes for segment in segments) + self.segment_bytes // 8

    def _delete_dead(self) -> None:
        while dead := [s for s in self._books.segments.values() if not s.living_bytes and s is not self._active]:
            self.flush()  # what made these records dead must not be lost with them
            for segment in dead:
                os.unlink(segment.path)
                with self._books.lock:
                    self._books.remove(segment)
                sync_path(self.folder)  # before the drops that were needed because of it go as well

    def _compact(self, victim: Segment) -> None:
        """Appends what is needed of it anew; it is dead then."""
        if victim is self._active:
            self._roll()
        for number, place in self._books.puts_in(victim):
            payload = self._read(victim, place, number)
            if payload is None:
                self._append(DROP, number, ())
            else:
                self._append(PUT, number, [memoryview(payload)])
        for number in self._books.drops_in(victim):
            self._append(DROP, number, ())

    # Reading

    def _read(self, segment: Segment, place: Place, number: int) -> bytes | None:
        fd = open_to_read(segment.path)
        try:
            header = read_header(read_at(fd, HEADER_BYTES, place.offset), salt=segment.salt)
            if header is not None and header[:3] == (PUT, number, place.payload_bytes):
                payload = read_at(fd, place.payload_bytes, place.offset + HEADER_BYTES)
                if len(payload) == place.payload_bytes and crc32(payload) == header.payload_crc:
                    return payload
        finally:
            os.close(fd)
        self._tell_once(f"{segment.path}: record {number} got damaged since it was written")
        return None

    def _look(self) -> None:
        """Reads what the folder has and the books do not: all of it at first."""
        with self._books.lock:
            for _ in range(_MAX_LOOKS):
                there = self._indices()
                try:
                    for index in there:
                        if index not in self._bad:
                            self._look_at(index)
                except FileNotFoundError:
                    continue  # compacted away while we looked: its records are in a file that is new to us
                for index in self._books.segments.keys() - set(there):
                    self._books.remove(self._books.segments[index])
                self._top = max([self._top, *there])
                return

    def _indices(self) -> list[int]:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))

    def _look_at(self, index: int) -> None:
        path = self._path(index)
        try:
            fd = open_to_read(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            self._bad.add(index)
            self._report(f"{path} cannot be read and is skipped: {error}")
            return
        try:
            num_bytes = os.fstat(fd).st_size
            segment = self._books.segments.get(index)
            if segment is None:
                salt = read_file_header(read_at(fd, FILE_HEADER_BYTES, 0), self.kind, index)
                if salt is None:
                    self._set_aside(path, index, num_bytes)
                    return
                segment = self._books.segments[index] = Segment(path, index, salt)
            for found in scan(fd, segment.num_bytes, num_bytes, segment.salt):
                self._note(segment, found, num_bytes)
        finally:
            os.close(fd)

    def _note(self, segment: Segment, found: Found | Gap, file_bytes: int) -> None:
        if isinstance(found, Gap):
            num_bytes = found.end - found.offset
            if found.end < file_bytes:
                segment.num_bytes = found.end
                self._report(f"{segment.path}: {num_bytes} bytes from {found.offset} on are damaged and are skipped")
            elif not self.read_only:  # else it may be on its way
                os.truncate(segment.path, found.offset)
                self._report(f"{segment.path}: the {num_bytes} bytes at its end are half a record and are cut off")
            return
        number = found.header.number
        segment.num_bytes = found.end
        if not found.is_whole:
            self._report(f"{segment.path}: record {number} at {found.offset} is damaged and is skipped")
        if found.is_whole and found.header.does == PUT:
            self._books.put(number, Place(segment.index, found.offset, found.header.payload_bytes))
        else:
            self._books.drop(number, segment)

    def _set_aside(self, path: str, index: int, num_bytes: int) -> None:
        """A file that does not begin as ours do; as many bytes of such files stay as one segment has."""
        if self.read_only:
            if num_bytes >= FILE_HEADER_BYTES:  # else it may be on its way
                self._bad.add(index)
                self._report(f"{path} does not begin as a segment does and is skipped")
            return
        if num_bytes < FILE_HEADER_BYTES:
            os.unlink(path)
            self._report(f"{path} has {num_bytes} bytes, less than its header, and is deleted")
            return
        self._bad.add(index)
        os.replace(path, path + ".bad")
        self._report(f"{path} does not begin as a segment does and is set aside as {path}.bad")
        kept_bytes = 0
        for bad in sorted(self.folder.glob("*.seg.bad"), reverse=True):
            kept_bytes += bad.stat().st_size
            if kept_bytes > self.segment_bytes:
                bad.unlink()
                self._report(f"{bad} is deleted: {self.segment_bytes} bytes of such files are kept")

    def _path(self, index: int) -> str:
        return str(self.folder / f"{index:08d}.seg")

    def _report(self, sentence: str) -> None:
        self._num_faults += 1
        if len(self._faults) < _MAX_FAULTS:
            self._faults.append(sentence)

    def _tell_once(self, sentence: str) -> None:
        if not self._has_told:
            self._has_told = True
            _log.warning("%s", sentence)


def sync_path(path: str | Path) -> None:
    """Flushes a file or a folder by name."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""DirectoryDepot: records in a folder of this machine."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from pathlib import Path

from .base import (
    KINDS,
    Depot,
    DepotError,
    DepotFull,
    DepotTaken,
    Kind,
    Payload,
    as_depot_error,
    check_address,
    parts_of,
)
from .segments import SegmentLog, sync_path

_log = logging.getLogger(__name__)

_NAME, _LOCK, _RESERVE = "millpond.json", "lock", "reserve"
_FORMAT, _VERSION = "millpond depot", 1
_RESERVE_BYTES = 256 * 2**10
_MAX_NAME_BYTES = 4096


class DirectoryDepot(Depot):
    """A folder with an append-only log for each kind, one process writing at a time.

        <path>/millpond.json   what this folder is, and the version of its format
        <path>/lock            held (flock) by the process that writes; says its pid
        <path>/reserve         room for the drops that make room when the disk is full
        <path>/<kind>/NNNNNNNN.seg   records with checksums, see segments.py

    A record is safe from SIGKILL once `put` has returned (os.write), and from loss of power once `flush` has
    (fdatasync). At rest a kind takes at most twice its living records and an eighth of segment_bytes; damaged
    files that are set aside (*.seg.bad), as much as a segment at most, are not counted. While one process writes,
    others may open the folder with read_only=True; they see what is written when they ask. A system without
    flock (Windows) has no directory depot.

    Baseline: a log of records, each with its length and checksum.
    Differs from the paper: None.
    path: the folder; made where there is none. One that holds something else is refused.
    read_only: look, and change nothing; takes no lock.
    segment_bytes: a file of records begins anew at this length, bytes; a larger record has a file of its own.
    """

    is_shared = True

    def __init__(self, path: str | Path, *, read_only: bool = False, segment_bytes: int = 32 * 2**20) -> None:
        if segment_bytes < 64:
            raise ValueError(f"a segment has 64 bytes at least; got segment_bytes={segment_bytes}")
        self.path = Path(path)
        self.read_only = read_only
        self._write_lock = threading.RLock()
        self._lock_fd = -1
        self._is_closed = False
        self._logs: dict[Kind, SegmentLog] = {}
        try:
            self._open_folder()
            for kind in KINDS:
                self._logs[kind] = SegmentLog(self.path / kind, kind, segment_bytes=segment_bytes, read_only=read_only)
            self._hold_reserve()
        except BaseException as error:
            self._let_go()
            if isinstance(error, OSError) and not isinstance(error, DepotError):
                raise as_depot_error(error, f"cannot open the depot {self.path}") from error
            raise
        self.faults = tuple(fault for log in self._logs.values() for fault in log.faults)
        if self.faults:
            _log.warning("%s: %d damaged places; the rest is kept. First: %s", self, len(self.faults), self.faults[0])

    def put(self, kind: Kind, number: int, payload: Payload) -> None:
        self._check_open(kind, number)
        self.check_writable()
        with self._write_lock:
            self._logs[kind].put(number, parts_of(payload))

    def get(self, kind: Kind, number: int) -> bytes | None:
        self._check_open(kind, number)
        try:
            return self._logs[kind].get(number)
        except OSError as error:
            raise as_depot_error(error, f"cannot read {kind} {number} from {self.path}") from error

    def drop(self, kind: Kind, number: int) -> None:
        self._check_open(kind, number)
        self.check_writable()
        with self._write_lock:
            try:
                self._logs[kind].drop(number)
            except DepotFull:
                if not self._give_reserve():
                    raise
                self._logs[kind].drop(number)

    def numbers(self, kind: Kind) -> list[int]:
        self._check_open(kind)
        return self._logs[kind].numbers()

    def num_bytes(self, kind: Kind) -> int:
        self._check_open(kind)
        return self._logs[kind].num_bytes

    def flush(self) -> None:
        self._check_open()
        self.check_writable()
        with self._write_lock:
            for log in self._logs.values():
                log.flush()
            self._hold_reserve()

    def close(self) -> None:
        with self._write_lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                for log in self._logs.values() if not self.read_only else ():
                    log.flush()
            except DepotError as error:
                _log.warning("%s; what was written last may not outlive a loss of power", error)
            finally:
                self._let_go()

    def check(self) -> None:
        self._check_open()
        with self._write_lock:
            for log in self._logs.values():
                log.check()

    def __repr__(self) -> str:
        return f"DirectoryDepot({str(self.path)!r}{', read_only' if self.read_only else ''})"

    def _open_folder(self) -> None:
        """Makes the folder ours, or sees that it is; takes the lock."""
        if not self.read_only:
            if not self.path.exists():
                self.path.mkdir(parents=True, exist_ok=True)
                sync_path(self.path.parent)
            self._check_name()
            self._take_lock()
        if not self._check_name():
            if self.read_only:
                raise ValueError(f"there is no depot at {self.path} to read; got read_only=True, which makes none")
            new = self.path / (_NAME + ".new")
            new.write_text(json.dumps({"format": _FORMAT, "version": _VERSION}) + "\n", encoding="utf-8")
            sync_path(new)
            os.replace(new, self.path / _NAME)
            sync_path(self.path)

    def _check_name(self) -> bool:
        """Whether this is a depot; ValueError where it is one of another version, or something else."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"a depot is a folder; got {self.path}, which is none")
        try:
            with (self.path / _NAME).open("rb") as file:
                text = file.read(_MAX_NAME_BYTES)
        except FileNotFoundError:
            others = set(os.listdir(self.path) if self.path.exists() else ()) - {_LOCK, _RESERVE, _NAME + ".new"}
            if others:
                raise ValueError(
                    f"{self.path} holds {sorted(others)[0]!r} and no {_NAME}: it is no depot; name an empty folder"
                ) from None
            return False
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict) or said.get("format") != _FORMAT:
            raise ValueError(f"{self.path / _NAME} is not what millpond writes: got {text[:40]!r}; name another folder")
        if said.get("version") != _VERSION:
            raise ValueError(
                f"{self.path} has version {str(said.get('version'))[:20]} of the format, and {_VERSION} is read here; "
                "open it with the millpond that made it, or name another folder"
            )
        return True

    def _take_lock(self) -> None:
        self._lock_fd = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._lock_fd, 20, 0).strip()
            who = f"process {int(pid)}" if pid.isdigit() else "another process"
            raise DepotTaken(
                f"{self.path} is being written to by {who}; end that first, open it with read_only=True, "
                "or name another folder"
            ) from None
        os.ftruncate(self._lock_fd, 0)
        try:
            os.pwrite(self._lock_fd, str(os.getpid()).encode(), 0)
        except OSError as error:  # a full disk holds the lock all the same
            _log.info("%s does not say who holds it: %s", self.path / _LOCK, error)

    def _hold_reserve(self) -> None:
        """Keeps some room, where there is any, for drops on a full disk."""
        if self.read_only or (self.path / _RESERVE).exists():
            return
        try:
            fd = os.open(self.path / _RESERVE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            return  # the folder has not even room for a name; the next flush tries again
        try:
            os.posix_fallocate(fd, 0, _RESERVE_BYTES)
        except OSError:
            os.unlink(self.path / _RESERVE)
        finally:
            os.close(fd)

    def _give_reserve(self) -> bool:
        try:
            os.unlink(self.path / _RESERVE)
        except OSError:
            return False
        return True

    def _let_go(self) -> None:
        for log in self._logs.values():
            log.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _check_open(self, kind: str = "kv", number: int = 0) -> None:
        check_address(kind, number)
        if self._is_closed:
            raise ValueError(f"{self!r} got closed before; open it again")

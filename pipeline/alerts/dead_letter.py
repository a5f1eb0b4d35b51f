"""DeadLetters: a file of alerts that were not told yet, and of those that could not be. Never larger than its cap."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from .alert import Alert

_log = logging.getLogger(__name__)

MIN_BUDGET_BYTES = 16 * 2**10
_VERSION = 1
_MAX_LINE_BYTES = 16 * 2**10
_MAX_PROBLEM_CHARS = 300


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Made by DeadLetters, read by people: an alert that was not told. problem: why, when it was given up; None: it is
    on its way still."""

    alert: Alert
    problem: str | None = None

    @property
    def is_dead(self) -> bool:
        return self.problem is not None


class DeadLetters:
    """Alerts from when they fire until they are told, one JSON line for each that comes, is given up, or is told.

        keep -> [waiting] --told--> gone
                    |  ^
            give_up v  | revive      both are in the file, and there again after the process was killed
                  [dead]

    A line is on the disk before `keep` returns. Over the cap the oldest dead letters are let go, then the oldest that
    wait, and counted. From when it is open, a disk that fails never reaches the caller: what is known stays in RAM, and
    is written with the next line that can be. Thread-safe. One process at a time.

    path: None: nothing outlives the process. budget_bytes: of the file, 16 KiB or more. max_alerts: in it, 1 or more.
    """

    def __init__(self, path: Path | str | None = None, *, budget_bytes: int = 2**20, max_alerts: int = 1000) -> None:
        if budget_bytes < MIN_BUDGET_BYTES or max_alerts < 1:
            raise ValueError(
                f"dead letters need {MIN_BUDGET_BYTES} bytes and one alert or more; got budget_bytes={budget_bytes}, "
                f"max_alerts={max_alerts}"
            )
        self._path = None if path is None else Path(path)
        self._budget_bytes, self._max_alerts = budget_bytes, max_alerts
        self._mutex = threading.Lock()
        self._letters: dict[str, DeadLetter] = {}  # oldest first
        self._num_let_go = 0
        self._file: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._file_bytes = 0
        self._is_behind = False  # the file does not say all that is known
        self._is_open = False

    def open(self) -> DeadLetters:
        """Takes over the file, and what an earlier process left in it; before this, all is kept in RAM alone.

        Raises ValueError where it cannot be read or written, or another process has it.
        """
        with self._mutex:
            if self._path is not None and not self._is_open:
                try:
                    self._take_over(self._path)
                except OSError as error:
                    self._let_file_go()
                    why = error.strerror or type(error).__name__
                    raise ValueError(f"alerts cannot be kept in {self._path}: {why}; give another file") from None
                self._is_open = True
                self._rewrite()
                self._make_room()
        return self

    @property
    def waiting(self) -> tuple[Alert, ...]:
        """Those on their way, oldest first: after a start, those that a process before this one did not get told."""
        with self._mutex:
            return tuple(letter.alert for letter in self._letters.values() if not letter.is_dead)

    @property
    def dead(self) -> tuple[DeadLetter, ...]:
        """Those that were given up, oldest first."""
        with self._mutex:
            return tuple(letter for letter in self._letters.values() if letter.is_dead)

    @property
    def num_let_go(self) -> int:
        """How many had to go for lack of room."""
        return self._num_let_go

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        with self._mutex:
            return self._file_bytes

    def keep(self, alert: Alert) -> None:
        """Takes an alert that is to be told."""
        with self._mutex:
            self._letters[alert.id] = DeadLetter(alert)
            self._write(self._line(self._letters[alert.id]))
            self._make_room()

    def give_up(self, alert_id: str, problem: str) -> None:
        """It cannot be told; it stays until it is revived or told."""
        with self._mutex:
            if alert_id in self._letters:
                self._letters[alert_id] = replace(self._letters[alert_id], problem=problem[:_MAX_PROBLEM_CHARS])
                self._write(self._line(self._letters[alert_id]))
                self._make_room()

    def told(self, alert_id: str) -> None:
        """It arrived: it is forgotten."""
        with self._mutex:
            if self._letters.pop(alert_id, None) is not None:
                self._write(_line_of({"told": alert_id}))
                self._make_room()

    def revive(self, rule: str | None = None) -> tuple[Alert, ...]:
        """Those that were given up, of one rule or of all, wait again from now on: whoever asks for them sends them."""
        with self._mutex:
            found = [one for one in self._letters.values() if one.is_dead and rule in (None, one.alert.rule)]
            for letter in found:
                self._letters[letter.alert.id] = DeadLetter(letter.alert)
                self._write(self._line(self._letters[letter.alert.id]))
            self._make_room()
            return tuple(letter.alert for letter in found)

    def close(self) -> None:
        """Lets go of the file; another process may take it. May be called again."""
        with self._mutex:
            self._is_open = False
            self._let_file_go()

    def __repr__(self) -> str:
        return f"DeadLetters({len(self.waiting)} waiting, {len(self.dead)} dead)"

    # The file. Whoever calls these holds the mutex.

    def _take_over(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _open_own(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._let_file_go()
            raise ValueError(f"another process writes {path}; end it, or give this one a file of its own") from None
        num_bad = 0
        for line in _lines(path, 4 * self._budget_bytes):
            num_bad += not self._follow(line)
        if num_bad:
            _log.warning("%d lines of %s make no sense; they are left out", num_bad, path)

    def _let_file_go(self) -> None:
        for held in (self._file, self._lock):
            if held is not None:
                held.close()
        self._file = self._lock = None

    def _follow(self, line: bytes) -> bool:
        """Takes in a line of the file; whether it makes sense."""
        try:
            found = json.loads(line)
            if not isinstance(found, dict) or found.get("version") != _VERSION:
                return False
            if "told" in found:
                return isinstance(found["told"], str) and (self._letters.pop(found["told"], None) is not None or True)
            problem = found["problem"]
            if problem is not None and not isinstance(problem, str):
                return False
            letter = DeadLetter(
                Alert.read(found["alert"]), problem if problem is None else problem[:_MAX_PROBLEM_CHARS]
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        self._letters[letter.alert.id] = letter
        return True

    def _line(self, letter: DeadLetter) -> bytes:
        return _line_of({"problem": letter.problem, "alert": json.loads(letter.alert.body)})

    def _write(self, line: bytes) -> None:
        if self._path is None or not self._is_open:
            return
        if self._is_behind or self._file is None:
            self._rewrite()
            return
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file_bytes += len(line)
        except OSError as error:
            self._fall_behind(error)

    def _make_room(self) -> None:
        """Lets go what is too much, and writes the file anew where it is too long."""
        while len(self._letters) > self._max_alerts:
            self._let_go()
        if not self._is_open or self._file_bytes <= self._budget_bytes:
            return
        lengths = {alert_id: len(self._line(letter)) for alert_id, letter in self._letters.items()}
        # A little below the cap, or every line from now on would write the file anew.
        while sum(lengths.values()) > self._budget_bytes * 3 // 4:
            lengths.pop(self._let_go())
        self._rewrite()

    def _let_go(self) -> str:
        first = next(iter(self._letters))
        oldest = next((alert_id for alert_id, letter in self._letters.items() if letter.is_dead), first)
        del self._letters[oldest]
        self._num_let_go += 1
        _log.warning("there is no room for all alerts that were not told; one of them is let go, %s", oldest)
        return oldest

    def _rewrite(self) -> None:
        """The file anew, with what is known and nothing else; the old one stays where that fails."""
        if self._path is None or not self._is_open:
            return
        beside = self._path.with_name(self._path.name + ".new")
        try:
            with _open_own(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
                num_bytes = file.write(b"".join(map(self._line, self._letters.values())))
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self._path)
            if self._file is not None:
                self._file.close()
            self._file = _open_own(self._path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            self._fall_behind(error)
        else:
            self._file_bytes, self._is_behind = num_bytes, False

    def _fall_behind(self, error: OSError) -> None:
        if not self._is_behind:
            _log.warning("alerts that are not told yet cannot be written to %s: %s", self._path, error.strerror)
        self._is_behind = True


def _line_of(what: dict[str, Any]) -> bytes:
    return json.dumps({"version": _VERSION, **what}, ensure_ascii=False).encode() + b"\n"


def _open_own(path: Path, flags: int) -> IO[bytes]:
    """For its owner alone, and never through a link."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return open(fd, "r+b" if flags & os.O_RDWR else "wb" if not flags & os.O_APPEND else "ab", buffering=0)


def _lines(path: Path, max_bytes: int) -> Iterator[bytes]:
    """The lines of a file, at most so many bytes from its end; the first one may be part of one."""
    try:
        with _open_to_read(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - max_bytes))
            while line := file.readline(_MAX_LINE_BYTES):
                yield line
    except FileNotFoundError:
        return


def _open_to_read(path: Path) -> IO[bytes]:
    return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")

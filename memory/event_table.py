"""LogTable: the rows of the text log, in a file that is kept below its cap."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..stream import time_words
from .event_file import PAGE_BYTES, num_bytes_of, open_file, salvage, set_aside, wal_bytes_of
from .event_words import telling

_log = logging.getLogger(__name__)

TRACE = "trace"
"""The kind of a line that stands for lines that were let go."""

_MAX_TRACES = 64
_MAX_LET_GO = 4096  # lines at once
_TELLING_WORDS = 12
_NAMES_WORDS = " were let go: "


class Row(NamedTuple):
    """A line as the file has it. stands_for: how many lines of old a trace stands for; 0 for a line itself."""

    number: int
    start_s: float
    end_s: float
    kind: str
    text: str
    stands_for: int


class LogTable:
    """Rows in SQLite, their words in FTS5. Lets `sqlite3.Error` through; what was committed before it stays.

    budget_bytes is held by three limits: rows are let go once the pages in use pass 5/8 of it, a commit is small
    against it, and the write-ahead log is emptied into the file when it passes 1/16.

    path: None for a table in RAM.
    bad: a damaged file whose readable rows come first; where the file at `path` is damaged, that one.
    """

    def __init__(self, path: Path | None, budget_bytes: int, bad: Path | None = None) -> None:
        self._path = path
        self._budget_bytes = budget_bytes
        self._connection, found_bad = open_file(path)
        bad = found_bad or bad
        self.fault = ""
        try:
            self._count()
            if bad is not None:
                self._salvage(bad)
            self.make_room()
            self.checkpoint()
        except BaseException:
            self._connection.close()
            raise

    @property
    def num_lines(self) -> int:
        return self._num_lines

    @property
    def num_let_go(self) -> int:
        return self._num_let_go

    @property
    def next_number(self) -> int:
        """Larger than every number in the file."""
        return int(self._connection.execute("SELECT coalesce(max(number), -1) + 1 FROM lines").fetchone()[0])

    @property
    def num_bytes(self) -> int:
        """Bytes of the files, the write-ahead log and its index included; in RAM, of the pages."""
        return self._pragma("page_count") * PAGE_BYTES if self._path is None else num_bytes_of(self._path)

    def insert(self, rows: Sequence[Row]) -> None:
        """Commits the rows, all or none."""
        with self._transaction():
            self._put(rows)
        self._num_lines += len(rows)
        self._num_let_go += sum(row.stands_for for row in rows)

    def ask(self, question: str, values: Mapping[str, object]) -> list[tuple[object, ...]]:
        """What a SELECT gives."""
        return self._connection.execute(question, values).fetchall()

    def make_room(self) -> None:
        """Lets the oldest rows go until there is room for what comes."""
        while self._used_bytes > self._budget_bytes * 5 // 8:
            num_wanted = self._num_let_go + max(1, self._num_lines // 8)
            while self._let_go() and self._num_let_go < num_wanted:
                self.checkpoint()
            if self._num_let_go < num_wanted:
                break
            self._tidy()
        too_many = self._pragma("page_count") - self._budget_bytes * 3 // 4 // PAGE_BYTES
        while too_many > 0 and self._pragma("freelist_count") > 0:  # the cap was higher once
            # Not execute(): that takes one step of it, and each step frees one page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({min(too_many, 64)})")
            too_many -= 64
            self.checkpoint(at_bytes=0)  # the file is cut when they are emptied into it

    def checkpoint(self, *, at_bytes: int | None = None) -> None:
        """Empties the write-ahead log into the file where it has grown past 1/16 of the budget, or `at_bytes`."""
        at_bytes = self._budget_bytes // 16 if at_bytes is None else at_bytes
        if self._path is not None and wal_bytes_of(self._path) > at_bytes:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            if wal_bytes_of(self._path) > self._budget_bytes // 8:
                raise sqlite3.OperationalError("another process keeps reading it, so that its write-ahead log grows")

    def close(self) -> None:
        self._connection.close()

    def set_aside(self, why: str) -> Path | None:
        """Closes, and renames the damaged file."""
        self._connection.close()
        return None if self._path is None else set_aside(self._path, why)

    def check(self) -> None:
        """RuntimeError where the file is damaged, the books do not balance, or it is too large."""
        try:
            (found,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
            self._connection.execute("INSERT INTO words(words, rank) VALUES('integrity-check', 1)")
        except sqlite3.DatabaseError as error:
            found = str(error)
        if found != "ok":
            raise RuntimeError(f"the log {self._path} is damaged: {found}")
        books = (self._num_lines, self._num_let_go)
        self._count()
        if books != (self._num_lines, self._num_let_go):
            raise RuntimeError(
                f"the log's books say {books[0]} lines and {books[1]} let go; it holds {self._num_lines} and "
                f"{self._num_let_go}"
            )
        if self.num_bytes > self._budget_bytes:
            raise RuntimeError(f"the log takes {self.num_bytes} bytes, of {self._budget_bytes} at most")

    def _put(self, rows: Sequence[Row]) -> None:
        self._connection.executemany("INSERT INTO lines VALUES(?, ?, ?, ?, ?, ?)", rows)
        self._connection.executemany(
            "INSERT INTO words(rowid, text) VALUES(?, ?)", ((row.number, row.text) for row in rows)
        )

    def _take(self, rows: Sequence[Row]) -> None:
        # The index keeps no texts: to forget a row it must be told the very text again.
        self._connection.executemany(
            "INSERT INTO words(words, rowid, text) VALUES('delete', ?, ?)", ((row.number, row.text) for row in rows)
        )
        self._connection.executemany("DELETE FROM lines WHERE number = ?", ((row.number,) for row in rows))

    def _let_go(self) -> bool:
        """Lets some of the oldest lines go, with a trace in their place; False where there is none."""
        read = self._connection.execute(
            "SELECT * FROM lines WHERE stands_for = 0 ORDER BY number LIMIT ?", (_MAX_LET_GO,)
        )
        rows: list[Row] = []
        num_chars = 0
        for row in map(Row._make, read):
            rows.append(row)
            num_chars += len(row.text) + 50
            if num_chars > self._budget_bytes // 64:
                break
        read.close()
        if not rows:
            return False
        traces = [Row._make(row) for row in self._connection.execute("SELECT * FROM lines WHERE stands_for > 0")]
        made = [_trace(rows)]
        merged: list[Row] = []
        if len(traces) >= _MAX_TRACES:
            merged = sorted(traces)[: _MAX_TRACES // 2]
            made = [*(_trace(merged[i : i + 2]) for i in range(0, len(merged), 2)), *made]
        with self._transaction():
            self._take([*rows, *merged])
            self._put(made)
        self._num_lines += len(made) - len(rows) - len(merged)
        self._num_let_go += len(rows)
        _log.debug("the log %s lets %d lines go", self._path, len(rows))
        return True

    def _tidy(self) -> None:
        """Merges the index into one piece, a little at a time: only then is the room of forgotten words free."""
        before = -2
        while self._connection.total_changes - before >= 2:  # so FTS5 says that there was something to do
            before = self._connection.total_changes
            self._connection.execute("INSERT INTO words(words, rank) VALUES('merge', -128)")
            self.checkpoint()

    def _salvage(self, bad: Path) -> None:
        number = self.next_number
        rows = []
        for row in map(_sound, salvage(bad)):
            if row is not None and row.number >= number:
                rows.append(row)
                number = row.number + 1
        for first in range(0, len(rows), 256):
            self.insert(rows[first : first + 256])
            self.make_room()
            self.checkpoint()
        self.fault = f"the log was damaged; {len(rows)} of its lines could be read, the rest is in {bad.name}"

    def _count(self) -> None:
        counted = self._connection.execute("SELECT count(*), coalesce(sum(stands_for), 0) FROM lines").fetchone()
        self._num_lines, self._num_let_go = map(int, counted)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @property
    def _used_bytes(self) -> int:
        return (self._pragma("page_count") - self._pragma("freelist_count")) * PAGE_BYTES

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])


def _trace(rows: Sequence[Row]) -> Row:
    """One line for several, at the place of the newest of them; traces are merged like lines."""
    num_lines = sum(row.stands_for or 1 for row in rows)
    start_s, end_s = min(row.start_s for row in rows), max(row.end_s for row in rows)
    text = f"{num_lines} lines from {time_words(start_s)} to {time_words(end_s)} s{_NAMES_WORDS}"
    said = (row.text.partition(_NAMES_WORDS)[2] if row.stands_for else row.text for row in rows)
    words = [word[:40] for word in telling(said, _TELLING_WORDS)]
    return Row(rows[-1].number, start_s, end_s, TRACE, text + (", ".join(words) or "nothing"), num_lines)


def _sound(row: tuple[object, ...]) -> Row | None:
    """The row where it is one that a log may hold."""
    match row:
        case (int(number), float(start_s), float(end_s), str(kind), str(text), int(stands_for)) if (
            0 <= number < 2**62 and stands_for >= 0 and math.isfinite(start_s) and start_s <= end_s < math.inf
        ):
            return Row(number, start_s, end_s, kind[:40], text[:8192], stands_for)
        case _:
            return None

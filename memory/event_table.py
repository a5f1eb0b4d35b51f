"""LogTable: the rows of the text log, in a file that is kept below its cap."""

from __future__ import annotations

import logging
import math
import sqlite3
from collections import Counter
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
_TELLING_WORDS = 12
_COUNTED_WORDS = 2048
_NAMES_WORDS = " were let go: "
_ROW_CHARS = 50  # what a row takes besides its text

# Letters let go for each one that comes in, while there is too much; letters of the index merged for each, and for each
# commit, which makes one more piece of it.
_GO_FOR_EACH = 1.5
_MERGE_FOR_EACH = 12
_MERGE_FOR_COMMIT = 8 * PAGE_BYTES
_MAX_GO_CHARS = 2**16  # at once
_MAX_MERGE_PAGES = 128  # at once


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
    against it, and the write-ahead log is emptied into the file when it passes 1/16. Letting go is work, and so is
    merging the index, without which the room of forgotten words is not free: `work` does as much of both as what came
    in since calls for, and never more than a little.

    path: None for a table in RAM.
    bad: a damaged file whose readable rows come first; where the file at `path` is damaged, that one.
    """

    def __init__(self, path: Path | None, budget_bytes: int, bad: Path | None = None) -> None:
        self._path = path
        self._budget_bytes = budget_bytes
        self._connection, found_bad = open_file(path)
        bad = found_bad or bad
        self.fault = ""
        self._max_go_chars = min(_MAX_GO_CHARS, budget_bytes // 64)
        self._max_merge_pages = min(_MAX_MERGE_PAGES, budget_bytes // 32 // PAGE_BYTES)
        self._owed_go_chars = self._owed_merge_chars = 0.0
        self._is_merging = False
        self._num_gone_unmerged = 0
        self._newest_trace: _Trace | None = None
        try:
            self._count()
            if bad is not None:
                self._salvage(bad)
            self._make_room()
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
        num_chars = sum(len(row.text) + _ROW_CHARS for row in rows)
        self._owed_go_chars += _GO_FOR_EACH * num_chars
        self._owed_merge_chars += _MERGE_FOR_EACH * num_chars + _MERGE_FOR_COMMIT

    def ask(self, question: str, values: Mapping[str, object]) -> list[tuple[object, ...]]:
        """What a SELECT gives."""
        return self._connection.execute(question, values).fetchall()

    def work(self) -> None:
        """Makes room for what comes, a little at a time: in proportion to what came."""
        if self._used_bytes <= self._budget_bytes * 5 // 8:
            self._owed_go_chars = 0.0
        elif self._owed_go_chars >= self._max_go_chars / 4:
            num_chars = min(int(self._owed_go_chars), self._max_go_chars)
            self._owed_go_chars = min(self._owed_go_chars - num_chars, 2.0 * self._max_go_chars)
            self._let_go(num_chars)
        if self._owed_merge_chars >= self._max_merge_pages * PAGE_BYTES / 4:
            num_pages = min(int(self._owed_merge_chars) // PAGE_BYTES, self._max_merge_pages)
            self._owed_merge_chars = min(
                self._owed_merge_chars - num_pages * PAGE_BYTES, 2.0 * self._max_merge_pages * PAGE_BYTES
            )
            self._merge_some(num_pages)
        self._make_room()

    def checkpoint(self, *, at_bytes: int | None = None) -> None:
        """Empties the write-ahead log into the file where it has grown past 1/16 of the budget or 1 MiB, or
        `at_bytes`."""
        at_bytes = min(2**20, self._budget_bytes // 16) if at_bytes is None else at_bytes
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

    def _make_room(self) -> None:
        """Where there is far too much, lets the oldest rows go until there is room, however long that takes: the cap
        was higher once, or lines of another size came before."""
        is_full = self._used_bytes > self._budget_bytes * 3 // 4
        while is_full and self._used_bytes > self._budget_bytes * 5 // 8:
            num_wanted = self._num_let_go + max(1, self._num_lines // 8)
            while self._let_go(self._max_go_chars) and self._num_let_go < num_wanted:
                self.checkpoint()
            if self._num_let_go < num_wanted:
                break
            self._merge_all()
        too_many = self._pragma("page_count") - self._budget_bytes * 3 // 4 // PAGE_BYTES
        while too_many > 0 and self._pragma("freelist_count") > 0:
            # Not execute(): that takes one step of it, and each step frees one page.
            self._connection.executescript(f"PRAGMA incremental_vacuum({min(too_many, 64)})")
            too_many -= 64
            self.checkpoint(at_bytes=0)  # the file is cut when they are emptied into it

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

    def _let_go(self, num_chars: int) -> bool:
        """Lets so much of the oldest lines go, with a trace in their place; False where there is none.

        The newest trace takes in what goes until it stands for an eighth as many lines as there are.
        """
        read = self._connection.execute("SELECT * FROM lines WHERE stands_for = 0 ORDER BY number")
        rows: list[Row] = []
        for row in map(Row._make, read):
            rows.append(row)
            num_chars -= len(row.text) + _ROW_CHARS
            if num_chars <= 0:
                break
        read.close()
        if not rows:
            return False
        newest = self._newest_trace
        if newest is None or newest.row.stands_for > self._num_lines // 8:
            newest = None
        made = _grown(newest, rows)
        taken, put = list(rows), [made.row]
        if newest is not None:
            taken.append(newest.row)
        else:
            # Traces come before all lines.
            before = "SELECT * FROM lines WHERE number < ? ORDER BY number"
            traces = [Row._make(row) for row in self._connection.execute(before, (rows[0].number,))]
            if len(traces) >= _MAX_TRACES:
                merged = traces[: _MAX_TRACES // 2]
                taken += merged
                put = [*(_trace(merged[i : i + 2]) for i in range(0, len(merged), 2)), *put]
        with self._transaction():
            # In order: each step back would be one more piece of the index.
            self._take(sorted(taken))
            self._put(sorted(put))
        self._newest_trace = made
        self._num_lines += len(put) - len(taken)
        self._num_let_go += len(rows)
        self._num_gone_unmerged += len(rows)
        _log.debug("the log %s lets %d lines go", self._path, len(rows))
        return True

    def _merge_some(self, num_pages: int) -> None:
        """Merges pieces of the index that are many; all of them where enough of its words are forgotten."""
        if not self._is_merging and self._num_gone_unmerged > self._num_lines // 16:
            self._num_gone_unmerged = 0
            self._is_merging = self._merge(-num_pages)
        elif not self._merge(num_pages):
            self._is_merging = False

    def _merge_all(self) -> None:
        """Merges the index into one piece, a little at a time."""
        self._num_gone_unmerged = 0
        while self._merge(-self._max_merge_pages):
            self.checkpoint()
        self._is_merging = False

    def _merge(self, num_pages: int) -> bool:
        """Merges so many pages of the index, fewer than none: of a merge of all its pieces; False where there is
        nothing left to merge."""
        before = self._connection.total_changes
        self._connection.execute("INSERT INTO words(words, rank) VALUES('merge', ?)", (num_pages,))
        return self._connection.total_changes - before >= 2  # so FTS5 says that there was something to do

    def _salvage(self, bad: Path) -> None:
        number = self.next_number
        rows = []
        for row in map(_sound, salvage(bad)):
            if row is not None and row.number >= number:
                rows.append(row)
                number = row.number + 1
        for first in range(0, len(rows), 256):
            self.insert(rows[first : first + 256])
            self._make_room()
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


class _Trace(NamedTuple):
    """The trace that takes in what goes, and how often the lines that it stands for said which words."""

    row: Row
    counts: Counter[str]


def _grown(trace: _Trace | None, rows: Sequence[Row]) -> _Trace:
    """A trace of these lines too."""
    counts = Counter() if trace is None else trace.counts.copy()
    counts.update(word[:40] for word in telling(row.text for row in rows))
    row = _trace_of([*(() if trace is None else (trace.row,)), *rows], counts)
    while len(counts) > _COUNTED_WORDS:  # the rare ones, as Misra and Gries leave them out
        counts = Counter({word: count - 1 for word, count in counts.items() if count > 1})
    return _Trace(row, counts)


def _trace(traces: Sequence[Row]) -> Row:
    """One trace for several."""
    said = (trace.text.partition(_NAMES_WORDS)[2] for trace in traces)
    return _trace_of(traces, Counter(word[:40] for word in telling(said)))


def _trace_of(rows: Sequence[Row], counts: Counter[str]) -> Row:
    """One line for several, at the place of the newest of them."""
    num_lines = sum(row.stands_for or 1 for row in rows)
    start_s, end_s = min(row.start_s for row in rows), max(row.end_s for row in rows)
    text = f"{num_lines} lines from {time_words(start_s)} to {time_words(end_s)} s{_NAMES_WORDS}"
    words = [word for word, _ in counts.most_common(_TELLING_WORDS)]
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

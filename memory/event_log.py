"""EventLog: what happened, in words, with times; searchable, and never larger than its cap."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..stream import Span
from .event_file import is_damage
from .event_table import TRACE, LogTable, Row
from .event_words import MAX_TERMS, clean, match_any, terms

_log = logging.getLogger(__name__)

MIN_BUDGET_BYTES = 2**20

_MAX_CHARS = 8192
_CHARS_PER_COMMIT = 2**15
_MAX_QUESTION_CHARS = 2**16
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
# The twin of Span.overlaps: spans share an instant, a moment being the instant of its start.
_OVERLAPS = (
    "start_s <= :until_s AND end_s >= :from_s AND "
    "((start_s < :until_s AND end_s > :from_s) OR start_s = end_s OR :from_s = :until_s)"
)


class Line(NamedTuple):
    """A line of the log. score: how well it fits the words asked for, larger is better; 0 where none were."""

    number: int
    span: Span
    kind: str
    text: str
    score: float = 0.0


class EventLog:
    """Lines of text with their spans, in SQLite with full-text search. Any thread may call it; one at a time does.

        lines waiting in RAM -> the file (a commit every so many lines, and on flush) -> traces

    Over its cap the oldest lines are let go, a few whenever some come, and lines of kind "trace" stay in their place:
    how many they were, from when to when, and their most frequent words. Of more than 64 traces the older ones are
    merged in pairs: the past grows coarser with age, and none of it goes without a trace.

    A committed line outlives the death of the process (not always the loss of power). A disk that is full or gone
    never reaches the caller: lines wait in RAM, the oldest are dropped where they become too many, and writing is
    tried again by and by.

    path: None keeps it in RAM. A damaged file is renamed to `<name>.bad`, in place of an earlier one, and what can be
        read of it is kept; ValueError for another program's database.
    budget_bytes: all its files together, at least 1 MiB; a `.bad` one is not counted.
    lines_per_commit: a commit comes after as many lines, 1 or more, or 32 Ki letters.
    warns: whether a disk that fails is warned of; not where another one on the same disk does.
    """

    def __init__(
        self,
        path: Path | str | None = None,
        *,
        budget_bytes: int = 64 * 2**20,
        lines_per_commit: int = 256,
        warns: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if budget_bytes < MIN_BUDGET_BYTES:
            raise ValueError(f"a log needs at least {MIN_BUDGET_BYTES} bytes; got {budget_bytes}; raise budget_bytes")
        if lines_per_commit < 1:
            raise ValueError(f"a commit comes after at least one line; got {lines_per_commit}")
        self._path = None if path is None else Path(path)
        self._budget_bytes = budget_bytes
        self._lines_per_commit = lines_per_commit
        self._warns = warns
        self._clock = clock
        self._max_chars = min(_MAX_CHARS, budget_bytes // 256)
        self._chars_per_commit = min(_CHARS_PER_COMMIT, budget_bytes // 128)
        self._lock = threading.RLock()
        self._waiting: list[Row] = []
        self._waiting_chars = 0
        self._wait_s, self._retry_at_s = 0.0, 0.0
        self._num_lost = 0
        self._is_closed = False
        self._table = LogTable(self._path, budget_bytes)
        self._next = self._table.next_number
        self.faults: tuple[str, ...] = (self._table.fault,) if self._table.fault else ()

    @property
    def num_lines(self) -> int:
        """Lines and traces held, those that wait for the disk included."""
        return self._table.num_lines + len(self._waiting)

    @property
    def num_let_go(self) -> int:
        """Lines that traces stand for."""
        return self._table.num_let_go

    @property
    def num_lost(self) -> int:
        """Lines that could not be kept, because the disk was full or gone for too long."""
        return self._num_lost

    @property
    def is_down(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._wait_s > 0

    @property
    def num_bytes(self) -> int:
        """Bytes of its files, the write-ahead log and its index included; of a log in RAM, of its pages."""
        with self._lock:
            return self._table.num_bytes

    def add(self, span: Span, text: str, kind: str = "narration") -> int:
        """Adds a line and gives its number. A long text is cut; the newest lines may be in RAM until `flush`."""
        self._check_open()
        if kind == TRACE or not 1 <= len(kind) <= 40:
            raise ValueError(f"a line's kind is a short word other than {TRACE!r}; got {kind[:60]!r}")
        text = clean(text, self._max_chars)
        with self._lock:
            row = Row(self._next, float(span.start_s), float(span.end_s), clean(kind, 40), text, 0)
            self._next += 1
            self._waiting.append(row)
            self._waiting_chars += len(text)
            if len(self._waiting) >= self._lines_per_commit or self._waiting_chars >= self._chars_per_commit:
                self._write()
        return row.number

    def search(self, words: str, num_lines: int, span: Span | None = None) -> list[Line]:
        """Lines that hold any of the words, best first (bm25); of those that overlap `span`, or of all.

        Any text will do: nothing in it is an operator. Stop words are left out where there are others, and so is
        what follows the first 32 words. Nothing is found while the file cannot be read.
        """
        wanted = [word[: self._max_chars - 1] for word in terms(clean(words, _MAX_QUESTION_CHARS))[:MAX_TERMS]]
        where = "" if span is None else f" AND {_OVERLAPS}"
        found = self._ask(
            "SELECT number, start_s, end_s, kind, lines.text, -rank FROM words JOIN lines ON number = words.rowid "
            f"WHERE words MATCH :match{where} ORDER BY rank LIMIT :num_lines",
            num_lines if wanted else 0,
            {"match": match_any(wanted), **_bounds(span)},
        )
        return sorted(found, key=lambda line: (-line.score, -line.number))

    def lines(self, span: Span | None = None, kind: str | None = None, *, num_lines: int = 100) -> list[Line]:
        """The latest lines, in order of time: of those that overlap `span` and are of this kind, or of all."""
        where = [_OVERLAPS] if span is not None else []
        where += ["kind = :kind"] if kind is not None else []
        found = self._ask(
            f"SELECT number, start_s, end_s, kind, text, 0.0 FROM lines WHERE {' AND '.join(where) or 'true'} "
            "ORDER BY start_s DESC, number DESC LIMIT :num_lines",
            num_lines,
            {"kind": kind, **_bounds(span)},
        )
        return found[::-1]

    def after(self, number: int, num_lines: int = 1000) -> list[Line]:
        """The first lines whose number is larger, in order of number."""
        return self._ask(
            "SELECT number, start_s, end_s, kind, text, 0.0 FROM lines WHERE number > :after "
            "ORDER BY number LIMIT :num_lines",
            num_lines,
            {"after": min(max(number, -1), 2**62)},
        )

    def flush(self) -> None:
        """Commits all lines that wait, unless the disk is down."""
        with self._lock:
            self._check_open()
            self._write()

    def close(self) -> None:
        """Commits and closes; may be called again."""
        with self._lock:
            if self._is_closed:
                return
            self._write()
            self._is_closed = True
            if self._waiting:
                self._num_lost += len(self._waiting)
                _log.warning("the log %s closes without its last %d lines", self._path, len(self._waiting))
            self._table.close()

    def check(self) -> None:
        """Recounts from scratch; RuntimeError where the file is damaged, too large, or the books do not balance."""
        with self._lock:
            self._check_open()
            self._table.check()
            counted = sum(len(row.text) for row in self._waiting)
        if counted != self._waiting_chars:
            raise RuntimeError(f"the log's books say {self._waiting_chars} letters wait; {counted} do")

    def __repr__(self) -> str:
        return f"EventLog({self.num_lines} lines, {self.num_let_go} let go)"

    def _ask(self, question: str, num_lines: int, values: dict[str, object]) -> list[Line]:
        """Lines from the file; from a new one where it is found damaged."""
        if num_lines < 0:
            raise ValueError(f"num_lines must not be negative; got {num_lines}")
        with self._lock:
            self._check_open()
            return self._read(question, num_lines, values) if num_lines else []

    def _read(self, question: str, num_lines: int, values: dict[str, object]) -> list[Line]:
        self._write()
        for _ in range(2):
            try:
                rows = self._table.ask(question, {**values, "num_lines": min(num_lines, 2**62)})
                return [Line(n, Span(a, b), kind, text, score) for n, a, b, kind, text, score in rows]  # type: ignore[arg-type]
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    _log.warning("the log %s cannot be read: %s", self._path, error)
                    break
                self._begin_anew(str(error))
        return []

    def _write(self) -> None:
        """Commits what waits, and makes room for what comes."""
        if not self._waiting:
            return
        if not self.is_down or self._clock() >= self._retry_at_s:
            try:
                self._commit()
            except sqlite3.DatabaseError as error:
                if is_damage(error):
                    self._begin_anew(str(error))
                else:
                    self._fail(error)
        # While the disk is down a few commits' worth waits in RAM, no more.
        while len(self._waiting) > 4 * self._lines_per_commit or self._waiting_chars > 4 * self._chars_per_commit:
            self._waiting_chars -= len(self._waiting.pop(0).text)
            self._num_lost += 1

    def _commit(self) -> None:
        if self._waiting:
            self._table.insert(self._waiting)
            self._waiting, self._waiting_chars = [], 0
        self._table.work()
        self._table.checkpoint()
        if self.is_down:
            _log.info("the log %s is written again", self._path)
            self._wait_s = 0.0

    def _fail(self, error: sqlite3.DatabaseError) -> None:
        if not self.is_down:
            level = logging.WARNING if self._warns else logging.INFO
            _log.log(level, "the log %s cannot be written (%s): its lines wait in RAM", self._path, error)
        self._wait_s = min(max(2 * self._wait_s, _FIRST_WAIT_S), _LONGEST_WAIT_S)
        self._retry_at_s = self._clock() + self._wait_s

    def _begin_anew(self, why: str) -> None:
        """A new file in place of a damaged one; what waited comes after what could be read."""
        try:
            self._table = LogTable(self._path, self._budget_bytes, self._table.set_aside(why))
            self.faults = (*self.faults, self._table.fault)[-8:]
            self._commit()
        except (sqlite3.DatabaseError, OSError) as error:
            self._fail(sqlite3.OperationalError(str(error)))

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError("this log got closed; open a new one")


def _bounds(span: Span | None) -> dict[str, object]:
    return {} if span is None else {"from_s": float(span.start_s), "until_s": float(span.end_s)}

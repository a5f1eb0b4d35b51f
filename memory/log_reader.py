"""LogReader: the text log of another process, looked at and never changed."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..stream import Span
from .event_file import APPLICATION_ID, VERSION, num_bytes_of
from .event_log import EventLog, Line

_log = logging.getLogger(__name__)

_BUSY_S = 0.5


class LogReader(EventLog):
    """A log that somebody else writes, or has written. Takes no lines.

    The file is opened for each question, so that one that is set aside or made meanwhile is noticed; where it is not
    there, is damaged or is another program's, nothing is found.
    """

    def __init__(self, path: Path, *, budget_bytes: int) -> None:
        super().__init__(None, budget_bytes=budget_bytes)
        self._file = path
        self._has_told = False

    @property
    def num_lines(self) -> int:
        """Lines and traces that are committed now."""
        return self._count("count(*)")

    @property
    def num_let_go(self) -> int:
        return self._count("coalesce(sum(stands_for), 0)")

    @property
    def num_bytes(self) -> int:
        return num_bytes_of(self._file)

    def add(self, span: Span, text: str, kind: str = "narration") -> int:
        """ValueError: a log that is read takes none."""
        raise ValueError(f"the log {self._file} is only read here; got {text[:40]!r}; add it where it is written")

    def check(self) -> None:
        """What another process writes is its to check."""

    def __repr__(self) -> str:
        return f"LogReader({str(self._file)!r})"

    def _ask(self, question: str, num_lines: int, values: dict[str, object]) -> list[Line]:
        self._check_open()
        if num_lines < 0:
            raise ValueError(f"num_lines must not be negative; got {num_lines}")
        rows = self._rows(question, {**values, "num_lines": min(num_lines, 2**62)}) if num_lines else []
        return [Line(n, Span(a, b), kind, text, score) for n, a, b, kind, text, score in rows]  # type: ignore[arg-type]

    def _count(self, what: str) -> int:
        rows = self._rows(f"SELECT {what} FROM lines", {})
        return int(rows[0][0]) if rows else 0  # type: ignore[call-overload]

    def _rows(self, question: str, values: dict[str, object]) -> list[tuple[object, ...]]:
        try:
            with _reading(self._file) as connection:
                return connection.execute(question, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            if not self._has_told and self._file.exists():
                self._has_told = True
                _log.warning("the log %s cannot be read: %s", self._file, error)
            return []


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    uri = path.absolute().as_uri()
    try:
        connection = _opened(f"{uri}?mode=ro")
    except sqlite3.OperationalError:
        connection = _opened(f"{uri}?immutable=1")  # a folder where nothing may be made
    try:
        yield connection
    finally:
        connection.close()


def _opened(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        for pragma, wanted in (("application_id", APPLICATION_ID), ("user_version", VERSION)):
            (found,) = connection.execute(f"PRAGMA {pragma}").fetchone()
            if found != wanted:
                raise sqlite3.DatabaseError(f"its {pragma} is {found}, that of a log {wanted}")
    except BaseException:
        connection.close()
        raise
    return connection

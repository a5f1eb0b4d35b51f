"""The text log's file: made, recognised, set aside where it is damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger(__name__)

APPLICATION_ID = 0x4D504C47  # "MPLG"
VERSION = 1
PAGE_BYTES = 4096

# stands_for: how many lines of old a trace stands for; 0 for a line itself.
_SCHEMA = (
    "CREATE TABLE lines(number INTEGER PRIMARY KEY, start_s REAL NOT NULL, end_s REAL NOT NULL, kind TEXT NOT NULL, "
    "text TEXT NOT NULL, stands_for INTEGER NOT NULL)",
    "CREATE INDEX lines_by_time ON lines(start_s)",
    "CREATE VIRTUAL TABLE words USING fts5(text, content='lines', content_rowid='number', tokenize='unicode61')",
)
_BUSY_S = 0.5
_MAX_SALVAGED = 50_000
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Opened(NamedTuple):
    """A log's database, whole and ours; and where a damaged one in its place was put."""

    connection: sqlite3.Connection
    set_aside: Path | None


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is not what SQLite wrote; not so where it merely cannot be read or written now."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _DAMAGE


def open_file(path: Path | None) -> Opened:
    """Opens or makes a log; one that is damaged is renamed to `<name>.bad`, and a new one made in its place.

    ValueError for another program's database, or a log of another version: it is left as it is.
    """
    try:
        return Opened(_open(path), None)
    except sqlite3.DatabaseError as error:
        if path is None or not is_damage(error):
            raise
        bad = set_aside(path, str(error))
    return Opened(_open(path), bad)


def set_aside(path: Path, why: str) -> Path:
    """Renames a damaged log, in place of one that was set aside before; what its write-ahead log held goes along."""
    bad = path.with_name(path.name + ".bad")
    for end in ("-shm", "-wal"):
        side = path.with_name(path.name + end)
        if side.exists():
            os.replace(side, bad.with_name(bad.name + end))
    os.replace(path, bad)
    _log.warning("the log %s is damaged (%s): it is now %s, and a new one is begun", path, why, bad.name)
    return bad


def salvage(bad: Path) -> list[tuple[int, float, float, str, str, int]]:
    """The newest rows that can still be read from a damaged log, oldest first; unchecked."""
    rows = []
    try:
        connection = sqlite3.connect(f"{bad.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)
        try:
            newest_first = (
                "SELECT number, start_s, end_s, kind, text, stands_for FROM lines ORDER BY number DESC LIMIT ?"
            )
            for row in connection.execute(newest_first, (_MAX_SALVAGED,)):
                rows.append(row)
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
        _log.debug("reading %s ends: %s", bad, error)
    rows.reverse()
    return rows


def num_bytes_of(path: Path) -> int:
    """Bytes of the database, its write-ahead log and its index."""
    total = 0
    for end in ("", "-wal", "-shm"):
        try:
            total += os.stat(f"{path}{end}").st_size
        except FileNotFoundError:
            pass
    return total


def wal_bytes_of(path: Path) -> int:
    """Bytes of the write-ahead log."""
    try:
        return os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        return 0


def _open(path: Path | None) -> sqlite3.Connection:
    # One owner at a time, who may live in another thread than the one that opened it.
    connection = sqlite3.connect(
        ":memory:" if path is None else path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        if _is_empty(connection):
            _make(connection)
        _recognise(connection, path)
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 0", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _is_empty(connection: sqlite3.Connection) -> bool:
    return _number(connection, "PRAGMA page_count") == 0


def _make(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in (
        *_SCHEMA,
        # Left to itself, FTS5 merges as much at once as it finds fit.
        "INSERT INTO words(words, rank) VALUES('automerge', 0)",
        "INSERT INTO words(words, rank) VALUES('crisismerge', 64)",
        f"PRAGMA application_id = {APPLICATION_ID}",
        f"PRAGMA user_version = {VERSION}",
    ):
        connection.execute(statement)
    connection.execute("COMMIT")


def _recognise(connection: sqlite3.Connection, path: Path | None) -> None:
    """ValueError for a database of others; DatabaseError for one of ours that is damaged."""
    application = _number(connection, "PRAGMA application_id")
    if application != APPLICATION_ID:
        raise ValueError(f"{path} is another program's database (application {application:#x}); name another file")
    version = _number(connection, "PRAGMA user_version")
    if version != VERSION:
        raise ValueError(f"got a log of version {version} in {path}; this program reads version {VERSION}")
    has = connection.execute("SELECT sql FROM sqlite_master WHERE name NOT LIKE 'words!_%' ESCAPE '!'").fetchall()
    if sorted(str(sql) for (sql,) in has) != sorted(_SCHEMA) or _number(connection, "PRAGMA page_size") != PAGE_BYTES:
        raise _damage("its tables are not those of a log")
    found = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != ("ok",):
        raise _damage(str(found[0]) if found else "no answer")


def _damage(what: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _number(connection: sqlite3.Connection, question: str) -> int:
    return int(connection.execute(question).fetchone()[0])

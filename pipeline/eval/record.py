"""Ledger: every answer of one method to one suite, a line each, at rest as soon as it is given."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...stream import Span
from ..batch.settings import differences, digest
from .item import Item, Said

_log = logging.getLogger(__name__)

VERSION = 1
_MAX_BYTES = 2**30
_COUNTS = ("num_frames", "num_polls", "num_tokens", "kv_bytes", "held_bytes")
_SECONDS = ("at_s", "ingest_s", "ttft_s", "total_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Made by the runner, read by reports: one item, what was said to it, and what that took.

    item: the item's digest: an item that reads otherwise is another one, whatever its id.
    asked: the words put to the model. text, first_yes_s: as in Said. score: 0 to 1.
    problem: why the method had no answer; it counts as wrong.
    seen_until_s: time of the newest frame that had been seen. used: the stretches that were read to answer.
    ingest_s: wall seconds in which frames were taken in since the answer before, num_frames of them.
    ttft_s: wall seconds to the first token; total_s: to the last. Of a "moment" these are the middle one of its polls
        and the sum of them.
    kv_bytes, held_bytes: what was kept for the stream then: keys and values, and all.
    """

    id: str
    item: str
    video: str
    kind: str
    category: str
    form: str
    at_s: float
    question: str
    answer: str
    asked: str
    text: str
    score: float
    first_yes_s: float | None = None
    problem: str | None = None
    seen_until_s: float | None = None
    used: tuple[Span, ...] = ()
    num_frames: int = 0
    num_polls: int = 0
    num_tokens: int = 0
    ingest_s: float = 0.0
    ttft_s: float = 0.0
    total_s: float = 0.0
    kv_bytes: int = 0
    held_bytes: int = 0

    def __post_init__(self) -> None:
        for name in ("id", "item", "video", "kind", "category", "form", "question", "answer", "asked", "text"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be words; got {getattr(self, name)!r}")
        if self.problem is not None and not isinstance(self.problem, str):
            raise ValueError(f"problem must be words; got {self.problem!r}")
        for name in _COUNTS:
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < 0:
                raise ValueError(f"{name} must be a whole number, 0 or more; got {given!r}")
        for name in _SECONDS:
            if not _is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be a number of seconds, 0 or more; got {getattr(self, name)!r}")
        for name in ("first_yes_s", "seen_until_s"):
            given = getattr(self, name)
            if given is not None and not _is_number(given):
                raise ValueError(f"{name} must be a finite number of seconds; got {given!r}")
        if not _is_number(self.score) or not 0 <= self.score <= 1:
            raise ValueError(f"a score is from 0 to 1; got {self.score!r}")

    @property
    def said(self) -> Said:
        return Said(self.text, self.first_yes_s)

    def to_line(self) -> str:
        value = {f.name: getattr(self, f.name) for f in fields(self)}
        value["used"] = [[span.start_s, span.end_s] for span in self.used]
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_line(cls, line: str | bytes) -> Answered:
        """ValueError for what is no such line."""
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError(f"a line must be an object; got {str(value)[:60]!r}")
            used = tuple(Span(float(start_s), float(end_s)) for start_s, end_s in value.pop("used"))
            return cls(**value, used=used)
        except (KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"a line must be an answer; got {type(error).__name__}: {str(error)[:120]}") from error


def item_digest(item: Item, video: str) -> str:
    """Short, and another where anything of the item is. video: its name, wherever the folder of the videos is."""
    text = json.dumps({**asdict(item), "video": video}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class NoLedger:
    """Nothing is kept."""

    def answered(self, item: Item, video: str) -> Answered | None:
        """What an earlier run was answered, if it was asked the same about the video of that name."""
        return None

    def add(self, answered: Answered) -> None:
        """Takes an answer."""

    def close(self) -> None:
        """Lets go. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Ledger(NoLedger):
    """A file of JSON lines: first the settings, then an answer a line, each on the disk before `add` returns.

    A run that was killed leaves whole lines and at most one torn one, which is cut off. Lines that are damaged are left
    out, and their items asked again. The file is one process's at a time; the lock goes with the process.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, anew: bool = False) -> None:
        """settings: all that decides what is answered, as JSON; ValueError says what differs from the file's.
        anew: throws away what is there."""
        self._path = path
        self._handle = -1
        self._answered: dict[str, Answered] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ValueError(f"answers cannot be written to {path}: {error.strerror}; give another folder") from error
        try:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another run is writing {path}; wait for its end, or give another folder") from None
            if anew:
                os.ftruncate(self._handle, 0)
            self._read(settings)
        except BaseException:
            self.close()
            raise

    def answered(self, item: Item, video: str) -> Answered | None:
        found = self._answered.get(item.id)
        return found if found is not None and found.item == item_digest(item, video) else None

    def add(self, answered: Answered) -> None:
        self._write(answered.to_line())
        self._answered[answered.id] = answered

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _read(self, settings: Mapping[str, Any]) -> None:
        num_bytes = os.fstat(self._handle).st_size
        if num_bytes > _MAX_BYTES:
            raise ValueError(f"{self._path} has {num_bytes} bytes, and no file of answers has that many; remove it")
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.ftruncate(self._handle, len(whole))
        lines = whole.split(b"\n")[:-1]
        if not lines:
            self._write(json.dumps({"version": VERSION, "digest": digest(settings), "settings": settings}))
            return
        self._check_settings(lines[0], settings)
        num_damaged = 0
        for line in lines[1:]:
            try:
                answered = Answered.from_line(line)
            except ValueError as error:
                num_damaged += 1
                _log.debug("%s: %s", self._path, error)
            else:
                self._answered[answered.id] = answered
        if num_damaged:
            _log.warning("%s: %d lines are damaged; what they answered is asked again", self._path, num_damaged)

    def _check_settings(self, line: bytes, settings: Mapping[str, Any]) -> None:
        try:
            before = json.loads(line)
            if before["version"] != VERSION or not isinstance(before["settings"], dict):
                raise ValueError(f"version {before['version']!r}")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{self._path} is no file of answers of this version (got {str(error)[:80]}); give another folder, or "
                "--anew"
            ) from error
        if digest(before["settings"]) != digest(settings):
            changed = "; ".join(differences(before["settings"], settings)[:5])
            raise ValueError(
                f"{self._path} was begun with other settings: got {changed}; give the same, another folder, or --anew"
            )

    def _write(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        while data:
            data = data[os.write(self._handle, data) :]
        os.fsync(self._handle)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

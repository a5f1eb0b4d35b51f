"""Annotation files are written by others: read with limits, and every complaint says file, entry and field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

MAX_FILE_BYTES = 256 * 1024**2
MAX_LINE_BYTES = 1024**2
MAX_TEXT_CHARS = 20_000
# As file systems have it, which complain of longer ones rather than not find them.
MAX_PATH_CHARS, MAX_NAME_BYTES = 1_000, 255
# A year. No video is longer, and a time in milliseconds soon is.
MAX_TIME_S = 366 * 86400.0
# What is waited for comes within a day: it is polled for every second of that.
MAX_WAIT_S = 86400.0

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class Entry:
    """One object of an annotation file: its fields, checked as they are taken.

    where: file and entry, as complaints name them.
    """

    def __init__(self, fields: Any, where: str) -> None:
        if not isinstance(fields, dict):
            raise ValueError(f"{where}: must be an object with fields; got {shown(fields)}")
        self._fields: dict[str, Any] = fields
        self.where = where

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def only(self, names: Sequence[str]) -> None:
        """Refuses a field that nobody reads: most often a misspelt one."""
        for name in self._fields:
            if name not in names:
                raise ValueError(f"{self.where}: no field is named {shown(name)}; there are: {', '.join(names)}")

    def refuse(self, name: str, wanted: str) -> NoReturn:
        given = shown(self._fields[name]) if name in self._fields else "none"
        raise ValueError(f"{self.where}: {name} must be {wanted}; got {given}")

    def raw(self, name: str) -> Any:
        """The field as it is, unchecked; None where there is none."""
        return self._fields.get(name)

    def text(self, name: str, *, default: str | None = None) -> str:
        """Words, without space around them."""
        if default is not None and name not in self:
            return default
        given = self._fields.get(name)
        if not isinstance(given, str) or not is_text(given):
            self.refuse(name, f"a text of 1 to {MAX_TEXT_CHARS} characters")
        return given.strip()

    def line(self, name: str, *, default: str | None = None) -> str:
        """Words on one line."""
        given = self.text(name, default=default)
        if _CONTROL.search(given):
            self.refuse(name, "a text on one line")
        return given

    def seconds(self, name: str, *, default: float | None = None) -> float:
        if default is not None and name not in self:
            return default
        given = self._fields.get(name)
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= MAX_TIME_S:
            self.refuse(name, f"a number of seconds from 0 to {MAX_TIME_S:.0f}")
        return float(given)

    def whole(self, name: str, *, most: int) -> int:
        """A whole number from 0 on."""
        given = self._fields.get(name)
        if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= most:
            self.refuse(name, f"a whole number from 0 to {most}")
        return given

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, without space around them; numbers are taken for the texts that they print as."""
        given = self._fields.get(name)
        if not isinstance(given, list):
            self.refuse(name, "a list of texts")
        as_texts = [str(one) if is_number(one) else one for one in given]
        if not all(isinstance(one, str) and is_text(one) for one in as_texts):
            self.refuse(name, f"a list of texts of 1 to {MAX_TEXT_CHARS} characters")
        return tuple(one.strip() for one in as_texts)

    def entries(self, name: str) -> tuple[Entry, ...]:
        given = self._fields.get(name)
        if not isinstance(given, list) or not given:
            self.refuse(name, "a list of one or more objects")
        return tuple(Entry(one, f"{self.where}, {name}[{number}]") for number, one in enumerate(given))

    def video(self, name: str, videos: Path | None, *, inner: str | None = None) -> str:
        """The address of the video that the field names, below the folder `videos`.

        inner: a leading folder that may be left out, where the videos lie in `videos` itself.
        """
        if videos is None:
            raise ValueError(f"{self.where}: {name} is {shown(self.raw(name))}; give the folder of the videos")
        parts = self._path_parts(name)
        folder = videos.absolute()
        whole = folder.joinpath(*parts)
        if inner is not None and parts[0] == inner and len(parts) > 1 and not whole.exists():
            bare = folder.joinpath(*parts[1:])
            return str(bare if bare.exists() else whole)
        return str(whole)

    def _path_parts(self, name: str) -> list[str]:
        """A hostile path is refused by its letters, before any file is looked at. Links below the folder are its
        owner's, and are followed."""
        given = self.text(name)
        if len(given) > MAX_PATH_CHARS or _CONTROL.search(given):
            self.refuse(name, f"a path on one line, of at most {MAX_PATH_CHARS} characters")
        if _SCHEME.match(given):
            self.refuse(name, "a path below the folder of the videos, not an address or a drive")
        if "\\" in given:
            self.refuse(name, "a path with / between its parts")
        parts = [part for part in given.split("/") if part not in ("", ".")]
        if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
            self.refuse(name, f"a path of names of at most {MAX_NAME_BYTES} bytes")
        if given.startswith("/") or ".." in parts or not parts:
            self.refuse(name, "a path below the folder of the videos, without a leading / and without ..")
        return parts


def is_text(given: str) -> bool:
    """Whether it has words, is not endless, and can be written down: no NUL, no half of a surrogate pair."""
    if not given.strip() or len(given) > MAX_TEXT_CHARS or "\0" in given:
        return False
    return not any("\ud800" <= char <= "\udfff" for char in given)


def is_number(given: Any) -> bool:
    """A number that is one: no bool, not infinite."""
    return (isinstance(given, int) and not isinstance(given, bool)) or (
        isinstance(given, float) and math.isfinite(given)
    )


def shown(given: Any) -> str:
    """A value for a complaint: on one line, not endless, and printable."""
    text = ascii(given) if not isinstance(given, list | dict) else f"a {type(given).__name__} of {len(given)}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def questions_file(path: Path | None) -> Path:
    """The annotation file that a reader needs."""
    if path is None:
        raise ValueError("this suite reads its questions from a file; give its path")
    if not path.is_file():
        raise ValueError(f"the questions must be a file; got {str(path)!r}")
    num_bytes = path.stat().st_size
    if num_bytes > MAX_FILE_BYTES:
        raise ValueError(f"{path.name}: {num_bytes} bytes are more than {MAX_FILE_BYTES}; split the file")
    return path


def check_folder(videos: Path | None) -> None:
    if videos is not None and not videos.is_dir():
        raise ValueError(f"the folder of the videos must be a folder that is there; got {str(videos)!r}")


def refuse_settings(settings: dict[str, Any], known: Sequence[str] = ()) -> None:
    for name in settings:
        if name not in known:
            raise ValueError(f"this suite has no setting {name!r}; it has: {', '.join(known) or 'none'}")


def read_list(path: Path) -> list[Any]:
    """A file that is one JSON list."""
    value = _parsed(_decoded(path.read_bytes(), path.name), path.name)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{path.name}: must be a list of one or more entries; got {shown(value)}")
    return value


def read_lines(path: Path) -> Iterator[Entry]:
    """A file of one JSON object per line; empty lines are let be."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path.name}, line {number}"
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(f"{where}: must be at most {MAX_LINE_BYTES} bytes long; got more")
            if line.strip(b" \t\r\n\xef\xbb\xbf"):
                yield Entry(_parsed(_decoded(line, where), where), where)


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: must be UTF-8; got {error.reason} at byte {error.start}") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"{where}: must be JSON of a few levels; got one that is nested too deep") from None
    except ValueError as error:
        raise ValueError(f"{where}: must be JSON; got {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}; got it")

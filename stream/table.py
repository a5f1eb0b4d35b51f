"""Table: the one list of what exists of a kind, by name; a class is imported when it is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Table(Mapping[str, type[T]], Generic[T]):
    """Maps a name to a class that lives in `module:Class`, relative to the package of `where`.

    >>> SOURCES = Table("source", __name__, {"file": "video_file:FileSource"})
    """

    def __init__(self, kind: str, where: str, rows: Mapping[str, str]) -> None:
        self._kind = kind
        self._where = where
        self._rows = dict(rows)

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._rows:
            raise ValueError(f"no {self._kind} named {name!r}; there are: {', '.join(sorted(self._rows))}")
        module, _, attribute = self._rows[name].partition(":")
        loaded: type[T] = getattr(importlib.import_module(f".{module}", self._where), attribute)
        return loaded

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows

"""BatchSettings: how recordings are cut and told; and what a folder of results was made with."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from ..config import EngineConfig

# What changes where the work is done, and not what comes of it.
_ELSEWHERE = frozenset({"device", "reuse_budget_bytes"})


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How a batch cuts its videos; all else is the engine's."""

    chunk_s: int = 120
    """Seconds of video that are worked on as one, about: what a kill may cost, and what workers share out."""

    min_chapter_s: float = 15.0
    """No chapter is shorter, but that of a shorter video. In long videos they are longer: there are 40 at most."""

    max_chapter_s: float = 600.0
    """No chapter is longer, but where there would be more than 40, and where nothing was told."""

    notes_tokens: int = 4096
    """Length of the notes that the model summarises at a time, in tokens; less where its context is shorter."""

    question: str | None = None
    """What the videos are watched for: selectors and compressors that look at a question look at this one."""

    def __post_init__(self) -> None:
        for name in ("chunk_s", "notes_tokens"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < 1:
                raise ValueError(f"{name} must be a whole number, at least 1; got {given!r}")
        if not 0 < self.min_chapter_s <= self.max_chapter_s < float("inf"):
            raise ValueError(
                f"chapters need 0 < min_chapter_s <= max_chapter_s; got {self.min_chapter_s} and {self.max_chapter_s}"
            )
        if self.question is not None and not self.question.strip():
            raise ValueError(f"a question needs words; got {self.question!r}")


def described(config: EngineConfig, settings: BatchSettings) -> dict[str, Any]:
    """All that decides what is written, as JSON: each setting by its name."""
    engine = {name: value for name, value in _plain(config).items() if name not in _ELSEWHERE}
    return {**engine, "batch": _plain(settings)}


def digest(description: Mapping[str, Any]) -> str:
    """A short name of it: results with the same one were made with the same settings."""
    text = json.dumps(description, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> list[str]:
    """In words, what is set otherwise now."""
    found: list[str] = []
    for name in sorted({*before, *now}):
        old, new, path = before.get(name), now.get(name), f"{within}{name}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{path}.")
        elif old != new:
            found.append(f"{path} was {_short(old)} and is {_short(new)}")
    return found


def _short(value: Any) -> str:
    return str(value["kind"] if isinstance(value, Mapping) and "kind" in value else value)[:60]


def _plain(value: Any) -> Any:
    """A settings object as JSON: dataclasses by their fields, and their class where it says which method it is."""
    if is_dataclass(value) and not isinstance(value, type):
        given = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        return given if isinstance(value, EngineConfig | BatchSettings) else {"kind": type(value).__name__, **given}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        listed = [_plain(one) for one in value]
        return sorted(listed, key=str) if isinstance(value, set | frozenset) else listed
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # "inf": no limit; JSON has no number for it
    return value if isinstance(value, str | int | float | bool | None) else repr(value)

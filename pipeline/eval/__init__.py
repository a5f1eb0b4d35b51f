"""Questions with known answers about streams: suites of them, asked strictly causally, scored and compared.

Nothing is imported before it is asked for: a suite's table loads only the reader that is named.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "CATEGORIES": "item",
    "FORMS": "item",
    "Item": "item",
    "SUITES": "suites",
    "Said": "item",
    "Scored": "item",
    "Suite": "suites",
}

__all__ = ["CATEGORIES", "FORMS", "SUITES", "Item", "Said", "Scored", "Suite"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

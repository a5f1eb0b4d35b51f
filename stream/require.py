"""The one door to dependencies that are not always there."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, *, reason: str, install: str) -> ModuleType:
    """Imports `module`, or raises ImportError that says what needs it and the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{reason} needs {module} ({error}); pip install '{install}'") from error

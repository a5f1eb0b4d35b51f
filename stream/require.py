"""Require: the one door to packages that only an extra of Millpond brings."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingExtra(ImportError):
    """A package that is not installed, and how to get it, in one sentence."""


def require(module: str, *, who: str, extra: str | None) -> ModuleType:
    """The module, imported now.

    who: what needs it, in words that a sentence begins with: "robot logs".
    extra: the extra of Millpond that brings it; None: none does, and it is asked for by its own name.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        what = package if extra is None else f"'millpond[{extra}]'"
        raise MissingExtra(f"{who} need {package}; pip install {what}", name=package) from error

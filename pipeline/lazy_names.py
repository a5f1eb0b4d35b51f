"""Names of a package that are imported when they are first used (PEP 562): what is not asked for is not loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module


def lazy_names(
    package: str, homes: Mapping[str, Collection[str]], extra: str = "", of_extra: Collection[str] = ()
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`.

    package: its `__name__`.
    homes: modules of the package, each with the names that live in it.
    extra, of_extra: the packages that one of Millpond's extras brings; without one of them, using a name raises an
        ImportError which says what to install.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def load(name: str) -> object:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            home = import_module(f".{home_of[name]}", package)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in of_extra:
                raise
            raise ImportError(
                f"{package.removeprefix('millpond.')} needs {missing}; pip install 'millpond[{extra}]'"
            ) from error
        found: object = getattr(home, name)
        setattr(sys.modules[package], name, found)
        return found

    def listing() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return load, listing

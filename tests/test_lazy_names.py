"""Names that are imported when they are first used: found, listed, and what is missing is said in a sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = """
from millpond.pipeline.lazy_names import lazy_names
__getattr__, __dir__ = lazy_names(
    __name__, {"light": ("LIGHT",), "heavy": ("HEAVY",), "broken": ("BROKEN",)}, "big", ("not_installed",)
)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    home = tmp_path / "a_lazy_package"
    home.mkdir()
    (home / "__init__.py").write_text(PACKAGE)
    (home / "light.py").write_text("LIGHT = object()")
    (home / "heavy.py").write_text("import not_installed.part\nHEAVY = 1")
    (home / "broken.py").write_text("import neither_this\nBROKEN = 1")
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module(home.name)
    for name in [name for name in sys.modules if name.partition(".")[0] == home.name]:
        del sys.modules[name]


def test_a_name_is_imported_when_it_is_used_and_once(package: ModuleType) -> None:
    assert "a_lazy_package.light" not in sys.modules
    assert package.LIGHT is package.LIGHT
    assert vars(package)["LIGHT"] is sys.modules["a_lazy_package.light"].LIGHT


def test_names_are_listed_before_they_are_loaded(package: ModuleType) -> None:
    assert {"LIGHT", "HEAVY", "BROKEN", "__name__"} <= set(dir(package))
    assert "a_lazy_package.light" not in sys.modules


def test_a_name_that_is_not_there_is_an_attribute_error(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match="'a_lazy_package' has no attribute 'DARK'"):
        _ = package.DARK


def test_what_an_extra_brings_is_named_where_it_is_missing(package: ModuleType) -> None:
    with pytest.raises(ImportError, match=r"needs not_installed; pip install 'millpond\[big\]'"):
        _ = package.HEAVY


def test_what_no_extra_brings_is_told_as_it_is(package: ModuleType) -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'neither_this'"):
        _ = package.BROKEN

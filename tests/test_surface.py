"""What users can reach: the names of the four packages, and the wheel, installed where nothing else is."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("stream", "memory", "encoders", "pipeline")

has_sources = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="the sources are not beside the tests")


def is_generated(path: Path) -> bool:
    """Whether a tool made it, beside the sources."""
    return any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def source_files() -> set[str]:
    """Everything in the four folders, as paths from the top: all of it is to be installed."""
    paths = (path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*"))
    return {path.as_posix() for path in paths if (ROOT / path).is_file() and not is_generated(path)}


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_and_all_there_is(package: str) -> None:
    module = importlib.import_module(f"millpond.{package}")
    # Constants, classes, functions, each by name: as ruff sorts them.
    assert module.__all__ == sorted(module.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert not isinstance(getattr(module, name), ModuleType), f"{name} is a submodule"
    public = {
        name for name, value in vars(module).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    } - {"annotations", "TYPE_CHECKING"}
    assert public <= set(module.__all__), "reachable, but not in __all__"


def test_a_process_that_only_reads_a_source_loads_no_torch() -> None:
    code = "import sys, millpond.pipeline, millpond.pipeline.cluster.source_host; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
    from millpond import pipeline

    assert set(pipeline.__all__) <= set(dir(pipeline))
    with pytest.raises(AttributeError, match="has no attribute 'Motor'"):
        _ = pipeline.Motor


@has_sources
def test_every_folder_is_listed_for_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {name.rpartition("/")[0] for name in source_files()}
    assert sorted(settings["packages"]) == sorted("millpond." + folder.replace("/", ".") for folder in folders)
    assert settings["package-dir"] == {f"millpond.{package}": package for package in PACKAGES}


@pytest.fixture(scope="module")
def dists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist and the wheel made from it; built from a copy: the tree stays clean."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tree)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, tree, cwd=tree)
    return out


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@has_sources
def test_wheel_and_sdist_hold_every_file(dists: Path) -> None:
    wanted = source_files()
    assert {f"{package}/py.typed" for package in PACKAGES} <= wanted
    with zipfile.ZipFile(next(dists.glob("*.whl"))) as wheel:
        in_wheel = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert in_wheel == {f"millpond/{name}" for name in wanted}
    with tarfile.open(next(dists.glob("*.tar.gz"))) as sdist:
        in_sdist = {name.partition("/")[2] for name in sdist.getnames()}
    assert wanted | {"pyproject.toml", "README.md"} <= in_sdist


@pytest.fixture(scope="module")
def installed(dists: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The `bin` of an environment that holds the wheel and none of this tree.

    The dependencies are those of the running environment, put behind the wheel by a path file: gigabytes are
    not copied, and an editable install there has no effect, since path files in such a folder are not read.
    """
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    wheel = next(dists.glob("*.whl"))
    run(
        *(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"),
        *("install", "--quiet", "--no-deps", "--no-index", wheel),
        cwd=home,
    )
    where = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).stdout.strip()
    dependencies = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    Path(where, "dependencies.pth").write_text("\n".join(dependencies) + "\n", encoding="utf-8")
    yield home / "bin"
    shutil.rmtree(home)


def clean_env() -> dict[str, str]:
    """The environment without what would point Python back at this tree."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


@has_sources
def test_wheel_imports_from_where_it_is_installed(installed: Path, tmp_path: Path) -> None:
    code = (
        "import importlib, json; "
        f"print(json.dumps([importlib.import_module('millpond.' + p).__file__ for p in {PACKAGES}]))"
    )
    files = json.loads(run(installed / "python", "-c", code, cwd=tmp_path, env=clean_env()).stdout)
    assert all(Path(name).is_relative_to(installed.parent) for name in files), files


needs_cli = pytest.mark.skipif(
    not (ROOT / "pipeline" / "cli.py").exists(), reason="the command line is not written yet"
)


@has_sources
@needs_cli
def test_installed_command_knows_its_version(installed: Path, tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert version in run(installed / "millpond", "--version", cwd=tmp_path, env=clean_env()).stdout


@has_sources
@needs_cli
@pytest.mark.slow
def test_installed_demo_runs(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "millpond", "demo", cwd=tmp_path, env=clean_env())
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr

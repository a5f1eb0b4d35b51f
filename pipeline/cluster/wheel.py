"""A wheel of the installed packages, made from themselves: how this code reaches the machines of a cluster."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

_ROOT = __package__.split(".")[0]  # millpond
_PACKAGES = ("encoders", "memory", "pipeline", "stream")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same files make the same wheel, whenever they were written


def made_wheel(folder: Path) -> Path:
    """Writes a wheel of this very code into `folder`, and returns its path.

    Works for an editable install and for one from a wheel. It asks for no other package: those are on the nodes, and
    Ray installs wheels with `pip install --target`, which would bring them all a second time. Ray also takes two
    wheels of one name for the same one, so the name holds a hash of the contents, as a build number.
    """
    files = dict(_files())
    contents = hashlib.sha256()
    for name, data in files.items():
        contents.update(f"{name}\0{len(data)}\0".encode() + data)
    number = version(_ROOT)
    build = f"0{contents.hexdigest()[:16]}"  # a build number begins with a digit
    info = f"{_ROOT}-{number}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {_ROOT}\nVersion: {number}\n".encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: {_ROOT}\nRoot-Is-Purelib: true\nTag: py3-none-any\nBuild: {build}\n".encode()
    )
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    path = folder / f"{_ROOT}-{number}-{build}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return path


def _files() -> Iterator[tuple[str, bytes]]:
    """Names in the wheel and contents of everything that the packages have, in order."""
    for package in _PACKAGES:
        for path, name in sorted(_paths(package), key=lambda found: found[1]):
            yield name, path.read_bytes()


def _paths(package: str) -> Iterator[tuple[Path, str]]:
    spec = find_spec(f"{_ROOT}.{package}")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    if not places:
        raise FileNotFoundError(f"the package {_ROOT}.{package} is not installed as files; install {_ROOT} with pip")
    for place in map(Path, places):
        for path in place.rglob("*"):
            inside = path.relative_to(place)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
            if path.is_file() and not hidden and path.suffix != ".pyc":
                yield path, f"{_ROOT}/{package}/{inside.as_posix()}"


def _record(files: dict[str, bytes], own_name: str) -> bytes:
    """The list of all files with their hashes, as pip wants it; of itself it holds only the name."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((name, f"sha256={digest}", len(data)))
    rows.writerow((own_name, "", ""))
    return text.getvalue().encode()

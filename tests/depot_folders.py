"""Small directory depots for tests, and looks into them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from millpond.memory.depots.directory import DirectoryDepot


def segments(folder: Path, kind: str = "kv") -> list[Path]:
    return sorted((folder / kind).glob("*.seg"))


def contents(depot: DirectoryDepot) -> dict[int, bytes | None]:
    return {number: depot.get("kv", number) for number in depot.numbers("kv")}


class DirectoryReader:
    def __init__(self, path: Path) -> None:
        self.depot = DirectoryDepot(path, read_only=True)

    def __enter__(self) -> DirectoryDepot:
        return self.depot

    def __exit__(self, *_: object) -> None:
        self.depot.close()


def make(path: Path, num_records: int = 3, **options: int) -> dict[int, bytes]:
    """A depot with some records, closed again."""
    depot = DirectoryDepot(path, **options)  # type: ignore[arg-type]
    records = {number: bytes([65 + number]) * (10 + number) for number in range(num_records)}
    for number, payload in records.items():
        depot.put("kv", number, payload)
    depot.close()
    return records


def python(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()

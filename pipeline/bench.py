"""BENCHES: what `millpond bench NAME` can measure. A benchmark is one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..stream import Table


class Bench(ABC):
    """One benchmark: made with no arguments, all settings to `run`.

    about: what it measures, and the keys of its JSON object, as `--help` shows them.
    """

    about: str

    @abstractmethod
    def run(self, *, model: str, repeats: int) -> dict[str, Any]:
        """Measures, and returns one JSON-ready object."""

    @abstractmethod
    def table(self, result: dict[str, Any]) -> str:
        """The result for people."""


BENCHES: Table[Bench] = Table(
    "benchmark",
    __package__ or "",
    {
        "compress": "bench_compress:CompressBench",
        "core": "bench_core:CoreBench",
        "mini": "bench_mini:MiniBench",
        "reuse": "bench_reuse:ReuseBench",
    },
)

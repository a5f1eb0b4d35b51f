"""BENCHES: what `millpond bench NAME` can measure. A benchmark is one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ..stream import Table


class Bench(ABC):
    """One benchmark: made with no arguments, all settings to `run`.

    about: what it measures, and the keys of its JSON object, as `--help` shows them.
    """

    about: str

    @abstractmethod
    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """Measures, and returns one JSON-ready object.

        clips: a folder of recordings, for benchmarks that look at some; None: synthetic ones.
        """

    @abstractmethod
    def table(self, result: dict[str, Any]) -> str:
        """The result for people."""


BENCHES: Table[Bench] = Table(
    "benchmark",
    __package__ or "",
    {
        "alerts": "bench_alerts:AlertsBench",
        "compress": "bench_compress:CompressBench",
        "core": "bench_core:CoreBench",
        "encode": "bench_encode:EncodeBench",
        "memory": "bench_memory:MemoryBench",
        "mini": "bench_mini:MiniBench",
        "profile": "bench_profile:ProfileBench",
        "real": "bench_real:RealBench",
        "reuse": "bench_reuse:ReuseBench",
        "robot": "bench_robot:RobotBench",
        "robot_policy": "bench_robot_policy:RobotPolicyBench",
        "serve": "bench_serve:ServeBench",
        "streaming": "bench_streaming:StreamingBench",
        "streams": "bench_streams:StreamsBench",
    },
)

"""`millpond bench encode`: all that is measured of encoding, in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .bench import BENCHES, Bench

PARTS = ("reuse", "streaming", "compress", "profile")


class EncodeBench(Bench):
    """The benchmarks of what changed and of what matters, one after the other."""

    about = (
        "encode: reuse, streaming, compress and profile, one after the other. Keys: those of all four, with methods "
        "of streaming and compressors of compress beside rows of reuse."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """model: goes to those that measure towers and time; answers are the built-in model's."""
        result: dict[str, Any] = {}
        for name in PARTS:
            part_model = model if name in ("reuse", "profile") else "default"
            part = BENCHES[name]().run(model=part_model, repeats=repeats, clips=clips)
            result |= {key: value for key, value in part.items() if key not in result}
            result[name] = part
        return result

    def table(self, result: dict[str, Any]) -> str:
        return "\n\n".join(BENCHES[name]().table(result[name]) for name in PARTS)

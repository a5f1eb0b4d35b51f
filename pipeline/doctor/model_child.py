"""The process in which the doctor loads a model: settings in as JSON, one line of JSON out.

Started as `python -m millpond.pipeline.doctor.model_child`; imports nothing of the caller's.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> int:
    asked = json.load(sys.stdin)
    try:
        told = _tried(asked)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is the answer
        said = " ".join(str(error).split())[:400]
        told = {"error": said if isinstance(error, ValueError) and said else f"{type(error).__name__}: {said}"}
    sys.stdout.write("\n" + json.dumps(told) + "\n")  # libraries may have left a line open
    return 0


def _tried(asked: dict[str, Any]) -> dict[str, Any]:
    from transformers.utils import logging as transformers_logging

    from ...stream import open_source
    from ..config import EngineConfig
    from ..engine import Engine

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    began_s = time.monotonic()
    with Engine(EngineConfig(**asked, max_new_tokens=1)) as engine:
        load_s = time.monotonic() - began_s
        session = engine.session("doctor")
        with open_source("synthetic://shapes?seed=1&duration_s=4&rate_hz=1&width=96&height=96") as source:
            for frame in source:
                session.push(frame)
        answer = session.ask("What is there?")
        spec = engine.model.spec
        return {
            "family": spec.family,
            "num_parameters": spec.num_parameters,
            "dtype": str(spec.dtype).removeprefix("torch."),
            "device": str(spec.device),
            "load_s": load_s,
            "ttft_s": answer.timing.ttft_s,
        }


if __name__ == "__main__":
    sys.exit(main())

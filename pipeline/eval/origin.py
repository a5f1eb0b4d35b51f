"""Origin: where figures come from: the command, the hardware and the commit, written beside them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import torch

from ...stream.redact import redact_uri


def origin(words: Sequence[str], device: str = "auto") -> dict[str, str]:
    """command, machine and commit, JSON-ready. words: as they were typed, the program first; device: as --device."""
    from ..bench_real import commit
    from ..bench_shapes import machine

    found = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return {"command": command(words), "machine": machine(torch.device(found)), "commit": commit()}


def command(words: Sequence[str]) -> str:
    """One line that a shell takes; of the program only its name, and no password."""
    program, *rest = words
    return shlex.join([PurePath(program).name, *(redact_uri(word) if "://" in word else word for word in rest)])


def asked(
    suite: str, settings: Mapping[str, Any], *, questions: str | None = None, limit: int | None = None
) -> dict[str, Any]:
    """What was asked, JSON-ready, so that it can be asked again: see small_part.py. questions: a file's name."""
    return {"suite": suite, "settings": dict(settings), "questions": questions, "limit": limit}

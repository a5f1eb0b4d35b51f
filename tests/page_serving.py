"""Servers for the tests of the page: streams that go on, and the first of them told of often."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from millpond.pipeline import Engine
from millpond.pipeline.config import EngineConfig
from millpond.stream import Span

from .serve_server import served
from .watched import mini

# Things come and go all through it.
WORLD = "synthetic://shapes?seed={seed}&wide=1&objects=18&duration_s={duration_s}&rate_hz=2"


def settings_of(
    ids: tuple[str, ...] = ("front-door", "yard"),
    *,
    token: str | None = None,
    memory: Path | None = None,
) -> dict[str, Any]:
    """What a config file says of them."""
    return {
        "server": {} if token is None else {"token": token},
        "model": {"fps": 0.5},
        "narration": {"min_gap_s": 2.0, "max_gap_s": 4.0, "max_new_tokens": 12},
        "memory": {} if memory is None else {"at": str(memory)},
        "streams": [
            {
                "id": name,
                "source": WORLD.format(seed=5 + number, duration_s=900),
                "as_live": True,
                "narrate": number == 0,
            }
            for number, name in enumerate(ids)
        ],
    }


def as_toml(settings: dict[str, Any]) -> str:
    """The same, as a config file has it."""
    lines = [
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in part.items())
        for name, part in settings.items()
        if isinstance(part, dict)
    ]
    for stream in settings["streams"]:
        lines.append("[[streams]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in stream.items()))
    return "\n".join(lines)


@contextmanager
def serving(**settings: Any) -> Iterator[str]:
    """A server of such streams in this process, and where it is."""
    with served(settings_of(**settings)) as server:
        yield server.url


def remember(memory: Path, stream_id: str, words: str) -> None:
    """A line in a stream's log, from an earlier run."""
    with Engine(EngineConfig(), model=mini()) as engine:
        session = engine.session(stream_id, at=memory / stream_id)
        session.history.note(words, Span(0.0, 1.0))
        session.close()

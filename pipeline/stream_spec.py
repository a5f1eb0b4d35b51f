"""StreamSpec: all that is known of a stream before it is opened, so that another process or machine may open it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..stream import Source, open_source
from ..stream.redact import redact_uri
from ..stream.source import local_path, source_kind
from .paced import PacedSource

_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """Made by whoever wants a stream watched, read by feeds, hubs and clusters. Shows no credentials.

    stream_id: names the stream, wherever it runs.
    uri: what `open_source` takes.
    question: what the stream is watched for.
    narrate: whether narrations are wanted.
    memory: a directory or a redis:// address where its session outlives the process; None: it forgets with its process.
    options: what `open_source` takes besides; plain values, as they may travel.
    as_live: plays a recording as a camera would give it: by the clock, to whoever is quick enough.
    """

    stream_id: str
    uri: str = field(repr=False)
    question: str | None = None
    narrate: bool = True
    memory: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    as_live: bool = False

    def __post_init__(self) -> None:
        name = self.stream_id
        if not isinstance(name, str) or not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
            raise ValueError(f"a stream_id has 1 to {_MAX_NAME} printable characters; got {str(name)[:80]!r}")
        source_kind(self.uri)  # raises SourceError where nothing reads it
        if self.question is not None and not self.question.strip():
            raise ValueError(f"a question needs words; got {self.question!r}")
        if self.memory is not None and not self.memory.strip():
            raise ValueError(f"memory is a directory or a redis:// address; got {self.memory!r}; None for neither")
        for key in self.options:
            if key in ("uri", "stream_id"):
                raise ValueError(f"options are what open_source takes besides uri and stream_id; got {key!r}")

    def open(self, **options: Any) -> Source:
        """The source, opened; `options` come on top of its own. Raises as `open_source` does."""
        source = open_source(self.uri, stream_id=self.stream_id, **{**self.options, **options})
        return PacedSource(source) if self.as_live and not source.is_live else source

    @property
    def is_live(self) -> bool:
        """Whether time passes by itself there, so that frames not taken are lost."""
        return self.as_live or source_kind(self.uri) == "live"

    def anywhere(self) -> StreamSpec:
        """The same, with its paths absolute: it means the same in a process that has another working directory."""
        uri, memory = self.uri, self.memory
        if source_kind(uri) in ("file", "folder"):
            uri = os.path.abspath(local_path(uri))
        if memory is not None and "://" not in memory:
            memory = os.path.abspath(os.path.expanduser(memory))
        return replace(self, uri=uri, memory=memory)

    def __repr__(self) -> str:
        shown = redact_uri(self.uri)
        return f"StreamSpec({self.stream_id[:40]!r}, {shown if len(shown) <= 60 else shown[:57] + '...'})"

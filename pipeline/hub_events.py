"""What a hub, or a cluster of them, tells of its streams."""

from __future__ import annotations

from dataclasses import dataclass

from .answer import Narration


@dataclass(frozen=True, slots=True)
class Narrated:
    """Made by a Hub for whoever listens: something was told of a stream."""

    stream_id: str
    narration: Narration


@dataclass(frozen=True, slots=True)
class Ended:
    """Made by a Hub for whoever listens: no more frames of this stream will come. It can still be asked.

    problem: why, in a sentence without credentials; None where it came to its end.
    """

    stream_id: str
    problem: str | None


HubEvent = Narrated | Ended


class HubStopped(RuntimeError):
    """The hub was closed, or gave up, before this was done."""

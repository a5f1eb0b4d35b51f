"""Question: what is asked, when, and about which stretch of a stream."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..stream import Span

# Later than any stream lasts: what an open side of a span stands for.
_NEVER_S = 1e12


class NothingSeen(ValueError):
    """A stream was asked before it had shown anything."""


class NothingRemembered(ValueError):
    """The stretch of time that a question is about was not seen, or is remembered no more."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the moment it is asked at, and the stretch of stream time it is about; None leaves that side open.

    at_s: stream time of asking, not before the newest frame; None: the newest frame's.
    earlier: what was said before in the same conversation, oldest first; the newest of it is read before the question,
        as far as there is room, where the model's prompts have a place for it. Nothing is recalled for it.
    """

    text: str
    at_s: float | None = None
    since_s: float | None = None
    until_s: float | None = None
    max_new_tokens: int | None = None
    earlier: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError(f"a question needs words; got {self.text!r}")
        for name in ("at_s", "since_s", "until_s"):
            given = getattr(self, name)
            if given is not None and not abs(given) < _NEVER_S:
                raise ValueError(f"{name} must be a finite number of seconds; got {given}")
        if self.since_s is not None and self.until_s is not None and self.until_s < self.since_s:
            raise ValueError(f"a question about a span needs since_s <= until_s; got {self.since_s} and {self.until_s}")

    @property
    def span(self) -> Span | None:
        """The stretch that it is about, both ends included; None where it is about everything."""
        if self.since_s is None and self.until_s is None:
            return None
        since_s = -_NEVER_S if self.since_s is None else self.since_s
        until_s = _NEVER_S if self.until_s is None else self.until_s
        # Spans are half-open, and a block of two frames ends at its second: a hair more on both sides lets
        # frames at the very ends in.
        return Span(math.nextafter(since_s, -math.inf), math.nextafter(until_s, math.inf))

"""What a session says: answers and narrations, with what they rest on and what they took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..stream import Span


@dataclass(frozen=True, slots=True)
class Timing:
    """Made by a session, read by programs and people. From the question to the first token, and to the last."""

    ttft_s: float
    total_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.ttft_s <= self.total_s:
            raise ValueError(
                f"timing must have 0 <= ttft_s <= total_s; got ttft_s={self.ttft_s}, total_s={self.total_s}"
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """Made by `Session.ask`, read by whoever asked.

    asked_at_s: stream time that the question was about.
    seen_until_s: time of the newest frame that had been seen.
    used: the stretches of stream time that were read to answer, in order, apart from one another.
    token_ids: the answer's tokens, the one that ended it not among them.
    num_prompt_tokens: what they were decoded after: pictures, words and the question; 0 where nobody counted.
    """

    question: str
    text: str
    asked_at_s: float
    seen_until_s: float
    used: tuple[Span, ...]
    timing: Timing
    token_ids: tuple[int, ...]
    num_prompt_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    def __post_init__(self) -> None:
        if self.seen_until_s > self.asked_at_s:
            raise ValueError(
                f"an answer cannot have seen later frames than it was asked at; got seen_until_s={self.seen_until_s}, "
                f"asked_at_s={self.asked_at_s}"
            )

    def __repr__(self) -> str:
        return f"Answer({self.text[:60]!r}, seen until {self.seen_until_s:.1f} s, {len(self.used)} spans)"


@dataclass(frozen=True, slots=True)
class Narration:
    """Made by a session, read by whoever watches: what was new in a stretch of time."""

    text: str
    span: Span
    answer: Answer

    def __repr__(self) -> str:
        return f"Narration({self.text[:60]!r}, {self.span})"


def join_spans(spans: Iterable[Span], *, gap_s: float) -> tuple[Span, ...]:
    """Puts spans in order, and makes one of those that overlap or lie at most `gap_s` apart."""
    joined: list[Span] = []
    for span in sorted(spans):
        if joined and span.start_s <= joined[-1].end_s + gap_s:
            joined[-1] = Span(joined[-1].start_s, max(joined[-1].end_s, span.end_s))
        else:
            joined.append(span)
    return tuple(joined)

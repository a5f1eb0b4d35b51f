"""Summarising a recording: narrate it from start to end, then tell it as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..stream import Frame, Span, time_words
from .answer import Answer, Narration
from .session import Session
from .watch import Progress, watch

_MAX_LOG_CHARS = 6000


@dataclass(frozen=True, slots=True)
class Summary:
    """Made by `summarize`, read by the command line: the whole in words, and the narrations that it rests on."""

    text: str
    span: Span
    narrations: tuple[Narration, ...]
    answer: Answer


def summarize(
    session: Session, frames: Iterable[Frame], *, on_progress: Callable[[float], None] | None = None
) -> Summary:
    """Watches all frames, and sums up what the narrations and the memory hold.

    A model that can work from notes is given the narrations with their times; the built-in one only knows what it
    still sees, and is asked that.
    """
    narrations: list[Narration] = []
    for event in watch(session, frames, narrate=True):
        if isinstance(event, Narration):
            narrations.append(event)
        elif isinstance(event, Progress) and on_progress is not None:
            on_progress(event.pts_s)
    recount = session.prompts.recount
    if recount is None or not narrations:
        answer = session.ask(session.prompts.summary)
    else:
        answer = session.ask(recount.format(log=_log(narrations)))
    first_s, last_s = session.seen_from_s, session.seen_until_s
    assert first_s is not None and last_s is not None
    return Summary(answer.text, Span(first_s, last_s), tuple(narrations), answer)


def _log(narrations: Sequence[Narration]) -> str:
    """The narrations as notes. Of a log that is too long for a prompt, lines are left out evenly."""
    lines = [f"{time_words(n.span.start_s)} - {time_words(n.span.end_s)}: {n.text}" for n in narrations]
    while len(lines) > 1 and sum(map(len, lines)) > _MAX_LOG_CHARS:
        lines = lines[::2]
    return "\n".join(lines)[:_MAX_LOG_CHARS]

"""One pass over a source: frames go to a session, questions are asked when their moment comes, narrations come out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..stream import Frame
from .answer import Answer, Narration
from .question import NothingRemembered, Question
from .session import Session


@dataclass(frozen=True, slots=True)
class Progress:
    """Made by `watch` for every frame that was pushed; read by progress bars."""

    pts_s: float


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Made by `watch` for a question about a time of which nothing is remembered; the others are answered."""

    question: Question
    reason: str


class Parsed(NamedTuple):
    """A question of a file, and the name that stood beside it."""

    question: Question
    besides: str | None


def watch(
    session: Session,
    frames: Iterable[Frame],
    *,
    questions: Iterable[Question] = (),
    narrate: bool = False,
    on_text: Callable[[str], None] | None = None,
) -> Iterator[Progress | Narration | Answer | Unanswered]:
    """Pushes the frames and yields what comes of it, in order of stream time.

    A question is asked when its `at_s` has passed, and sees the frames up to then and no later one; one about a span
    that has an end, and no `at_s`, when that end has passed; all others after the last frame.
    """
    waiting = sorted(questions, key=_due_s)
    for frame in frames:
        while waiting and _due_s(waiting[0]) < frame.pts_s and session.seen_until_s is not None:
            yield _ask(session, waiting.pop(0), on_text)
        session.push(frame)
        yield Progress(frame.pts_s)
        if narrate:
            narration = session.narrate()
            if narration is not None:
                yield narration
    if session.seen_until_s is None:
        raise ValueError(f"the stream {session.stream_id!r} ended without a single frame; there is nothing to tell")
    if narrate:
        narration = session.narrate(force=True)
        if narration is not None:
            yield narration
    for question in waiting:
        yield _ask(session, question, on_text)


def read_questions(path: str | Path) -> list[Question]:
    """Questions from a file of JSON lines: `question`, and optionally `at_s`, `since_s`, `until_s`.

    Raises ValueError that names the line for whatever is not that.
    """
    lines = question_lines(path)
    questions = [read_question(line, f"{path}:{n}").question for n, line in enumerate(lines, 1) if line.strip()]
    if not questions:
        raise ValueError(f"the questions file {str(path)!r} holds no question; write one JSON object a line")
    return questions


def question_lines(path: str | Path) -> list[str]:
    """The lines of a file of questions; ValueError where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8").split("\n")  # other line ends may stand in a string
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the questions file {str(path)!r} cannot be read: {error}; give JSON lines") from error


def read_question(line: str, where: str, *, also: str | None = None) -> Parsed:
    """One line of JSON as a question, and the string under the key `also`, where it may have one."""
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON ({error}); write one object a line") from error
    if not isinstance(given, dict) or not isinstance(given.get("question"), str):
        raise ValueError(f'{where} must be an object with a "question" in words; got {line[:80]}')
    besides = given.pop(also, None) if also is not None else None
    if besides is not None and not isinstance(besides, str):
        raise ValueError(f"{where}: {also} must be a name; got {besides!r}")
    times: dict[str, float | None] = {}
    for key, value in given.items():
        if key == "question":
            continue
        if key not in ("at_s", "since_s", "until_s"):
            known = ", ".join(["question", *([also] if also else []), "at_s", "since_s", "until_s"])
            raise ValueError(f"{where} has an unknown key {key!r}; there are: {known}")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{where}: {key} must be a number of seconds; got {value!r}")
        times[key] = value
    try:
        return Parsed(Question(given["question"], **times), besides)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _due_s(question: Question) -> float:
    if question.at_s is not None:
        return question.at_s
    return question.until_s if question.until_s is not None else float("inf")


def _ask(session: Session, question: Question, on_text: Callable[[str], None] | None) -> Answer | Unanswered:
    try:
        return session.ask_question(question, on_text=on_text)
    except NothingRemembered as error:
        return Unanswered(question, str(error))

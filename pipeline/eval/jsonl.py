"""Plain JSONL: one question per line, which anything else converts to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .entries import MAX_WAIT_S, Entry, check_folder, is_number, questions_file, read_lines, refuse_settings
from .item import CATEGORIES, LETTERS, Item
from .scoring import same_words
from .suites import Suite

# Seconds after the right moment until which a "moment" is polled, where the line does not say.
POLLED_AFTER_S = 4.0
FIELDS = (
    "video", "at_s", "question", "options", "answer", "type",
    "id", "category", "since_s", "right_at_s", "until_s",
)  # fmt: skip


class JsonlSuite(Suite):
    """One JSON object per line: `video`, `at_s`, `question`, `answer`, and where wanted `options` and `type`.

    video: a path below the folder of the videos, or synthetic://...
    answer: with `options` the letter of one or its words; without, a number, true or false, "yes" or "no", or words.
    type: any word; results are given for each. Default: the form of the question.

    Also: `id` (default: the line's number), `category` (real-time, backward or forward; default real-time), `since_s`
    (nothing before is seen), and, for a question that says what to wait for, `right_at_s`, when that comes,
    and `until_s`, when polling ends (default: 4 s after it). A question about a past moment is asked at a later `at_s`.
    """

    about = "one JSON object per line: video, at_s, question, options, answer, type"

    def items(self, path: Path | None, videos: Path | None, **settings: Any) -> list[Item]:
        refuse_settings(settings)
        path = questions_file(path)
        check_folder(videos)
        items: dict[str, Item] = {}
        for number, entry in enumerate(read_lines(path), start=1):
            item = _item(entry, videos, number)
            if item.id in items:
                raise ValueError(f"{entry.where}: id must be its own; got {item.id!r} again")
            items[item.id] = item
        if not items:
            raise ValueError(f"{path.name}: must have one question or more; got none")
        return list(items.values())


def _item(entry: Entry, videos: Path | None, number: int) -> Item:
    entry.only(FIELDS)
    at_s = entry.seconds("at_s")
    since_s = entry.seconds("since_s", default=0.0)
    if since_s > at_s:
        entry.refuse("since_s", f"at most at_s, {at_s:g}")
    category = entry.line("category", default="real-time")
    if category not in CATEGORIES:
        entry.refuse("category", f"one of {', '.join(CATEGORIES)}")
    form, answer, options = _form(entry)
    right_at_s = until_s = None
    if form == "moment":
        right_at_s = entry.seconds("right_at_s")
        until_s = entry.seconds("until_s", default=max(at_s, right_at_s + POLLED_AFTER_S))
        if not at_s <= until_s <= at_s + MAX_WAIT_S:
            name = "until_s" if "until_s" in entry else "right_at_s"
            entry.refuse(name, f"at least at_s, {at_s:g}, and at most a day later")
    elif "until_s" in entry:
        entry.refuse("until_s", "left out where there is no right_at_s")
    return Item(
        id=_id(entry, number),
        video=_video(entry, videos),
        at_s=at_s,
        question=entry.text("question"),
        answer=answer,
        form=form,
        kind=entry.line("type", default=form),
        category=category,
        options=options,
        since_s=since_s,
        right_at_s=right_at_s,
        until_s=until_s,
    )


def _id(entry: Entry, number: int) -> str:
    given = entry.raw("id")
    if isinstance(given, int) and not isinstance(given, bool):
        return str(entry.whole("id", most=10**12))
    return entry.line("id", default=str(number))


def _video(entry: Entry, videos: Path | None) -> str:
    given = entry.line("video")
    return given if given.startswith("synthetic://") else entry.video("video", videos)


def _form(entry: Entry) -> tuple[str, str, tuple[str, ...]]:
    """What the answer shows a question to be: its form, its answer as Item has it, its options."""
    given = entry.raw("answer")
    if entry.raw("options"):
        if "right_at_s" in entry:
            entry.refuse("options", "left out where there is right_at_s")
        options = entry.texts("options")
        if not 2 <= len(options) <= len(LETTERS):
            entry.refuse("options", f"a list of 2 to {len(LETTERS)} texts")
        return "choice", _letter(entry, options), options
    if "right_at_s" in entry:
        return "moment", entry.text("answer"), ()
    if isinstance(given, bool):
        return "yes_no", "yes" if given else "no", ()
    if is_number(given):
        if abs(given) >= 1e15:
            entry.refuse("answer", "a number of at most 15 digits")
        return "number", f"{given:.9f}".rstrip("0").rstrip("."), ()
    words = entry.text("answer")
    if words.lower() in ("yes", "no"):
        return "yes_no", words.lower(), ()
    return "words", words, ()


def _letter(entry: Entry, options: tuple[str, ...]) -> str:
    """The option that the answer is the letter of, or has the words of; not one of each."""
    answer = str(entry.raw("answer")) if is_number(entry.raw("answer")) else entry.text("answer")
    by_words = {LETTERS[number] for number, option in enumerate(options) if same_words(answer, option)}
    by_letter = {answer.upper()} if answer.upper() in tuple(LETTERS[: len(options)]) else set()
    if len(by_words | by_letter) != 1:
        entry.refuse("answer", "the letter of one option, or its words, and not those of another")
    return (by_words | by_letter).pop()

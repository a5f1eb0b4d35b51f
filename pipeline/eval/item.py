"""Item: one question with its answer. Said: what a method answered. Scored: the two with a score."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

FORMS = ("choice", "words", "number", "yes_no", "moment")
CATEGORIES = ("real-time", "backward", "forward")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,9})?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Item:
    """Made by suites, read by the runner and by scoring.

    id: unique in its suite, the same for the same annotation file: results are resumed by it.
    video: an address that open_source takes: a path below the video folder, or synthetic://...
    at_s: stream time of asking: nothing after it has been seen.
    question: as the annotation has it; `asking` makes of it what a model is asked.
    answer: the right answer: the letter for "choice", words, a number in digits, "yes" or "no"; for "moment" what is
        to be said.
    form: one of FORMS. "moment": it is polled from at_s on, and right if its first yes is near right_at_s.
    kind: the suite's own type.
    category: one of CATEGORIES, as OVO-Bench names them.
    options: without letters.
    since_s: where the stretch that may be seen begins.
    right_at_s, until_s: for "moment": when it becomes true, and when polling ends.
    context: ids of the questions asked before it in the same conversation, in order.
    """

    id: str
    video: str
    at_s: float
    question: str
    answer: str
    form: str
    kind: str
    category: str
    options: tuple[str, ...] = ()
    since_s: float = 0.0
    right_at_s: float | None = None
    until_s: float | None = None
    context: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("id", "video", "question", "kind"):
            given = getattr(self, name)
            if not isinstance(given, str) or not given.strip():
                raise ValueError(f"an item's {name} must have words; got {given!r}")
        for name in ("id", "video", "kind"):
            if _CONTROL.search(getattr(self, name)):
                raise ValueError(f"an item's {name} must stand on one line; got {getattr(self, name)!r}")
        for name, known in (("form", FORMS), ("category", CATEGORIES)):
            if getattr(self, name) not in known:
                raise ValueError(f"an item's {name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")
        self._check_times()
        self._check_answer()
        object.__setattr__(self, "context", tuple(self.context))
        if self.id in self.context:
            raise ValueError(f"an item cannot come before itself; got {self.id!r} in its own context")

    def _check_times(self) -> None:
        for name in ("at_s", "since_s", "right_at_s", "until_s"):
            given = getattr(self, name)
            if given is not None and not (math.isfinite(given) and given >= 0):
                raise ValueError(f"{name} must be a finite number of seconds, 0 or more; got {given}")
        if self.since_s > self.at_s:
            raise ValueError(f"since_s must not be after at_s; got {self.since_s} and {self.at_s}")
        if self.form != "moment":
            if self.right_at_s is not None or self.until_s is not None:
                raise ValueError(f'only a "moment" has right_at_s and until_s; got them with form {self.form!r}')
        elif self.right_at_s is None or self.until_s is None or self.until_s < self.at_s:
            raise ValueError(
                f'a "moment" needs right_at_s, and until_s not before at_s; got right_at_s={self.right_at_s}, '
                f"until_s={self.until_s}, at_s={self.at_s}"
            )

    def _check_answer(self) -> None:
        if isinstance(self.options, str) or not all(isinstance(option, str) for option in self.options):
            raise ValueError(f"an item's options must be a list of texts; got {self.options!r}")
        object.__setattr__(self, "options", tuple(self.options))
        if self.form == "choice":
            if not 2 <= len(self.options) <= len(LETTERS):
                raise ValueError(f"a choice needs 2 to {len(LETTERS)} options; got {len(self.options)}")
            if self.answer not in tuple(LETTERS[: len(self.options)]):
                raise ValueError(
                    f"the answer to a choice must be a letter from A to {LETTERS[len(self.options) - 1]}; "
                    f"got {self.answer!r}"
                )
        elif self.options:
            raise ValueError(f'only a "choice" has options; got {len(self.options)} with form {self.form!r}')
        elif self.form == "number" and not _PLAIN_NUMBER.fullmatch(self.answer):
            raise ValueError(f"the answer to a number must be digits; got {self.answer!r}")
        elif self.form == "yes_no" and self.answer not in ("yes", "no"):
            raise ValueError(f'the answer to a yes_no must be "yes" or "no"; got {self.answer!r}')
        elif not self.answer.strip():
            raise ValueError(f"an item's answer must have words; got {self.answer!r}")

    def __repr__(self) -> str:
        return f"Item({self.id[:40]!r}, {self.form}, {self.kind[:20]}, at {self.at_s:.1f} s)"


@dataclass(frozen=True, slots=True)
class Said:
    """Made by the runner, read by scoring: what a method answered to one item.

    text: the answer; for "moment" what it said when its moment had come, "" where it was not asked for that.
    first_yes_s: for "moment": stream time of the first poll that was answered with yes; None: there was none.
    """

    text: str
    first_yes_s: float | None = None

    def __post_init__(self) -> None:
        if self.first_yes_s is not None and not math.isfinite(self.first_yes_s):
            raise ValueError(f"first_yes_s must be a finite number of seconds; got {self.first_yes_s}")


class Scored(NamedTuple):
    """One item, what was said to it, and how right that is, 0 to 1."""

    item: Item
    said: Said
    score: float

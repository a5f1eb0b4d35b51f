"""A small part of a suite, asked again of today's code: do the defaults still reach what was committed?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..config import EngineConfig
from .entries import Entry
from .item import Item
from .method import EvalMethod
from .methods import METHODS
from .page_read import OURS, Share, SuiteResult, line, one_of
from .report import report
from .run import evaluate, spread_over
from .suites import SUITES, Suite

_MOST = 50


class Held(NamedTuple):
    """Made by `held`. committed: of the file; measured: right answers of all, now. holds: not below the interval."""

    holds: bool
    committed: Share
    measured: float

    def __str__(self) -> str:
        low = self.committed.low
        return f"{self.measured:.3f} now; {self.committed} was committed; {'not ' if self.holds else ''}below {low:.3f}"


class Part(NamedTuple):
    """Made by `part_of`: a suite, its questions, and those of them that are asked."""

    suite: Suite
    all_items: list[Item]
    items: list[Item]


def part_of(result: SuiteResult, folder: Path) -> Part:
    """What a result of the folder was asked; ValueError where it does not say so, or no such questions can be made.

    The file is taken for hostile: it names a suite, plain settings, and questions that lie in the folder itself.
    """
    if result.asked is None:
        raise ValueError(f"a result of {result.suite} must say what was asked, to be asked again; got nothing")
    entry = Entry({"asked": result.asked}, "result")
    asked = one_of(entry, "asked")
    asked.only(("suite", "settings", "questions", "limit"))
    limit = asked.whole("limit", most=10**6) if "limit" in asked else None
    suite = SUITES[line(asked, "suite")]()
    items = suite.items(_questions(asked, folder), None, **_settings(asked))
    return Part(suite, items, items if limit is None else spread_over(items, limit))


def measure(part: Part, method: EvalMethod | None = None, config: EngineConfig | None = None) -> dict[str, Any]:
    """The part's report now; method: the defaults, where no other is given."""
    return report(evaluate(part.suite, part.items, method or METHODS[OURS], config=config, all_items=part.all_items))


def held(result: SuiteResult, measured: Mapping[str, Any]) -> Held:
    """Whether what `measure` gave is not below the lower bound of the defaults' interval in the result. It fails too
    where other questions were asked than were committed."""
    ours = result.row(OURS)
    if ours is None or ours.share is None:
        raise ValueError(f"the result must have figures of {OURS}; got {', '.join(row.name for row in result.rows)}")
    if measured["num_questions"] != ours.share.num_questions:
        raise ValueError(
            f"{ours.share.num_questions} questions were committed, got {measured['num_questions']} now; they are others"
        )
    accuracy = float(measured["accuracy"])
    return Held(accuracy >= ours.share.low, ours.share, accuracy)


def _questions(asked: Entry, folder: Path) -> Path | None:
    if "questions" not in asked:
        return None
    name = line(asked, "questions")
    if name != Path(name).name or name.startswith("."):
        asked.refuse("questions", "the name of a file beside the result")
    return folder / name


def _settings(asked: Entry) -> dict[str, Any]:
    given = asked.raw("settings")
    if not isinstance(given, dict) or len(given) > _MOST:
        asked.refuse("settings", "an object of settings by name")
    if not all(_is_plain(value) for value in given.values()):
        asked.refuse("settings", "an object of plain values, or of lists of them")
    return given


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= _MOST and not any(isinstance(one, list) for one in value) and all(map(_is_plain, value))
    return isinstance(value, str | int | float | bool)

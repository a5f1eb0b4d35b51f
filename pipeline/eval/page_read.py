"""What a results page is made of: JSON files, taken for hostile until every value on the page is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ..bench_mini import wilson
from .entries import Entry
from .front import Point
from .item import CATEGORIES
from .report import AXES

OURS = "millpond"
# The result that tests ask again; see small_part.py.
SMALL = "small"

_MAX_BYTES = 16 * 2**20
_MAX_FILES = 100
_MAX_NAMED = 500  # methods, types of questions, videos
_MAX_LINE_CHARS = 1000
_MOST = 1e18
_LEAST_COST = 1e-12


class Origin(NamedTuple):
    """What printed the figures, on what, and of which commit."""

    command: str
    machine: str
    commit: str


class Share(NamedTuple):
    """Right answers of all, 0 to 1, and their 95 % interval."""

    accuracy: float
    low: float
    high: float
    num_questions: int

    def __str__(self) -> str:
        return f"{self.accuracy:.3f} ({self.low:.3f} to {self.high:.3f})"


class NotScored(NamedTuple):
    """A video whose questions are in no figure."""

    video: str
    reason: str
    num_questions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRow:
    """Made by `read_result`, read by the page: one method's figures. share: None where nothing was scored.
    costs: by the keys of AXES; what was not measured is left out. origin: where another command than the table's
    printed it."""

    name: str
    about: str
    share: Share | None
    by_type: Mapping[str, Share]
    by_category: Mapping[str, Share]
    by_length: Mapping[str, Share]
    costs: Mapping[str, float]
    num_unanswered: int
    not_scored: tuple[NotScored, ...]
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """Made by `read_result`: what `millpond eval` found for one suite.

    asked: what makes the same questions again, where the file says so; unchecked, see small_part.py.
    """

    origin: Origin
    suite: str
    rows: tuple[MethodRow, ...]
    asked: Any = None

    def row(self, name: str) -> MethodRow | None:
        return next((row for row in self.rows if row.name == name), None)

    def points(self, cost: str) -> list[Point]:
        """The methods whose accuracy and cost are known."""
        return [
            Point(row.name, row.costs[cost], row.share.accuracy)
            for row in self.rows
            if row.share is not None and cost in row.costs
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """Made by `read_result`: what `millpond bench real` or `bench mini` printed. Its figures are checked as they are
    put on the page."""

    origin: Origin
    kind: str
    figures: Entry = field(repr=False)


Result = SuiteResult | BenchResult


def read_folder(folder: Path) -> dict[str, Result]:
    """Every .json file of a folder by its name, in the order of names; ValueError says file, entry and field."""
    if not folder.is_dir():
        raise ValueError(f"results are a folder of JSON files; got {str(folder)!r}, which is none")
    paths = sorted(folder.glob("*.json"))
    if not 1 <= len(paths) <= _MAX_FILES:
        raise ValueError(f"a page is made of 1 to {_MAX_FILES} JSON files; got {len(paths)} in {str(folder)!r}")
    for path in paths:
        if not all(part.isalnum() and part.isascii() for part in path.stem.replace("_", "-").split("-")):
            raise ValueError(f"a result's name is words of letters and digits, joined by '-'; got {path.name!r}")
    return {path.stem: read_result(path) for path in paths}


def read_result(path: Path) -> Result:
    """One file; ValueError says what is wrong with it, with the entry and the field."""
    whole = Entry(_json(path), path.name)
    origin = _origin(whole)
    if "methods" in whole:
        return SuiteResult(
            origin=origin,
            suite=line(whole, "suite"),
            rows=tuple(_row(name, one) for name, one in named(whole, "methods").items()),
            asked=whole.raw("asked"),
        )
    kinds = [kind for kind, key in (("real", "rows"), ("mini", "lengths")) if key in whole]
    if not kinds:
        raise ValueError(f"{path.name}: must be of millpond eval, bench real or bench mini; got none of their figures")
    return BenchResult(origin=origin, kind=kinds[0], figures=whole)


def _json(path: Path) -> Any:
    try:
        num_bytes = path.stat().st_size
        if not path.is_file() or num_bytes > _MAX_BYTES:
            raise ValueError(f"a file of at most {_MAX_BYTES} bytes is wanted, got {num_bytes}")
        return json.loads(path.read_bytes(), parse_constant=_no_constant, object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: cannot be read, got {type(error).__name__}: {str(error)[:200]}") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no such number, got {name}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"each key stands once in an object; got one again among {', '.join(found)[:80]}")
    return found


def _row(name: str, one: Entry) -> MethodRow:
    costs = one_of(one, "costs")
    given = {cost: _cost(costs, cost) for cost in AXES if cost in costs}
    return MethodRow(
        name=name,
        about=line(one, "about"),
        share=share(one),
        by_type=shares(one, "by_type"),
        by_category={name: found for name, found in shares(one, "by_category").items() if name in CATEGORIES},
        by_length=shares(one, "by_length") if "by_length" in one else {},
        costs=given,
        num_unanswered=one.whole("num_unanswered", most=10**9),
        not_scored=tuple(_not_scored(one)),
        origin=_origin(one) if "command" in one else None,
    )


def _origin(entry: Entry) -> Origin:
    return Origin(*(line(entry, name) for name in Origin._fields))


def _cost(costs: Entry, name: str) -> float:
    """What can be drawn on a logarithmic scale, or nothing."""
    given = number(costs, name)
    if 0 < given < _LEAST_COST:
        costs.refuse(name, f"0, or {_LEAST_COST:g} and more")
    return given


def _not_scored(one: Entry) -> list[NotScored]:
    found = []
    for name in ("missing", "broken"):
        for video in listed(one, name):
            reason = line(video, "reason") if name == "broken" else "is missing"
            found.append(NotScored(line(video, "video"), reason, video.whole("num_questions", most=10**9)))
    return found


# What is taken of an entry, checked.


def line(entry: Entry, name: str) -> str:
    """Words on one line."""
    given = entry.line(name)
    if len(given) > _MAX_LINE_CHARS:
        entry.refuse(name, f"a text of at most {_MAX_LINE_CHARS} characters")
    return given


def number(entry: Entry, name: str) -> float:
    """0 or more, and finite."""
    given = entry.raw(name)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= _MOST:
        entry.refuse(name, "a finite number, 0 or more")
    return float(given)


def pair(entry: Entry, name: str) -> tuple[float, float]:
    """The lowest and the highest of something."""
    given = entry.raw(name)
    if not isinstance(given, list) or len(given) != 2:
        entry.refuse(name, "a list of two numbers")
    both = Entry(dict(zip(("low", "high"), given, strict=True)), f"{entry.where}, {name}")
    low, high = number(both, "low"), number(both, "high")
    if low > high:
        entry.refuse(name, "two numbers, the lower first")
    return low, high


def share(entry: Entry) -> Share | None:
    """accuracy, interval and num_questions; None where nothing was asked. A share whose interval the file does not say
    has Wilson's."""
    num_questions = entry.whole("num_questions", most=10**9)
    if "accuracy" not in entry and not num_questions:
        return None
    accuracy = number(entry, "accuracy")
    if accuracy > 1 or not num_questions:
        entry.refuse("accuracy", "from 0 to 1, of one question or more")
    if "interval" in entry:
        low, high = pair(entry, "interval")
    else:
        low, high = wilson(accuracy * num_questions, num_questions)
    # A rounding may leave a limit a hair beside the accuracy that it is of.
    if not low - 1e-9 <= accuracy <= high + 1e-9:
        entry.refuse("accuracy", f"in its interval, {low:g} to {high:g}")
    if high > 1 + 1e-9:
        entry.refuse("interval", "from 0 to 1")
    return Share(accuracy, low, high, num_questions)


def shares(entry: Entry, name: str) -> dict[str, Share]:
    """Shares by name, in the file's order; without those of nothing."""
    found = {key: share(one) for key, one in named(entry, name).items()}
    return {key: one for key, one in found.items() if one is not None}


def one_of(entry: Entry, name: str) -> Entry:
    """An object within."""
    return Entry(entry.raw(name), f"{entry.where}, {name}")


def named(entry: Entry, name: str) -> dict[str, Entry]:
    """The objects within, by their keys."""
    given = entry.raw(name)
    if not isinstance(given, dict) or len(given) > _MAX_NAMED:
        entry.refuse(name, f"an object of at most {_MAX_NAMED} objects")
    found = {}
    for key, value in given.items():
        own = Entry({"name": key}, f"{entry.where}, {name}")
        found[line(own, "name")] = Entry(value, f"{entry.where}, {name}, {key[:60]!r}")
    return found


def listed(entry: Entry, name: str) -> list[Entry]:
    """The objects of a list, which may be empty."""
    given = entry.raw(name)
    if not isinstance(given, list) or len(given) > _MAX_NAMED:
        entry.refuse(name, f"a list of at most {_MAX_NAMED} objects")
    return [Entry(one, f"{entry.where}, {name}[{at}]") for at, one in enumerate(given)]

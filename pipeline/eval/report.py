"""What comes of a run, as JSON and for people: accuracy with its interval, by type, and what it cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..bench_mini import wilson
from .front import Point, front
from .item import Item, Said, Scored
from .record import Answered
from .run import Results
from .suites import Suite

# What a method costs: the key of the costs, how it is written, and what one of its units is in the key's.
AXES: dict[str, tuple[str, float]] = {
    "frame_s": ("wall time per frame, ms", 1e-3),
    "kv_bytes": ("keys and values kept, MiB", 2.0**20),
    "ttft_s": ("time to first token, ms", 1e-3),
}


def report(results: Results) -> dict[str, Any]:
    """One method's results, JSON-ready: accuracy, interval (95 %), by_type, num_questions, config; besides them what
    the suite adds, costs, num_unanswered, missing and broken videos."""
    scored = results.scored
    summary = results.suite.summary(scored)
    found = {
        "method": results.method.name,
        "about": results.method.about,
        **summary,
        "interval": interval_of(results.suite, scored),
        "by_type": _with_intervals(results, summary["by_type"], lambda item: item.kind),
        "by_category": _with_intervals(results, summary["by_category"], lambda item: item.category),
        "num_unanswered": sum(one.problem is not None for one in results.answered),
        "num_left_out": sum(one.num_items for one in results.left_out),
        "missing": [{"video": one.video, "num_questions": one.num_items} for one in results.left_out if one.is_missing],
        "broken": [
            {"video": one.video, "num_questions": one.num_items, "reason": one.reason}
            for one in results.left_out
            if not one.is_missing
        ],
        "costs": costs(results.answered),
        "config": dict(results.settings),
    }
    first = ("accuracy", "interval", "by_type", "num_questions")
    return {**{name: found[name] for name in first}, **found}


def costs(answered: Sequence[Answered]) -> dict[str, float | int | None]:
    """What the answers took; None for what was not measured.

    frame_s: wall seconds to take in a frame, the mean. ttft_s: wall seconds from the question to the first token, the
    middle one; ttft_p95_s: 95 % are as fast. answer_s: to the last token, the middle one. all_s: wall seconds for each
    frame, answers included. kv_bytes, held_bytes: the most that was kept for a stream when it was asked.
    """
    told = [one for one in answered if one.seen_until_s is not None]
    num_frames = sum(one.num_frames for one in answered)
    ingest_s = sum(one.ingest_s for one in answered)
    ttfts_s = sorted(one.ttft_s for one in told)
    return {
        "frame_s": ingest_s / num_frames if num_frames else None,
        "ttft_s": statistics.median(ttfts_s) if told else None,
        "ttft_p95_s": ttfts_s[min(len(ttfts_s) - 1, int(0.95 * len(ttfts_s)))] if told else None,
        "answer_s": statistics.median(one.total_s for one in told) if told else None,
        "all_s": (ingest_s + sum(one.total_s for one in answered)) / num_frames if num_frames else None,
        "kv_bytes": max((one.kv_bytes for one in told), default=None),
        "held_bytes": max((one.held_bytes for one in told), default=None),
        "num_frames": num_frames,
    }


def interval_of(suite: Suite, scored: Sequence[Scored]) -> tuple[float, float] | None:
    """95 % interval of the suite's accuracy; None where nothing was scored.

    A plain share has Wilson's. Where a suite weighs its types, the limits of each are put together with its weights, as
    Zou and Donner (2008) do it: the distance to a limit is the root of the summed squares of the weighted distances.
    """
    if not scored:
        return None
    accuracy, hits = suite.summary(scored)["accuracy"], sum(one.score for one in scored)
    if abs(accuracy - hits / len(scored)) < 1e-9:
        low, high = wilson(hits, len(scored))
        return min(low, accuracy), max(high, accuracy)  # at 0 and 1 rounding may leave it a hair beside
    below = above = 0.0
    for kind in dict.fromkeys(one.item.kind for one in scored):
        scores = [one.score for one in scored if one.item.kind == kind]
        # An accuracy that is a weighted mean tells a weight when that type alone is right.
        weight = suite.summary([Scored(one.item, Said(""), float(one.item.kind == kind)) for one in scored])["accuracy"]
        low, high = wilson(sum(scores), len(scores))
        share = sum(scores) / len(scores)
        below += (weight * max(0.0, share - low)) ** 2
        above += (weight * max(0.0, high - share)) ** 2
    return max(0.0, accuracy - below**0.5), min(1.0, accuracy + above**0.5)


def points(reports: Mapping[str, Mapping[str, Any]], cost: str) -> list[Point]:
    """The methods whose accuracy and cost are known, as points; cost: one of AXES."""
    if cost not in AXES:
        raise ValueError(f"no cost is called {cost!r}; there are: {', '.join(AXES)}")
    return [
        Point(name, float(one["costs"][cost]), float(one["accuracy"]))
        for name, one in reports.items()
        if one["accuracy"] is not None and one["costs"][cost] is not None
    ]


_MOST_COLUMNS = 4


def table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """For people: a row for each type of question, a column for each method; below, what each costs and what is left
    out. Of many methods only the totals, a row for each. An asterisk stands at the methods that no other beats in
    accuracy and that cost."""
    if not reports:
        raise ValueError(f"a table needs the report of a method or more; got {len(reports)}")
    names = list(reports)
    are_many = len(names) > _MOST_COLUMNS
    kinds = list(dict.fromkeys(kind for one in reports.values() for kind in one["by_type"])) if not are_many else []
    rows: list[list[str]] = [["", *names]]
    for kind in kinds:
        rows.append([kind, *(_share(reports[name]["by_type"].get(kind)) for name in names)])
    rows.append(["all", *(_share(reports[name]) for name in names)])
    rows.append(["questions", *(str(reports[name]["num_questions"]) for name in names)])
    for cost, (label, unit) in AXES.items():
        on_front = {point.name for point in front(points(reports, cost))}
        cells = []
        for name in names:
            given = reports[name]["costs"][cost]
            mark = "*" if name in on_front and len(names) > 1 else " "
            cells.append("-" if given is None else f"{given / unit:.2f}{mark}")
        rows.append([label, *cells])
    lines = _aligned([list(column) for column in zip(*rows, strict=True)] if are_many else rows)
    if are_many:
        lines.append("by type of question: in --json, and in report.json of --out")
    if len(names) > 1:
        lines.append("* no other method is at least as good and cheaper, or as cheap and better")
    lines += _left_out(reports)
    return "\n".join(lines)


def _share(figures: Mapping[str, Any] | None) -> str:
    """0.812 (0.781 to 0.839)"""
    if figures is None or figures["accuracy"] is None:
        return "-"
    low, high = figures["interval"]
    return f"{figures['accuracy']:.3f} ({low:.3f} to {high:.3f})"


def _with_intervals(
    results: Results, groups: Mapping[str, Mapping[str, Any]], key: Callable[[Item], str]
) -> dict[str, dict[str, Any]]:
    return {
        name: {
            **figures,
            "interval": interval_of(results.suite, [one for one in results.scored if key(one.item) == name]),
        }
        for name, figures in groups.items()
    }


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _left_out(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is not in the figures. Methods run on the same videos, so it is told once where it is the same."""
    lines: list[str] = []
    for name, one in reports.items():
        for video in one["missing"]:
            lines.append(f"missing, not scored: {video['video']} ({video['num_questions']} questions)")
        for video in one["broken"]:
            lines.append(f"not scored: {video['video']} {video['reason']} ({video['num_questions']} questions)")
        if one["num_unanswered"]:
            lines.append(f"{name} had no answer to {one['num_unanswered']} questions; they count as wrong")
    return list(dict.fromkeys(lines))

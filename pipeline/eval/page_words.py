"""What a suite's figures say, in words: each sentence follows from them, also where Millpond loses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .front import front
from .page_read import OURS, MethodRow, Share, SuiteResult
from .page_text import code, figure, several
from .report import AXES

# What needs no memory to be made for it.
_SIMPLE = re.compile(r"(last|uniform|fifo)-[0-9]+|timer|streaming-llm")
_PEER = re.compile(r"rekv|stc(-cacher|-pruner)?|kvpress-.*")
_BLIND, _DENSE = "blind", "dense"

# A cost in a sentence: what it is, and its unit.
COSTS = {
    "frame_s": ("wall time per frame", "ms"),
    "kv_bytes": ("keys and values kept", "MiB"),
    "ttft_s": ("time to first token", "ms"),
}


def is_simple(name: str) -> bool:
    """Whether a method is one of the simple baselines, which a default has to beat."""
    return _SIMPLE.fullmatch(name) is not None


def difference(one: Share, other: Share) -> tuple[float, float]:
    """95 % interval of how much more often one is right than the other, from their own (Newcombe 1998, method 10).

    It takes them for answers to different questions; to the same ones the truth is narrower, so that what is said to be
    certain is.
    """
    apart = one.accuracy - other.accuracy
    below = ((one.accuracy - one.low) ** 2 + (other.high - other.accuracy) ** 2) ** 0.5
    above = ((one.high - one.accuracy) ** 2 + (other.accuracy - other.low) ** 2) ** 0.5
    return apart - below, apart + above


def findings(result: SuiteResult) -> list[str]:
    """Sentences in markdown, one or more."""
    ours = result.row(OURS)
    if ours is None or ours.share is None:
        return ["Millpond's defaults have no figures in this run."]
    mine = ours.share
    others = [row for row in result.rows if row.share is not None and row.name != OURS]
    simple = [row for row in others if is_simple(row.name)]
    peers = [row for row in others if _PEER.fullmatch(row.name)]
    known = {_BLIND, _DENSE, *(row.name for row in (*simple, *peers))}
    told = [f"Millpond's defaults ({code(OURS)}) are right on {mine} of {mine.num_questions} questions."]
    told += _blind(mine, result.row(_BLIND))
    told += _against(mine, simple, "simple baseline")
    told += _by_category(ours, simple)
    told += _against(mine, peers, "peer")
    told += _dense(mine, result.row(_DENSE))
    told += _changed(mine, [row for row in others if row.name not in known])
    for cost in AXES:
        told += _on_front(result, cost)
    counts = {row.share.num_questions for row in (ours, *others) if row.share is not None}
    if len(counts) > 1:
        told.append(
            f"Not all methods were asked the same number of questions ({min(counts)} to {max(counts)}); take care."
        )
    return told


def _against(mine: Share, rows: Sequence[MethodRow], kind: str) -> list[str]:
    """How the defaults stand beside others of a kind."""
    if not rows:
        return [f"No {kind} was in this run."]
    told = []
    behind, level, ahead = _sorted(mine, rows)
    if ahead:
        told.append(
            f"**Not beaten: the {_plural(kind, ahead)} {_named(ahead)}**, right as often as the defaults or more often."
        )
        certain = [row for row in ahead if difference(mine, _share(row))[1] < 0]
        told.append(
            f"Better than the defaults beyond the 95 % interval: {_named(certain)}."
            if certain
            else "None of these is better beyond the 95 % interval."
        )
    if level:
        told.append(f"Ahead of the {_plural(kind, level)} {_named(level)} by less than the 95 % interval can tell.")
    if behind:
        told.append(f"Better, beyond the 95 % interval, than the {_plural(kind, behind)} {_named(behind)}.")
    return told


def _sorted(mine: Share, rows: Sequence[MethodRow]) -> tuple[list[MethodRow], list[MethodRow], list[MethodRow]]:
    """Those that the defaults beat for certain, perhaps, and not."""
    ahead = [row for row in rows if _share(row).accuracy >= mine.accuracy]
    rest = [row for row in rows if row not in ahead]
    behind = [row for row in rest if difference(mine, _share(row))[0] > 0]
    return behind, [row for row in rest if row not in behind], ahead


def _by_category(ours: MethodRow, simple: Sequence[MethodRow]) -> list[str]:
    """Where a simple baseline is not beaten in one category, though it may be in all."""
    told = []
    for category, mine in ours.by_category.items():
        ahead = [
            f"{code(row.name)} {row.by_category[category]}"
            for row in simple
            if category in row.by_category and row.by_category[category].accuracy >= mine.accuracy
        ]
        if ahead:
            told.append(f"In {category} questions, where the defaults have {mine}, not beaten: {several(ahead)}.")
    return told


def _blind(mine: Share, row: MethodRow | None) -> list[str]:
    if row is None or row.share is None:
        return []
    told = f"Without seeing anything ({code(row.name)}) it is {row.share}: what the words of the questions give away"
    sees = difference(mine, row.share)[0] > 0
    return [f"{told}."] if sees else [f"{told}. **The defaults are not better than that beyond the 95 % interval.**"]


def _dense(mine: Share, row: MethodRow | None) -> list[str]:
    if row is None or row.share is None:
        return []
    low, high = difference(mine, row.share)
    refused = (
        f"; it had no answer to {row.num_unanswered} questions, which count as wrong" if row.num_unanswered else ""
    )
    apart = "the defaults are better" if low > 0 else "the defaults lose to it" if high < 0 else "no certain difference"
    return [f"With everything kept, exact ({code(row.name)}): {row.share}, {apart}{refused}."]


def _changed(mine: Share, rows: Sequence[MethodRow]) -> list[str]:
    """Of Millpond with a part changed, what does better than the defaults."""
    if not rows:
        return []
    better = [row for row in rows if _share(row).accuracy > mine.accuracy]
    if not better:
        return [f"None of {len(rows)} other settings of Millpond is right more often than its defaults."]
    certain = [row for row in better if difference(mine, _share(row))[1] < 0]
    beyond = f"beyond the 95 % interval {_named(certain)}" if certain else "none of them beyond the 95 % interval"
    return [f"**Right more often than the defaults with a part changed: {_named(better)}**; {beyond}."]


def _on_front(result: SuiteResult, cost: str) -> list[str]:
    """Whether the defaults are on the front of one cost, and who beats them there."""
    placed = result.points(cost)
    mine = next((point for point in placed if point.name == OURS), None)
    what, unit = COSTS[cost]
    if mine is None or len(placed) < 2:
        return [f"On {what} nothing can be compared: it was not measured of two methods, the defaults among them."]

    def told(value: float) -> str:
        return f"{figure(value / AXES[cost][1])} {unit}"

    names = several([f"**{code(p.name)}**" if p.name == OURS else code(p.name) for p in front(placed)])
    better = [point for point in placed if point.beats(mine)]
    if not better:
        return [f"On {what} the defaults ({told(mine.cost)}) are on the front: {names}."]
    beaten_by = several([f"{code(p.name)} ({p.accuracy:.3f}, {told(p.cost)})" for p in better])
    verb = "is" if len(better) == 1 else "are"
    return [
        f"**On {what} the defaults ({mine.accuracy:.3f}, {told(mine.cost)}) are not on the front**: {beaten_by} {verb} "
        f"nowhere worse, and better in accuracy or in cost. The front: {names}."
    ]


def _share(row: MethodRow) -> Share:
    if row.share is None:
        raise ValueError(f"only a method that was scored has a share; got {row.name!r}")
    return row.share


def _named(rows: Iterable[MethodRow]) -> str:
    return several([f"{code(row.name)} ({_share(row).accuracy:.3f})" for row in rows])


def _plural(kind: str, rows: Sequence[MethodRow]) -> str:
    return kind if len(rows) == 1 else f"{kind}s"

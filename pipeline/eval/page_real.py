"""Side by side at real shapes, on the page: what `millpond bench real` printed."""

from __future__ import annotations

from collections.abc import Iterator

from .entries import Entry
from .page_read import line, listed, number, one_of, pair
from .page_text import code, figure, plain, several, table

_GIB = 2.0**30
_SIDES = ("dense", "stc", "delta")


def real_section(figures: Entry) -> Iterator[str]:
    """Tables of all models, and what they say in words; ValueError names the figure that is none."""
    rows = listed(figures, "rows")
    if rows:
        yield "Ratios stand with the lowest and the highest of a pass; above 1 they are a gain."
        yield ""
        yield "**Vision tower, time per frame.** Dense; STC-Cacher at the better of its two settings; ours (`delta`)."
        yield ""
        yield from table(
            (
                "model",
                "change in the clip",
                "dense, ms",
                "STC, ms",
                "dense / STC",
                "ours, ms",
                "dense / ours",
                "computed",
            ),
            [_tower(row, clip) for row in rows for clip in listed(row, "clips")],
        )
        yield ""
        yield "**Language model**, beside transformers' own loop on the same weights, and with a quarter of the tokens."
        yield ""
        yield from table(
            ("model", "of", "ours, ms", "transformers, ms", "transformers / ours", "a quarter, ms", "all / a quarter"),
            [cells for row in rows for cells in (_prefill(row), _decode(row))],
        )
        yield ""
        yield "**Streams on one model**, packed in one pass and one at a time."
        yield ""
        yield from table(
            (
                "model",
                "streams",
                "frames/s packed",
                "frames/s single",
                "ratio",
                "answers/s packed",
                "answers/s single",
                "ratio",
            ),
            [_streams(row) for row in rows],
        )
        yield ""
        yield f"**Peak memory**, GiB, {plain(line(figures, 'memory_is'))}, weights included."
        yield ""
        yield from table(
            (
                "model",
                "weights",
                *(f"tower, {_name(side)}" for side in _SIDES),
                "prefill, ours",
                "prefill, transformers",
                "streams",
            ),
            [_memory(row) for row in rows],
        )
        yield ""
        yield from (f"- {told}" for told in _findings(rows))
    for left in listed(figures, "left_out"):
        yield f"- {code(line(left, 'name'))} was not measured: {plain(line(left, 'reason'))}."


def _findings(rows: list[Entry]) -> Iterator[str]:
    """Where ours wins and where it loses, beyond what passes differ by."""
    for key, other in (("speedup_delta", "the dense tower"), ("speedup_over_stc", "STC-Cacher")):
        won, lost, level = [], [], []
        for row in rows:
            for clip in listed(row, "clips"):
                name = f"{code(line(row, 'name'))} with {plain(line(clip, 'change'))} change"
                ratio = _over_stc(clip) if key == "speedup_over_stc" else number(clip, key)
                low, high = (ratio, ratio) if key == "speedup_over_stc" else pair(clip, f"{key}_range")
                (won if low > 1 else lost if high < 1 else level).append(f"{name} ({figure(ratio)})")
        if won:
            yield f"Ours is faster than {other}: {several(won)}."
        if lost:
            yield f"**Ours is slower than {other}**: {several(lost)}."
        if level:
            yield f"Passes disagree on whether ours is faster than {other}: {several(level)}."
    for part, words in (("prefill", "reads"), ("decode", "decodes")):
        slower = [
            f"{code(line(row, 'name'))} ({figure(number(one_of(row, part), 'speedup_over_transformers'))})"
            for row in rows
            if pair(one_of(row, part), "speedup_over_transformers_range")[1] < 1
        ]
        if slower:
            yield f"**Ours {words} more slowly than transformers' own loop**: {several(slower)}."
    packed = [row for row in rows if pair(one_of(row, "streams"), "speedup_range")[0] <= 1]
    if packed:
        yield f"Packing streams is no gain beyond doubt for {several([code(line(row, 'name')) for row in packed])}."


def _over_stc(clip: Entry) -> float:
    delta_s = number(clip, "delta_s")
    if not delta_s:
        clip.refuse("delta_s", "more than 0")
    return number(clip, "stc_s") / delta_s


def _tower(row: Entry, clip: Entry) -> list[str]:
    change = f"{plain(line(clip, 'change'))} ({number(clip, 'changed_share'):.1%})"
    return [
        code(line(row, "name")),
        change,
        _ms(clip, "dense_s"),
        _ms(clip, "stc_s"),
        _ratio(clip, "speedup_stc"),
        _ms(clip, "delta_s"),
        _ratio(clip, "speedup_delta"),
        f"{number(clip, 'recomputed_share'):.1%}",
    ]


def _prefill(row: Entry) -> list[str]:
    read = one_of(row, "prefill")
    what = f"prefill, {number(read, 'num_frames'):.0f} frames, {number(read, 'num_tokens'):.0f} tokens"
    return [code(line(row, "name")), what, *_language(read, "s")]


def _decode(row: Entry) -> list[str]:
    return [code(line(row, "name")), "decoding, a token", *_language(one_of(row, "decode"), "token_s")]


def _language(part: Entry, unit: str) -> list[str]:
    return [
        _ms(part, f"dense_{unit}"),
        _ms(part, f"transformers_{unit}"),
        _ratio(part, "speedup_over_transformers"),
        _ms(part, f"quarter_{unit}"),
        _ratio(part, "speedup_quarter"),
    ]


def _streams(row: Entry) -> list[str]:
    part = one_of(row, "streams")
    return [
        code(line(row, "name")),
        f"{number(part, 'num_streams'):.0f}",
        figure(number(part, "packed_fps")),
        figure(number(part, "single_fps")),
        _ratio(part, "speedup"),
        figure(number(part, "packed_answers_per_s")),
        figure(number(part, "single_answers_per_s")),
        _ratio(part, "answers_speedup"),
    ]


def _memory(row: Entry) -> list[str]:
    part = one_of(row, "peak_memory")
    tower, prefill = one_of(part, "tower"), one_of(part, "prefill")
    return [
        code(line(row, "name")),
        _gib(part, "weights"),
        *(_gib(tower, side) for side in _SIDES),
        _gib(prefill, "dense"),
        _gib(prefill, "transformers"),
        _gib(part, "streams"),
    ]


def _name(side: str) -> str:
    return {"stc": "STC", "delta": "ours"}.get(side, side)


def _ms(entry: Entry, name: str) -> str:
    return figure(number(entry, name) * 1000)


def _ratio(entry: Entry, name: str) -> str:
    low, high = pair(entry, f"{name}_range")
    return f"{figure(number(entry, name))} ({figure(low)} to {figure(high)})"


def _gib(entry: Entry, name: str) -> str:
    return figure(number(entry, name) / _GIB) if name in entry else "-"

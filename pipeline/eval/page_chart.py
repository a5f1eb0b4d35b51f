"""The figure of a suite: accuracy against each cost, as SVG that is the same for the same figures, anywhere.

Not matplotlib, whose files change with its version and its fonts: a page that is checked against its JSON must not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .front import Point, front
from .page_read import OURS, MethodRow, SuiteResult
from .page_text import figure, tag_text
from .report import AXES

# All in pixels.
_PANEL, _HEIGHT = 400.0, 380.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 34.0, 66.0
_LETTER, _LINE = 5.6, 11.0
_ZERO = 34.0  # the place of "costs nothing", left of a logarithmic scale
_MAX_NAME = 28
_OURS, _BEST, _REST = "#c22", "#26c", "#888"


def chart(result: SuiteResult, title: str) -> str:
    """One panel for each cost: every method with its 95 % interval, the front as steps, the defaults as a star."""
    width = _PANEL * len(AXES)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {_HEIGHT:.0f}" width="{width:.0f}" '
        f'height="{_HEIGHT:.0f}" font-family="sans-serif" font-size="10">',
        f"<title>{tag_text(title)}</title>",
        f'<rect width="{width:.0f}" height="{_HEIGHT:.0f}" fill="#fff"/>',
        f'<text x="10" y="18" font-size="13">{tag_text(title)}</text>',
    ]
    rows = {row.name: row for row in result.rows}
    for number, (cost, (label, unit)) in enumerate(AXES.items()):
        placed = [Point(point.name, point.cost / unit, point.accuracy) for point in result.points(cost)]
        lines.append(f'<g transform="translate({number * _PANEL:.0f} 0)">')
        lines += _panel(placed, rows, label)
        lines.append("</g>")
    lines += [
        f'<text x="10" y="{_HEIGHT - 8:.0f}" fill="#444">Star: Millpond\'s defaults. Filled: on the front, which no '
        "other method beats in both. Bars: 95 % intervals. Line: the front.</text>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Scale:
    """From a cost to pixels: logarithmic, and on its left a place for costs of nothing."""

    low: float
    high: float
    has_zero: bool

    @classmethod
    def of(cls, costs: Sequence[float]) -> _Scale:
        above = [cost for cost in costs if cost > 0] or [1.0]
        return cls(min(above) / 1.3, max(above) * 1.9, any(cost <= 0 for cost in costs))

    def x(self, cost: float) -> float:
        first = _LEFT + (_ZERO if self.has_zero else 0)
        if cost <= 0:
            return _LEFT + _ZERO / 2
        along = math.log10(cost / self.low) / math.log10(self.high / self.low)
        return first + along * (_PANEL - _RIGHT - first)

    def ticks(self) -> Iterator[float]:
        steps = (1, 2, 5) if self.high / self.low < 1000 else (1,)
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            for step in steps:
                if self.low <= step * 10.0**power <= self.high:
                    yield step * 10.0**power


def _y(accuracy: float) -> float:
    return _TOP + (1 - accuracy) * (_HEIGHT - _TOP - _BOTTOM)


def _panel(placed: list[Point], rows: dict[str, MethodRow], label: str) -> Iterator[str]:
    scale = _Scale.of([point.cost for point in placed])
    right, floor = _PANEL - _RIGHT, _y(0)
    for tenth in range(0, 11, 2):
        y = _y(tenth / 10)
        yield f'<path d="M{_LEFT:.1f} {y:.1f}H{right:.1f}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 5:.1f}" y="{y + 3:.1f}" text-anchor="end">{tenth / 10:.1f}</text>'
    ticks = [(scale.x(cost), f"{cost:g}") for cost in scale.ticks()] if placed else []
    if scale.has_zero:
        ticks.insert(0, (scale.x(0), "0"))
    for x, words in ticks:
        yield f'<path d="M{x:.1f} {_TOP:.1f}V{floor:.1f}" stroke="#eee"/>'
        yield f'<text x="{x:.1f}" y="{floor + 14:.1f}" text-anchor="middle">{words}</text>'
    yield f'<path d="M{_LEFT:.1f} {_TOP:.1f}V{floor:.1f}H{right:.1f}" fill="none" stroke="#444"/>'
    yield f'<text x="{(_LEFT + right) / 2:.1f}" y="{floor + 31:.1f}" text-anchor="middle">{tag_text(label)}</text>'
    yield (
        f'<text x="14" y="{(_TOP + floor) / 2:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(_TOP + floor) / 2:.1f})">accuracy</text>'
    )
    best = front(placed)
    if best:
        steps = "".join(f"H{scale.x(point.cost):.1f}V{_y(point.accuracy):.1f}" for point in best[1:])
        start = f"M{scale.x(best[0].cost):.1f} {_y(best[0].accuracy):.1f}"
        yield f'<path d="{start}{steps}H{right:.1f}" fill="none" stroke="#bbb" stroke-width="1.5"/>'
    names = {point.name for point in best}
    for point in placed:
        yield from _mark(point, scale, rows[point.name], is_best=point.name in names)
    for box in _labels(placed, scale):
        if box.is_far:
            yield f'<path d="M{box.from_x:.1f} {box.from_y:.1f}L{box.x:.1f} {box.y:.1f}" stroke="#bbb"/>'
        weight = ' font-weight="bold"' if box.name == OURS else ""
        yield (
            f'<text x="{box.x:.1f}" y="{box.y + 3.5:.1f}" text-anchor="{box.anchor}"{weight}>'
            f"{tag_text(_short(box.name))}</text>"
        )


def _mark(point: Point, scale: _Scale, row: MethodRow, *, is_best: bool) -> Iterator[str]:
    x, y = scale.x(point.cost), _y(point.accuracy)
    color = _OURS if point.name == OURS else _BEST if is_best else _REST
    fill = color if is_best else "#fff"
    told = f"{point.name}: {row.share}, {figure(point.cost)}"
    yield f"<g><title>{tag_text(told)}</title>"
    if row.share is not None:
        low, high = _y(row.share.low), _y(row.share.high)
        yield f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{color}" stroke-width="0.8"/>'
    if point.name == OURS:
        corners = (
            (x + radius * math.sin(math.pi * at / 5), y - radius * math.cos(math.pi * at / 5))
            for at, radius in enumerate((8.0, 3.4) * 5)
        )
        path = "L".join(f"{corner_x:.1f} {corner_y:.1f}" for corner_x, corner_y in corners)
        yield f'<path d="M{path}Z" fill="{fill}" stroke="{color}" stroke-width="1.3"/></g>'
    else:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{fill}" stroke="{color}" stroke-width="1.3"/></g>'


class _Label(NamedTuple):
    name: str
    x: float
    y: float
    anchor: str
    from_x: float
    from_y: float
    is_far: bool


def _labels(placed: Sequence[Point], scale: _Scale) -> list[_Label]:
    """Each name beside its point, as near as nothing else is in the way."""
    marks = [(scale.x(point.cost), _y(point.accuracy)) for point in placed]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in marks]
    found = []
    in_turn = sorted(zip(placed, marks, strict=True), key=lambda one: (one[0].name != OURS, one[1][1], one[0].name))
    for point, (x, y) in in_turn:
        length = _LETTER * len(_short(point.name))
        places = [(side, step * sign) for step in range(24) for sign in (1, -1) for side in (1, -1)]
        box, place = None, (1, 0)
        for side, step in places:
            left, middle = x + 9 * side - (length if side < 0 else 0), y + step * _LINE
            one = (left, middle - _LINE / 2, left + length, middle + _LINE / 2)
            is_inside = one[0] >= _LEFT and one[2] <= _PANEL and one[1] >= _TOP - _LINE / 2 and one[3] <= _y(0)
            if is_inside and not any(_overlap(one, other) for other in taken):
                box, place = one, (side, step)
                break
        side, step = place
        if box is not None:
            taken.append(box)
        anchor = "start" if side > 0 else "end"
        found.append(_Label(point.name, x + 9 * side, y + step * _LINE, anchor, x, y, abs(step) > 1))
    return found


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"

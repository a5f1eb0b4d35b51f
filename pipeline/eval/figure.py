"""The figure: accuracy against each cost, every method a point, the front marked. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .front import Point, front
from .report import AXES, points

SUFFIXES = (".png", ".svg", ".pdf")
_OURS = "millpond"
_LABELLED_PX = 4


def check_figure(path: Path) -> None:
    """Raises ValueError where no figure could be drawn there: better before the work than after it."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a figure is a file of {', '.join(SUFFIXES)}; got {str(path)!r}")
    if find_spec("matplotlib") is None:
        raise ValueError(f"a figure needs matplotlib, for {str(path)!r}; pip install 'millpond[plot]'")


def draw(reports: Mapping[str, Mapping[str, Any]], path: Path, *, title: str = "") -> None:
    """Draws the reports, by their methods' names, with their 95 % intervals; ValueError as `check_figure`."""
    check_figure(path)
    # Not pyplot: no window, and nothing of the caller's own figures is touched.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * len(AXES), 4.6), layout="constrained")
    for panel, (cost, (label, unit)) in zip(figure.subplots(1, len(AXES), sharey=True), AXES.items(), strict=True):
        placed = [Point(point.name, point.cost / unit, point.accuracy) for point in points(reports, cost)]
        _draw_panel(panel, placed, reports, label)
    figure.axes[0].set_ylabel("accuracy")
    if title:
        figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _draw_panel(panel: Any, placed: list[Point], reports: Mapping[str, Mapping[str, Any]], label: str) -> None:
    on_front = front(placed)
    best = {point.name for point in on_front}
    panel.plot(
        [point.cost for point in on_front],
        [point.accuracy for point in on_front],
        drawstyle="steps-post",
        color="0.7",
        zorder=1,
    )
    for point in placed:
        low, high = reports[point.name]["interval"]
        color = "tab:red" if point.name == _OURS else "tab:blue" if point.name in best else "0.5"
        panel.errorbar(
            point.cost,
            point.accuracy,
            yerr=[[max(0.0, point.accuracy - low)], [max(0.0, high - point.accuracy)]],
            fmt="*" if point.name == _OURS else "o",
            markersize=11 if point.name == _OURS else 6,
            markerfacecolor=color if point.name in best else "white",
            color=color,
            elinewidth=0.8,
        )
        panel.annotate(
            point.name,
            (point.cost, point.accuracy),
            xytext=(_LABELLED_PX, _LABELLED_PX),
            textcoords="offset points",
            fontsize=8,
        )
    # Costs lie orders of magnitude apart, and doing nothing costs nothing.
    above = [point.cost for point in placed if point.cost > 0]
    if above:
        panel.set_xscale("symlog", linthresh=min(above))
        panel.set_xlim(left=0)
    panel.set_xlabel(label)
    panel.grid(alpha=0.3)

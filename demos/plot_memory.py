"""Draws what `millpond bench memory --json` printed: bytes of every tier over a day, and right answers against bytes.

millpond bench memory --json > memory.json
python demos/plot_memory.py memory.json demos/memory.png

Needs matplotlib: pip install 'millpond[test]'.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import typer

matplotlib.use("agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

_MIB = 2**20
_LABELS = {
    "T0": "T0 recent, exact",
    "T1": "T1 keys and values",
    "T2": "T2 keyframes",
    "T3": "T3 text",
}
_COLORS = {"codec": "tab:blue", "pruner": "tab:green", "both": "tab:red"}
_NAME_HEIGHT, _LETTER_WIDTH = 12.0, 6.0  # pixels


def main(
    measured: Annotated[Path, typer.Argument(help="JSON object of the benchmark")],
    figure: Annotated[Path, typer.Argument(help="where to draw, .png or .svg")] = Path("demos/memory.png"),
) -> None:
    result = json.loads(measured.read_text(encoding="utf-8"))
    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    draw_day(left, result["day"])
    draw_answers(right, result)
    fig.savefig(figure, dpi=110, metadata={"Software": None} if figure.suffix == ".png" else None)


def draw_day(axes: Axes, day: dict[str, Any]) -> None:
    """Bytes of every tier, and of the process, on a logarithmic scale."""
    hours = [sample["hours"] for sample in day["samples"]]
    for tier, label in _LABELS.items():
        axes.plot(hours, [max(1, sample["bytes"][tier]) / _MIB for sample in day["samples"]], label=label)
        if tier in day["caps_bytes"]:
            axes.axhline(day["caps_bytes"][tier] / _MIB, color=axes.lines[-1].get_color(), lw=0.7, ls=":")
    if day["samples"][0]["rss_bytes"] is not None:
        resident = [sample["rss_bytes"] / _MIB for sample in day["samples"]]
        axes.plot(hours, resident, color="gray", label="process, resident")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.01)
    axes.set_xlabel("hours of stream at 1 frame a second")
    axes.set_ylabel("MiB (dotted: cap)")
    axes.set_title(f"{hours[-1]:.1f} hours, built-in model", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)


def draw_answers(axes: Axes, result: dict[str, Any]) -> None:
    """Right answers of every codec, pruner and pair of both, everything recalled."""
    rows = [row for row in result["methods"] if row["num_frames"] == 16 and row["about"] in _COLORS]
    rows = [row for row in rows if row["kv_bytes_per_block"]]
    nothing = next(row for row in result["methods"] if row["num_frames"] == 16 and row["name"] == "no recall")
    for row in rows:
        axes.plot(
            row["kv_bytes_per_block"] / 1024, 100 * row["accuracy"], "o", color=_COLORS[row["about"]], markersize=4
        )
    axes.axhline(100 * nothing["accuracy"], color="gray", lw=0.8, ls="--", label="newest 4 frames alone")
    full = next(row for row in rows if row["name"] == "full")
    axes.axhline(99 * full["accuracy"], color="black", lw=0.8, ls=":", label="99 % of the full cache")
    for about, color in _COLORS.items():
        axes.plot([], [], "o", color=color, label={"both": "pruner and codec"}.get(about, about))
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("KiB a frame of keys and values, older than the recent window")
    axes.set_ylabel("right answers, %")
    axes.set_title(f"Built-in model, {full['num_questions']} questions, 4 of 16 frames exact", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)
    name_points(axes, [(row["kv_bytes_per_block"] / 1024, 100 * row["accuracy"], _short(row["name"])) for row in rows])


def name_points(axes: Axes, points: list[tuple[float, float, str]]) -> None:
    """Each name beside its point, as near as no other name is in the way."""
    to_screen = axes.transData.transform
    taken: list[tuple[float, ...]] = []
    for x, y, name in sorted(points, key=lambda point: -point[1]):
        column, row = to_screen((x, y))
        width = _LETTER_WIDTH * len(name)
        places = [(side * 6, step * _NAME_HEIGHT * sign) for step in range(20) for sign in (1, -1) for side in (1, -1)]
        for right, up in places:
            left = column + right - (width if right < 0 else 0)
            box = (left, row + up - _NAME_HEIGHT / 2, left + width, row + up + _NAME_HEIGHT / 2)
            if not any(_overlap(box, other) for other in taken):
                break
        taken.append(box)
        axes.annotate(
            name, (x, y), xytext=(right * 72 / axes.figure.dpi, up * 72 / axes.figure.dpi), textcoords="offset points",
            ha="left" if right > 0 else "right", va="center", fontsize=7,
            arrowprops={"arrowstyle": "-", "lw": 0.3, "color": "gray"} if up else None,
        )  # fmt: skip


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _short(name: str) -> str:
    return name.removeprefix("codec ").removeprefix("pruner ")


if __name__ == "__main__":
    typer.run(main)

"""Draws what `millpond bench compress --json` (or `bench encode --json`) printed: right answers against tokens.

millpond bench compress --json > compress.json
python demos/plot_compressors.py compress.json compressors.svg

Needs matplotlib: pip install 'millpond[test]'.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import matplotlib
import typer

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "millpond"  # the same numbers give the same file

import matplotlib.pyplot as plt  # noqa: E402  (after the choice of backend)

_NAME_HEIGHT = 0.7  # per cent


def main(
    measured: Annotated[Path, typer.Argument(help="JSON object of the benchmark")],
    figure: Annotated[Path, typer.Argument(help="where to draw, .svg or .png")],
) -> None:
    rows = json.loads(measured.read_text(encoding="utf-8"))["compressors"]
    rows.sort(key=lambda row: -row["accuracy"])
    fig, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    lowest = {1: 101.0, -1: 101.0}  # of the names so far, right and left of their points
    for number, row in enumerate(rows):
        low, high = row["interval"]
        tokens, right = row["tokens_per_frame"], 100 * row["accuracy"]
        axes.errorbar(
            tokens, right, yerr=[[right - 100 * low], [100 * high - right]],
            fmt="o", color="tab:blue", ecolor="lightsteelblue", elinewidth=1, markersize=4,
        )  # fmt: skip
        # Many stand at one count: their names go beside them in turn, none over another.
        side = 1 if number % 2 else -1
        lowest[side] = min(right, lowest[side] - _NAME_HEIGHT)
        axes.annotate(
            row["name"], (tokens, right), xytext=(tokens + 0.5 * side, lowest[side]),
            ha="left" if side > 0 else "right", va="center", fontsize=7,
        )  # fmt: skip
    axes.set_xlabel("tokens of a compressed frame that the language model reads")
    axes.set_ylabel("right answers, % (bars: 95 % interval)")
    axes.set_title(f"Built-in model, {rows[0]['num_questions']} questions, 12 of 16 frames compressed", fontsize=10)
    axes.grid(alpha=0.3)
    fig.savefig(figure, metadata={"Date": None} if figure.suffix == ".svg" else None)


if __name__ == "__main__":
    typer.run(main)

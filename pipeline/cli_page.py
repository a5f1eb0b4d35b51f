"""`millpond page`: the results page and its figures, from the JSON that benchmarks printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .output import StreamPrinter


def page(
    folder: Annotated[Path, typer.Option("--from", help="folder of JSON files")] = Path("docs/results"),
    to: Annotated[Path, typer.Option(help="the page; its figures go into the folder of its name without .md")] = Path(
        "docs/results.md"
    ),
) -> None:
    """Makes the results page anew: tables, figures, and what they say in words."""
    from .eval.page import write_page

    made = write_page(folder, to)
    figures = ", ".join(f"{name}.svg" for name in made.figures)
    StreamPrinter(as_json=False).result({}, f"{to}" + (f", {to.with_suffix('')}/: {figures}" if figures else ""))

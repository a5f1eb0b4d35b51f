"""`millpond eval`: questions with known answers, asked while videos play, of one method or of several."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Config, Device, Dtype, Fps, Model, settings_of
from .output import StreamPrinter, complain

REPORT = "report.json"


def evaluate(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="shapes, jsonl, streamingbench or ovo")],
    questions: Annotated[Path | None, typer.Option(help="the suite's annotation file")] = None,
    videos: Annotated[Path | None, typer.Option(help="folder below which the videos are")] = None,
    methods: Annotated[str, typer.Option(help="names with commas between them, main, or all")] = "millpond",
    setting: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="a setting of the suite; may be given again")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="ask only so many questions, spread over the suite")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for answers and report; an interrupted run goes on there")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="draw accuracy against cost: .png, .svg or .pdf")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="throw away what these methods answered in --out")] = False,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    fps: Fps = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object, for programs")] = False,
) -> None:
    """Asks SUITE's questions, each at its moment with nothing later seen, and tells accuracy and cost."""
    from transformers.utils import logging as transformers_logging

    from .batch.files import write_json
    from .eval.figure import check_figure, draw
    from .eval.methods import choose
    from .eval.origin import asked, origin
    from .eval.progress import Bars
    from .eval.report import report, table
    from .eval.run import compare, spread_over
    from .eval.suites import SUITES

    if figure is not None:
        check_figure(figure)
    chosen = choose(methods)
    settings = settings_of(config, model=model, device=device, dtype=dtype, fps=fps)
    asking, given = SUITES[suite](), dict(read_setting(one) for one in setting or [])
    items = asking.items(questions, videos, **given)
    about = {
        **origin(sys.argv, settings.device),
        "suite": suite,
        "asked": asked(suite, given, questions=questions and questions.name, limit=limit),
    }
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    reports: dict[str, dict[str, Any]] = {}
    with Bars() as bars:
        for results in compare(
            asking,
            items if limit is None else spread_over(items, limit),
            chosen,
            config=settings,
            all_items=items,
            videos=videos,
            out=out,
            anew=anew,
            on_event=bars.show,
        ):
            reports[results.method.name] = report(results)
            if out is not None:
                write_json(out / REPORT, {**about, "methods": reports})
    if figure is not None:
        draw(reports, figure, title=suite)
    record = next(iter(reports.values())) if len(reports) == 1 else {"methods": reports}
    StreamPrinter(as_json=as_json).result(record, table(reports))
    if not any(one["num_questions"] for one in reports.values()):
        complain(f"none of {len(items)} questions could be scored")
        raise typer.Exit(2)


def read_setting(given: str) -> tuple[str, Any]:
    """NAME=VALUE, where the value is JSON or else a word."""
    name, sign, value = given.partition("=")
    if not sign or not name.strip():
        raise ValueError(f"--setting takes NAME=VALUE; got {given!r}")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value

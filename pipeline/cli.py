"""The command line: `millpond COMMAND ...`. Settings that are no option of a command go into a file, `--config`."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from ..memory.depots import DepotError
from ..stream import SOURCES, SourceLost
from ..stream.require import MissingExtra
from .answer import Answer, Narration
from .bench import BENCHES
from .cli_batch import batch
from .cli_doctor import doctor
from .cli_eval import evaluate
from .cli_page import page
from .cli_robot import export
from .cli_serve import serve
from .config import EngineConfig
from .opening import opened, reopened, up_to
from .options import (
    Compress,
    Config,
    Device,
    Dtype,
    For,
    Fps,
    Frames,
    Gate,
    Json,
    Keep,
    Memory,
    Model,
    Reuse,
    Select,
    Similarity,
    SourceArgument,
    settings_of,
)
from .output import Printer, answer_record, complain, narration_record
from .question import Question
from .watch import Progress, Unanswered, read_questions, watch

app = typer.Typer(
    help="Watches video streams, narrates them and answers questions about them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Runs the command line. Exit status: 0 done, 2 bad input, 1 our fault (with a traceback)."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    # The hub's client prints its warnings itself; passed on as well, each would stand there twice.
    logging.getLogger("huggingface_hub").propagate = False
    try:
        app(prog_name="millpond")
    except (ValueError, SourceLost, DepotError, MissingExtra) as error:
        complain(error)
        sys.exit(2)
    except SystemExit as end:
        # Whoever read our output has seen enough: typer ends with 1 for it, and it is no fault.
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(0)
        raise


@app.command()
def narrate(
    source: SourceArgument,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    fps: Fps = None,
    gate: Gate = None,
    reuse: Reuse = None,
    compress: Compress = None,
    keep: Keep = None,
    memory: Memory = None,
    config: Config = None,
    as_json: Json = False,
    for_s: For = None,
) -> None:
    """Tells what happens in SOURCE, as it happens."""
    settings = settings_of(
        config, model=model, device=device, dtype=dtype, fps=fps, gate=gate, reuse=reuse, compressor=compress, keep=keep
    )
    with opened(source, settings, as_json, for_s, "narrating", memory=memory, follows=True) as (
        session,
        frames,
        printer,
    ):
        for event in watch(session, frames, narrate=True):
            _show(printer, event)


@app.command()
def ask(
    source: SourceArgument,
    question: Annotated[list[str] | None, typer.Argument(metavar="QUESTION...", help="one or more")] = None,
    at: Annotated[float | None, typer.Option(help="ask after so many seconds of it  [default: at the end]")] = None,
    since: Annotated[float | None, typer.Option(help="ask about what was shown from this second on")] = None,
    until: Annotated[float | None, typer.Option(help="ask about what was shown up to this second")] = None,
    questions: Annotated[Path | None, typer.Option(help="JSON lines: question, at_s, since_s, until_s")] = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    fps: Fps = None,
    gate: Gate = None,
    reuse: Reuse = None,
    compress: Compress = None,
    keep: Keep = None,
    select: Select = None,
    frames: Frames = None,
    similarity: Similarity = None,
    memory: Memory = None,
    config: Config = None,
    as_json: Json = False,
    for_s: For = None,
) -> None:
    """Answers questions about SOURCE, all of them in one pass over it."""
    asked = [Question(text, at_s=at, since_s=since, until_s=until) for text in question or []]
    if questions is not None:
        asked += read_questions(questions)
    if not asked:
        raise ValueError("there is no question; give one in quotes after the source, or --questions FILE")
    settings = settings_of(
        config,
        model=model,
        device=device,
        dtype=dtype,
        fps=fps,
        gate=gate,
        reuse=reuse,
        compressor=compress,
        keep=keep,
        selector=select,
        select_frames=frames,
        similarity=similarity,
    )
    sought = " ".join(q.text for q in asked)
    with opened(source, settings, as_json, for_s, "watching", sought, memory) as (session, due, printer):
        last_s = max((q.at_s for q in asked if q.at_s is not None), default=0.0)
        if all(q.at_s is not None for q in asked):
            due = up_to(due, last_s)
        num_unanswered = 0
        for event in watch(session, due, questions=asked):
            _show(printer, event)
            num_unanswered += isinstance(event, Unanswered)
    if num_unanswered:
        raise typer.Exit(2)


@app.command()
def summarize(
    source: Annotated[str, typer.Argument(metavar="FILE", help="a recording, or any other source that ends")],
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    fps: Fps = None,
    gate: Gate = None,
    reuse: Reuse = None,
    compress: Compress = None,
    keep: Keep = None,
    select: Select = None,
    frames: Frames = None,
    memory: Memory = None,
    config: Config = None,
    as_json: Json = False,
    for_s: For = None,
) -> None:
    """Watches FILE to its end and tells it as a whole, with the narrations that this rests on."""
    from .summary import summarize as run

    settings = settings_of(
        config,
        model=model,
        device=device,
        dtype=dtype,
        fps=fps,
        gate=gate,
        reuse=reuse,
        compressor=compress,
        keep=keep,
        selector=select,
        select_frames=frames,
    )
    with opened(source, settings, as_json, for_s, "summarizing", memory=memory) as (session, due, printer):
        summary = run(session, due, on_progress=printer.progress)
        if not as_json:
            for narration in summary.narrations:
                printer.narration(narration)
        record = {
            "start_s": summary.span.start_s,
            "end_s": summary.span.end_s,
            **answer_record(summary.answer),
            "narrations": [narration_record(n) for n in summary.narrations],
        }
        printer.result(record, f"Summary: {summary.text}")


@app.command()
def recall(
    memory: Annotated[str, typer.Argument(metavar="MEMORY", help="what was given as --memory")],
    question: Annotated[
        list[str] | None, typer.Argument(metavar="QUESTION...", help="none: tells what is kept")
    ] = None,
    since: Annotated[float | None, typer.Option(help="ask about what was shown from this second on")] = None,
    until: Annotated[float | None, typer.Option(help="ask about what was shown up to this second")] = None,
    search: Annotated[str | None, typer.Option(help="prints what was narrated with these words")] = None,
    stream: Annotated[str, typer.Option(help="which stream, where a Redis server keeps several")] = "stream",
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Answers from what an earlier run kept in MEMORY, or a run that still goes on; without a question, tells what."""
    settings = settings_of(config, model=model, device=device, dtype=dtype)
    asked = [Question(text, since_s=since, until_s=until) for text in question or []]
    printer = Printer(as_json=as_json, duration_s=None, label="")
    with reopened(memory, stream, settings) as session:
        if search is not None:
            for line in session.history.log.search(search, 20):
                printer.line(line)
        elif not asked:
            printer.kept(session.history.kept)
        for one in asked:
            printer.answer(session.ask_question(one))


@app.command(name="watch")
def watch_many(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="one or more; NAME=SOURCE names a stream")],
    narrated: Annotated[bool, typer.Option("--narrate/--quiet", help="tell what happens, or only answer")] = True,
    questions: Annotated[
        Path | None,
        typer.Option(help="JSON lines or words, asked at the end; - reads them from standard input, as asked"),
    ] = None,
    as_live: Annotated[bool, typer.Option("--as-live", help="play recordings as cameras would: by the clock")] = False,
    ray: Annotated[str | None, typer.Option(help="run on Ray: local, or the address of a cluster")] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes with a model each, on --ray")] = 1,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    fps: Fps = None,
    gate: Gate = None,
    reuse: Reuse = None,
    compress: Compress = None,
    keep: Keep = None,
    memory: Memory = None,
    config: Config = None,
    as_json: Json = False,
    for_s: Annotated[float | None, typer.Option("--for", help="stop after so many seconds")] = None,
) -> None:
    """Watches many SOURCEs at once with one model, and answers questions about them while they run."""
    from .watch_streams import specs_of, watch_streams

    settings = settings_of(
        config, model=model, device=device, dtype=dtype, fps=fps, gate=gate, reuse=reuse, compressor=compress, keep=keep
    )
    specs = specs_of(sources, narrate=narrated, memory=memory, as_live=as_live)
    watch_streams(specs, settings, as_json=as_json, for_s=for_s, questions=questions, ray=ray, num_workers=workers)


app.command()(batch)
app.command("eval")(evaluate)
app.command()(page)
app.command()(serve)
app.command()(doctor)
app.add_typer(export, name="export")


@app.command()
def demo(as_json: Json = False) -> None:
    """Plays a short clip that ships with Millpond: narrates it, then answers three questions about it."""
    clip = Path(__file__).parent / "demo.mp4"
    if not as_json:
        print("A clip of coloured shapes, narrated by the built-in model as it plays:", flush=True)
    asked = [Question(q) for q in ("What appeared first?", "How many objects have appeared?", "What appeared last?")]
    settings = EngineConfig()
    with opened(str(clip), settings, as_json, None, "playing") as (session, frames, printer):
        for event in watch(session, frames, narrate=True, questions=asked):
            _show(printer, event)


@app.command()
def models(as_json: Json = False) -> None:
    """Lists the built-in model and the architectures that --model can load."""
    from ..encoders.load import BUILT_IN, FAMILIES

    printer = Printer(as_json=as_json, duration_s=None, label="")
    for name in BUILT_IN:
        printer.result({"name": name, "kind": "built-in"}, f"{name:24} built in; knows coloured shapes, nothing else")
    for name in sorted(FAMILIES):
        about = _first_sentence(FAMILIES[name])
        printer.result({"name": name, "kind": "architecture", "about": about}, f"{name:24} {about}")


@app.command()
def sources(as_json: Json = False) -> None:
    """Lists what SOURCE can be."""
    printer = Printer(as_json=as_json, duration_s=None, label="")
    for name in SOURCES:
        about = _first_sentence(SOURCES[name])
        printer.result({"name": name, "about": about}, f"{name:12} {about}")


@app.command(name="list")
def list_methods(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="only this kind")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="as tables, for a README")] = False,
    as_json: Json = False,
) -> None:
    """Lists what can be chosen by name: gates, reusers, compressors, selectors, and what holds the memory."""
    from .methods import as_markdown, as_text, list_of

    methods = list_of(kind)
    if as_json:
        for method in methods:
            print(json.dumps(asdict(method)))
    else:
        print(as_markdown(methods) if markdown else as_text(methods))


@app.command(help="Measures. " + " ".join(BENCHES[name].about for name in BENCHES))
def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help=", ".join(BENCHES))],
    model: Annotated[str, typer.Option(help="what to measure with")] = "default",
    repeats: Annotated[int, typer.Option(min=1, help="runs of each side; the median counts")] = 5,
    clips: Annotated[Path | None, typer.Option(help="folder of recordings to measure on  [default: synthetic]")] = None,
    as_json: Json = False,
) -> None:
    measured = BENCHES[name]()
    result = measured.run(model=model, repeats=repeats, clips=clips)
    print(json.dumps(result) if as_json else measured.table(result))


@app.callback(invoke_without_command=True)
def _root(
    show_version: Annotated[bool, typer.Option("--version", help="print the version and leave", is_eager=True)] = False,
) -> None:
    if show_version:
        print(version("millpond"))
        raise typer.Exit


def _first_sentence(thing: type) -> str:
    return " ".join((thing.__doc__ or "").split("\n\n")[0].split())


def _show(printer: Printer, event: Progress | Narration | Answer | Unanswered) -> None:
    if isinstance(event, Progress):
        printer.progress(event.pts_s)
    elif isinstance(event, Narration):
        printer.narration(event)
    elif isinstance(event, Answer):
        printer.answer(event)
    else:
        complain(f"{event.question.text!r} is not answered: {event.reason}")

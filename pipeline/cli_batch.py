"""`millpond batch`: folders of recordings become chapters, summaries, logs and captions."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import typer

from .options import Compress, Config, Device, Dtype, Fps, Frames, Gate, Json, Keep, Model, Reuse, Select, settings_of
from .output import StreamPrinter, clock, complain

_LOCAL = "local"


def batch(
    given: Annotated[
        list[str], typer.Argument(metavar="FILES...", help="files, folders, patterns, and lists of these in .txt files")
    ],
    out: Annotated[Path, typer.Option(help="folder for the results; an interrupted run goes on there")],
    ray: Annotated[str | None, typer.Option(help="address of a Ray cluster  [default: this machine]")] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes with a model each")] = 1,
    chunk: Annotated[int | None, typer.Option(help="seconds of video that are done as one  [default: 120]")] = None,
    question: Annotated[str | None, typer.Option(help="what the videos are watched for")] = None,
    anew: Annotated[bool, typer.Option("--anew", help="throw away what other settings made there")] = False,
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
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Summarises many recordings: for each chapters, a summary, the log, and captions; and a manifest of all."""
    from .batch import BatchSettings, run_batch
    from .batch.progress import Bars, Ended, Event

    engine = settings_of(
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
    cut = {} if chunk is None else {"chunk_s": chunk}
    printer = StreamPrinter(as_json=as_json)
    with Bars() as bars:

        def tell(event: Event) -> None:
            bars.show(event)
            printer.result({"kind": type(event).__name__.lower(), **asdict(event)}, "")
            if isinstance(event, Ended) and event.record.get("state") == "failed" and not as_json:
                complain(event.record.get("reason"))

        report = run_batch(
            given,
            out,
            config=engine,
            settings=BatchSettings(question=question, **cut),
            num_workers=workers,
            address=None if ray == _LOCAL else ray,
            anew=anew,
            on_event=tell,
        )
    figures = {field.name: getattr(report, field.name) for field in fields(report)}
    printer.result(
        {"kind": "report", **figures, "manifest": str(report.manifest)},
        f"{report.num_done} videos done, {report.num_failed} failed, {report.num_same} the same again; "
        f"{clock(report.video_s)} of video in {clock(report.work_s)}\n    {report.manifest}",
    )

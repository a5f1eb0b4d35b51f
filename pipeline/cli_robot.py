"""`millpond export mcap`: what was seen, said and kept, as a file that Foxglove shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .config import EngineConfig
from .opening import opened, reopened
from .options import Compress, Config, Device, Dtype, For, Fps, Json, Keep, Memory, Model, settings_of
from .output import StreamPrinter, complain
from .question import Question
from .watch import Progress, Unanswered

export = typer.Typer(help="Writes what was seen in forms that other programs read.", no_args_is_help=True)


@export.callback()
def _export() -> None:
    """Writes what was seen in forms that other programs read."""


@export.command()
def mcap(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="the file to write; it must not be there yet")],
    source: Annotated[
        str | None, typer.Argument(metavar="SOURCE", help="watched now; none: what --memory keeps of an earlier run")
    ] = None,
    question: Annotated[list[str] | None, typer.Option(help="asked at the end; may be given again")] = None,
    narrated: Annotated[bool, typer.Option("--narrate/--quiet", help="tell what happens")] = True,
    stream: Annotated[str, typer.Option(help="which stream, where a Redis server keeps several")] = "stream",
    memory: Memory = None,
    model: Model = None,
    device: Device = None,
    dtype: Dtype = None,
    fps: Fps = None,
    compress: Compress = None,
    keep: Keep = None,
    config: Config = None,
    as_json: Json = False,
    for_s: For = None,
) -> None:
    """Writes pictures, kept cells, narrations and answers as MCAP: of SOURCE, or of what --memory keeps."""
    settings = settings_of(config, model=model, device=device, dtype=dtype, fps=fps, compressor=compress, keep=keep)
    asked = [Question(text) for text in question or []]
    if out.exists():
        raise ValueError(f"{out} is there already; got it to write to; choose another name")
    if source is None:
        _write_kept(out, memory, stream, settings, asked)
    else:
        from .robot.mcap_watch import KeptTokens, watch_into

        kept = KeptTokens()
        with opened(source, kept.config(settings), as_json, for_s, "exporting", memory=memory) as (
            session,
            frames,
            printer,
        ):
            for event in watch_into(out, session, frames, kept, questions=asked, narrate=narrated):
                if isinstance(event, Progress):
                    printer.progress(event.pts_s)
                elif isinstance(event, Unanswered):
                    complain(f"{event.question.text!r} is not answered: {event.reason}")
    num_bytes = out.stat().st_size
    StreamPrinter(as_json=as_json).result({"path": str(out), "num_bytes": num_bytes}, f"{out}: {num_bytes} bytes")


def _write_kept(out: Path, memory: str | None, stream: str, settings: EngineConfig, asked: list[Question]) -> None:
    """What an earlier run keeps, and the answers that it gives now."""
    from .robot.mcap_log import McapLog, begin_of, write_kept

    if memory is None:
        raise ValueError("there is nothing to write; got neither a SOURCE nor --memory; give one of them")
    with reopened(memory, stream, settings) as session, McapLog(out, begin_unix_s=begin_of(session)) as log:
        write_kept(session, log)
        for question in asked:
            log.answer(session.stream_id, session.ask_question(question))

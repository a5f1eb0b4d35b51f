"""Options that several commands have, and the settings that come of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .config import EngineConfig

SourceArgument = Annotated[
    str,
    typer.Argument(metavar="SOURCE", help="a file, a folder of pictures, rtsp://..., /dev/video0, synthetic://shapes"),
]
Model = Annotated[str | None, typer.Option(help="built-in name, hub id or local folder  [default: millpond/mini]")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N  [default: auto]")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16  [default: auto]")]
Fps = Annotated[float | None, typer.Option(help="frames to look at, a second of the source  [default: 1]")]
Config = Annotated[Path | None, typer.Option(help="TOML file with settings of EngineConfig; options go before it")]
Gate = Annotated[str | None, typer.Option(help="which frames are news: a gate of `millpond list`  [default: none]")]
Reuse = Annotated[
    str | None, typer.Option(help="what is not encoded anew: a reuser of `millpond list`  [default: auto]")
]
Compress = Annotated[str | None, typer.Option(help="a compressor of `millpond list`  [default: none]")]
Keep = Annotated[int | None, typer.Option(help="tokens of a frame that --compress keeps, where it takes a count")]
Select = Annotated[str | None, typer.Option(help="look only at frames that this selector of `millpond list` chooses")]
Frames = Annotated[int | None, typer.Option(help="how many frames --select chooses at most  [default: 16]")]
Similarity = Annotated[str | None, typer.Option(help="SigLIP for --select: hub id or folder  [default: the model]")]
Memory = Annotated[
    str | None, typer.Option(help="directory or redis://... to keep what was seen, and to go on from it")
]
Json = Annotated[bool, typer.Option("--json", help="one JSON object a line, for programs")]
For = Annotated[float | None, typer.Option("--for", help="stop after so many seconds of the stream")]


def settings_of(config: Path | None, *, keep: int | None = None, **given: Any) -> EngineConfig:
    """The config file's settings, or the defaults, with what was given on the command line before them."""
    base = EngineConfig.from_toml(config) if config is not None else EngineConfig()
    settings = replace(base, **{name: value for name, value in given.items() if value is not None})
    if given.get("select_frames") is not None and settings.selector is None:
        raise ValueError(
            f"--frames is how many --select chooses; got {settings.select_frames} and no selector; add one"
        )
    if keep is None:
        return settings
    compressor = settings.made_compressor()
    if not hasattr(compressor, "keep_tokens"):
        raise ValueError(
            f"--keep is how many tokens of a frame --compress keeps; got {keep}, and {type(compressor).__name__} takes "
            "no count; add a compressor that does"
        )
    return replace(settings, compressor=replace(compressor, keep_tokens=keep))

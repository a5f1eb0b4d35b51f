"""`millpond serve`: the service, until it is told to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .output import Printer


def serve(
    config: Annotated[
        Path | None, typer.Option(help="TOML: [server], [[streams]], [model], [memory], [limits], [urls], [[alerts]]")
    ] = None,
    host: Annotated[str | None, typer.Option(help="where to listen  [default: 127.0.0.1]")] = None,
    ray: Annotated[
        str | None, typer.Option(help="sources and models run on Ray: local, or the address of a cluster")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes with a model each, on --ray")] = 1,
    port: Annotated[int | None, typer.Option(help="where to listen; 0: any that is free  [default: 8321]")] = None,
) -> None:
    """Serves streams: an API that OpenAI's clients speak, a page to watch them on, alerts."""
    try:
        from .serve import ServeConfig, read_config
        from .serve import serve as run
    except ImportError as error:
        raise ValueError(str(error)) from error

    settings = ServeConfig() if config is None else read_config(config)
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = replace(settings, server=replace(settings.server, **given))  # type: ignore[arg-type]
    printer = Printer(as_json=False, duration_s=None, label="")
    run(
        settings,
        ray=ray,
        num_workers=workers,
        on_listening=lambda address: printer.result({"address": address}, f"Millpond serves at {address}"),
    )

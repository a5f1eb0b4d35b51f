"""`millpond doctor`: checks this machine, and what a server's config names, and says what to do."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from .doctor import Finding, Plan, examine
from .options import Json, Model
from .output import StreamPrinter

Config = Annotated[Path | None, typer.Option(help="the server's TOML file, as `millpond serve --config` takes it")]


def doctor(config: Config = None, model: Model = None, as_json: Json = False) -> None:
    """Checks this machine, the model, the decoders and the servers, and says what to do. Exit status 1: something
    fails."""
    from .doctor.of_config import plan_of

    printer = StreamPrinter(as_json=as_json)
    plan = Plan()
    num_failed = num_warned = 0
    findings: list[Finding] = []
    if config is not None:
        plan, findings = plan_of(config)
    if model is not None:
        plan = replace(plan, engine=replace(plan.engine, model=model))
    for source in (findings, examine(plan)):
        for finding in source:
            num_failed += finding.verdict == "fail"
            num_warned += finding.verdict == "warn"
            printer.result(asdict(finding), _line(finding))
    if not as_json:
        printer.result({}, f"\n{num_failed} failed, {num_warned} to look at")
    if num_failed:
        raise typer.Exit(1)


def _line(finding: Finding) -> str:
    mark = {"ok": "  ok", "warn": "warn", "fail": "FAIL"}[finding.verdict]
    to_do = f"\n      -> {finding.to_do}" if finding.to_do else ""
    return f"{mark}  {finding.name}: {finding.found}{to_do}"

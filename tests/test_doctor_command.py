"""`millpond doctor`: what a config file becomes, what is said of the file itself, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from millpond.pipeline import cli_doctor
from millpond.pipeline.cli_doctor import doctor
from millpond.pipeline.doctor import Finding, Plan

WORLD = "synthetic://shapes?seed=1&width=96&height=96"


def run_doctor(*arguments: str) -> tuple[int, list[dict[str, str]]]:
    app = typer.Typer()
    app.command()(doctor)
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert not done.exception or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def only_the_config(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that the command makes; what they name is not looked at."""
    plans: list[Plan] = []

    def note(plan: Plan) -> list[Finding]:
        plans.append(plan)
        return [Finding("python", "ok", "3")]

    monkeypatch.setattr(cli_doctor, "examine", note)
    return plans


def test_a_config_becomes_a_plan(tmp_path: Path, only_the_config: list[Plan]) -> None:
    pytest.importorskip("fastapi")
    config = tmp_path / "millpond.toml"
    config.write_text(
        f"""
[server]
port = 9
[model]
name = "somewhere/model"
[memory]
at = "memories"
[[streams]]
id = "door"
source = "rtsp://u:S3CRET@cam/main"
[[streams]]
id = "yard"
source = "{WORLD}"
memory = "redis://:S3CRET@host/0"
"""
    )
    config.chmod(0o644)
    status, rows = run_doctor("--config", str(config))
    (plan,) = only_the_config
    assert (plan.engine.model, plan.host, plan.port) == ("somewhere/model", "127.0.0.1", 9)
    assert [spec.stream_id for spec in plan.streams] == ["door", "yard"]
    assert plan.servers == ("redis://:S3CRET@host/0",) and plan.folders == (str(tmp_path / "memories"),)
    verdicts = {row["name"]: row["verdict"] for row in rows}
    assert verdicts[f"config {config}"] == verdicts["access"] == "ok"
    assert verdicts[f"secrecy of {config}"] == "warn", "others can read the passwords in it"
    assert status == 0 and "S3CRET" not in json.dumps(rows)
    config.chmod(0o600)
    _, rows = run_doctor("--config", str(config))
    assert {row["name"]: row["verdict"] for row in rows}[f"secrecy of {config}"] == "ok"


def test_a_config_that_makes_no_sense_fails_and_the_rest_is_checked(
    tmp_path: Path, only_the_config: list[Plan]
) -> None:
    pytest.importorskip("fastapi")
    config = tmp_path / "millpond.toml"
    config.write_text("[server]\nprot = 1\n")
    status, rows = run_doctor("--config", str(config))
    assert status == 1 and only_the_config == [Plan()]
    assert rows[0]["verdict"] == "fail" and "'port'" in rows[0]["found"] and rows[0]["to_do"]
    assert rows[-1]["name"] == "python"


def test_a_server_that_others_reach_wants_a_token(
    tmp_path: Path, only_the_config: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi")
    monkeypatch.delenv("MILLPOND_TOKEN", raising=False)
    config = tmp_path / "millpond.toml"
    config.write_text('[server]\nhost = "0.0.0.0"\n')
    status, rows = run_doctor("--config", str(config))
    verdicts = {row["name"]: row for row in rows}
    assert status == 1 and verdicts["access"]["verdict"] == "fail" and "token_file" in verdicts["access"]["to_do"]
    config.write_text('[server]\nhost = "0.0.0.0"\ntoken_file = "token"\n')
    (tmp_path / "token").write_text("a-long-enough-S3CRET\n")
    (tmp_path / "token").chmod(0o600)
    status, rows = run_doctor("--config", str(config))
    assert status == 0 and {row["verdict"] for row in rows} == {"ok"} and "S3CRET" not in json.dumps(rows)


def test_lines_for_people_say_what_to_do(capsys: pytest.CaptureFixture[str], only_the_config: list[Plan]) -> None:
    doctor(model="somewhere/model")
    assert only_the_config[0].engine.model == "somewhere/model"
    assert "  ok  python: 3\n" in capsys.readouterr().out

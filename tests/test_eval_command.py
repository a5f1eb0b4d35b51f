"""`millpond eval` as it is typed: one object for programs, a table for people, an interrupted run that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from millpond.pipeline.cli_eval import REPORT, evaluate
from millpond.stream.synthetic import SyntheticSource
from millpond.stream.truth import Witness

VIDEO = "synthetic://shapes?seed={}&duration_s=8&rate_hz=1&width=112&height=84"
KINDS = ("count_now", "list", "did_appear")

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(evaluate)


def typed(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Of two synthetic worlds, with their true answers."""
    lines: list[str] = []
    for seed in (1, 2):
        uri = VIDEO.format(seed)
        witness, rng = Witness(SyntheticSource(uri).world, [float(n) for n in range(8)]), np.random.default_rng(seed)
        for kind in KINDS:
            for moment in (4, 7):
                asked = witness.ask(kind, moment, rng, canonical=True)
                if asked is not None:
                    line = {
                        "video": uri,
                        "at_s": moment,
                        "question": asked.question,
                        "answer": asked.answer,
                        "type": kind,
                    }
                    lines.append(json.dumps(line))
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_json_is_one_object(questions: Path) -> None:
    done = typed("jsonl", "--questions", questions, "--device", "cpu", "--json")
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert {"accuracy", "interval", "by_type", "num_questions", "config"} <= set(found)
    assert found["num_questions"] == len(questions.read_text().splitlines())
    low, high = found["interval"]
    assert 0 <= low <= found["accuracy"] <= high <= 1
    assert set(found["by_type"]) <= set(KINDS)
    assert found["config"]["method"] == "millpond"
    assert found["costs"]["frame_s"] > 0 < found["costs"]["ttft_s"]
    # The built-in model knows these; were it shown nothing, or the wrong moment, it could not.
    assert found["accuracy"] >= 0.5


def test_several_methods_stand_beside_each_other(questions: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out, figure = tmp_path / "out", tmp_path / "front.png"
    words = ("jsonl", "--questions", questions, "--methods", "millpond, last-4", "--limit", 4, "--device", "cpu")
    done = typed(*words, "--out", out, "--figure", figure, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == ["methods"] and list(found["methods"]) == ["millpond", "last-4"]
    assert [one["num_questions"] for one in found["methods"].values()] == [4, 4]
    assert json.loads((out / REPORT).read_text())["methods"] == found["methods"]
    assert figure.read_bytes().startswith(b"\x89PNG")
    for name in ("millpond", "last-4"):
        lines = (out / f"{name}.jsonl").read_text().splitlines()
        assert len(lines) == 5 and all("ttft_s" in json.loads(line) for line in lines[1:])

    written = {path: path.read_bytes() for path in out.glob("*.jsonl")}
    again = typed(*words, "--out", out)
    assert again.exit_code == 0
    assert {path: path.read_bytes() for path in out.glob("*.jsonl")} == written  # nothing was asked again
    header, *rows = again.stdout.splitlines()
    assert header.split() == ["millpond", "last-4"]
    assert any(row.startswith("all") for row in rows)


def test_without_a_terminal_nothing_but_the_result_is_printed(questions: Path) -> None:
    done = typed("jsonl", "--questions", questions, "--limit", 1, "--device", "cpu", "--json")
    assert done.exit_code == 0 and done.stderr == ""


def fails(*words: object) -> str:
    done = typed(*words)
    assert isinstance(done.exception, ValueError), done.output
    return str(done.exception)


def test_wrong_words_are_told_the_right_ones(questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there are: jsonl, ovo, shapes, streamingbench" in fails("nothing")
    said = fails("jsonl", "--questions", questions, "--methods", "millpond,nothing")
    assert "'nothing'" in said and "millpond" in said
    assert "a figure is a file of" in fails("jsonl", "--questions", questions, "--figure", "a.txt")
    assert "--setting takes NAME=VALUE; got 'window'" in fails("jsonl", "--questions", questions, "--setting", "window")
    assert "has no setting 'window_s'" in fails("jsonl", "--questions", questions, "--setting", "window_s=6")
    monkeypatch.setattr("millpond.pipeline.eval.figure.find_spec", lambda name: None)
    assert "pip install 'millpond[plot]'" in fails("jsonl", "--questions", questions, "--figure", tmp_path / "a.png")


def test_other_settings_are_refused_in_the_same_folder(questions: Path, tmp_path: Path) -> None:
    words = ("jsonl", "--questions", questions, "--limit", 1, "--device", "cpu", "--out", tmp_path / "out")
    assert typed(*words).exit_code == 0
    assert "engine.fps was 1.0 and is 2.0" in fails(*words, "--fps", 2)
    assert typed(*words, "--fps", 2, "--anew").exit_code == 0


def test_where_every_video_is_missing_the_command_says_so(tmp_path: Path) -> None:
    line: dict[str, Any] = {"video": "gone.mp4", "at_s": 1, "question": "What is there?", "answer": "a cat"}
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(line))
    done = typed("jsonl", "--questions", path, "--videos", tmp_path, "--device", "cpu")
    assert done.exit_code == 2
    assert "missing, not scored: gone.mp4 (1 questions)" in done.stdout
    assert "none of 1 questions could be scored" in done.stderr

"""Methods that run elsewhere: what is handed out, what comes back, and kvpress's presses on the same frames."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from millpond.pipeline.cli import app as cli_app
from millpond.pipeline.config import EngineConfig
from millpond.pipeline.engine import Engine
from millpond.pipeline.eval import Item
from millpond.pipeline.eval.elsewhere import AnsweredElsewhere, HandedOut, Replies, Reply, read_answers
from millpond.pipeline.eval.method import EvalMethod
from millpond.pipeline.eval.methods import METHODS
from millpond.pipeline.eval.page_read import SuiteResult, read_result
from millpond.pipeline.eval.run import evaluate
from millpond.pipeline.question import Question
from millpond.stream import open_source

from .eval_parts import GivenSuite, item, mini, moment

ROOT = Path(__file__).parents[1]
PEER = ROOT / "demos" / "kvpress_peer.py"
KVPRESS = os.environ.get("MILLPOND_KVPRESS_PYTHON", "")
CLIP = "synthetic://shapes?seed={}&duration_s=12&rate_hz=1&width=96&height=72"
QUESTIONS = ("What appeared first?", "What appeared?", "How many shapes are there?", "What color is the circle?")
ITEMS = [
    item(f"{seed}-{at_s}-{words}", at_s, video=CLIP.format(seed), question=words)
    for seed in (3, 4)
    for at_s in (5.0, 11.0)
    for words in QUESTIONS
]
BASE = EngineConfig(max_new_tokens=12)


def row(name: str, show: Any, num_frames: int = 8) -> EvalMethod:
    return EvalMethod(name=name, about="is answered elsewhere.", show=show, config=METHODS[f"last-{num_frames}"].config)


def hand_out(folder: Path, items: Sequence[Item] = ITEMS, num_frames: int = 8) -> list[dict[str, Any]]:
    show = HandedOut(num_frames=num_frames, folder=folder)
    evaluate(GivenSuite(items), items, row("handed-out", show, num_frames), config=BASE, model=mini())
    return [json.loads(line) for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()]


def texts(show: Any, items: Sequence[Item] = ITEMS, num_frames: int = 8) -> dict[str, str]:
    found = evaluate(GivenSuite(items), items, row("peer", show, num_frames), config=BASE, model=mini())
    return {one.id: one.text if one.problem is None else f"problem: {one.problem}" for one in found.answered}


def test_what_is_handed_out_is_what_the_tower_and_the_language_model_read(tmp_path: Path) -> None:
    asked = hand_out(tmp_path / "out")
    assert len(asked) == len(ITEMS) == len({one["key"] for one in asked})
    about = json.loads((tmp_path / "out" / "about.json").read_text(encoding="utf-8"))
    model: Any = mini()
    assert about["weights"] == model.fingerprint and about["dtype"] == "float32"
    assert about["prefix_ids"] == list(model.prefix().ids)
    held = sorted((tmp_path / "out").glob("frames-*.npz"))
    pixels = [one for path in held for one in np.load(path, allow_pickle=False)["pixels_N3HW"]]
    assert len(pixels) == 24, "every frame once, whatever is asked about it"
    with open_source(CLIP.format(3)) as source:
        frames = list(source)
    last = next(one for one in asked if one["words"] == QUESTIONS[1] and len(one["frames"]) == 8)
    at_11_s = [one for one in asked if one["words"] == QUESTIONS[1]][1]
    for number, frame in zip(at_11_s["frames"], frames[4:12], strict=True):
        assert torch.equal(torch.from_numpy(pixels[number]), model.pixels([frame]).pixels_N13HW[0, 0])
    assert [model.decode(ids) for ids in at_11_s["before_ids"]] == [f"{n} s" for n in range(4, 12)]
    assert at_11_s["question_ids"] == list(model.question(QUESTIONS[1]).ids)
    assert last["max_new_tokens"] == 12
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix in (".pkl", ".pt")]


def test_the_folder_is_empty_at_first(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    with pytest.raises(ValueError, match=r"into an empty folder; got .*, which is not"):
        HandedOut(num_frames=4, folder=tmp_path)
    with pytest.raises(ValueError, match="num_frames must be a whole number, at least 1; got 0"):
        HandedOut(num_frames=0, folder=tmp_path / "new")


def reply(words: str, **given: Any) -> Reply:
    return Reply(**{"ids": tuple(mini().encode(words)), "ttft_s": 0.1, "total_s": 0.2, "kv_bytes": 1000, **given})


def test_answers_come_back_to_their_questions(tmp_path: Path) -> None:
    asked = hand_out(tmp_path / "out")
    words = ["red", "blue", "green", "circle"]
    replies = {one["key"]: reply(words[QUESTIONS.index(one["words"])]) for one in asked}
    show = AnsweredElsewhere(num_frames=8, by="test", answers=replies)
    found = evaluate(GivenSuite(ITEMS), ITEMS, row("peer", show), config=BASE, model=mini(), out=tmp_path / "run")
    assert {one.id: one.text for one in found.answered} == {
        one.id: words[QUESTIONS.index(one.question)] for one in ITEMS
    }
    assert {(one.ttft_s, one.total_s, one.kv_bytes) for one in found.answered} == {(0.1, 0.2, 1000)}
    assert all(one.held_bytes == 1000 + min(8, one.at_s + 1) * 96 * 72 * 3 for one in found.answered)
    assert all(one.seen_until_s == one.at_s for one in found.answered)
    lines = (tmp_path / "run" / "peer.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(ITEMS) and json.loads(lines[0])["settings"]["show"]["by"] == "test"


def test_another_frame_or_another_word_is_another_question(tmp_path: Path) -> None:
    asked = hand_out(tmp_path / "out", ITEMS[:1])
    show = AnsweredElsewhere(num_frames=8, by="test", answers={asked[0]["key"]: reply("red")})
    assert texts(show, ITEMS[:1]) == {ITEMS[0].id: "red"}
    for other in (
        item("words", 5.0, video=CLIP.format(3), question="What appeared?"),
        item("earlier", 4.0, video=CLIP.format(3), question=QUESTIONS[0]),
        item("clip", 5.0, video=CLIP.format(4), question=QUESTIONS[0]),
    ):
        assert "was not answered elsewhere after these frames" in texts(show, [other])[other.id]
    with Engine(METHODS["last-8"].config(BASE), model=mini()) as engine:
        with pytest.raises(ValueError, match="no frame came yet; got 'What"):
            show.start(engine, "stream").ask(Question("What appeared?"))


def test_what_could_not_be_answered_is_said(tmp_path: Path) -> None:
    asked = hand_out(tmp_path / "out", ITEMS[:1])
    show = AnsweredElsewhere(num_frames=8, by="t", answers={asked[0]["key"]: Reply((), 0.0, 0.0, 0, "too long")})
    assert texts(show, ITEMS[:1])[ITEMS[0].id] == "problem: elsewhere there was no answer: too long"


def test_all_polls_of_a_moment_are_handed_out(tmp_path: Path) -> None:
    polled = [moment("wait", right_at_s=3.0, until_s=5.0, video=CLIP.format(3), question="Is there a circle?")]
    asked = hand_out(tmp_path / "out", polled)
    assert [len(one["frames"]) for one in asked] == [2, 3, 4, 5, 6]
    says = ["no", "no", "yes", "yes", "yes"]
    replies = {one["key"]: reply(word) for one, word in zip(asked, says, strict=True)}
    show = AnsweredElsewhere(num_frames=8, by="test", answers=replies)
    found = evaluate(GivenSuite(polled), polled, row("peer", show), config=BASE, model=mini())
    assert (found.answered[0].first_yes_s, found.answered[0].num_polls) == (3.0, 3)


GOOD = '{"key": "a", "ids": [1, 2], "ttft_s": 0.1, "total_s": 0.2, "kv_bytes": 5}'


def test_answers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(f'{{"version": 1, "press": "knorm"}}\n{GOOD}\n{{"key": "b", "problem": "too long"}}\n')
    assert read_answers(path) == Replies(
        {"version": 1, "press": "knorm"},
        {"a": Reply((1, 2), 0.1, 0.2, 5), "b": Reply((), 0.0, 0.0, 0, "too long")},
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: not JSON"),
        ("[]", "line 1: must be an object"),
        ('{"version": 2}', "no file of answers of version 1; got version 2"),
        ('{"version": 1}\n' + GOOD.replace("[1, 2]", '["a"]'), "line 2: ids must be a list of token ids"),
        ('{"version": 1}\n' + GOOD.replace("[1, 2]", "[-1]"), "line 2: ids must be a list of token ids"),
        ('{"version": 1}\n' + GOOD.replace("[1, 2]", "[true]"), "line 2: ids must be a list of token ids"),
        ('{"version": 1}\n' + GOOD.replace("0.1", "NaN"), "line 2: must have seconds"),
        ('{"version": 1}\n' + GOOD.replace("0.1", "3"), "line 2: must have seconds"),
        ('{"version": 1}\n' + GOOD.replace(": 5", ": -5"), "line 2: kv_bytes must be a count of bytes"),
        ('{"version": 1}\n{"key": ', "line 2: not JSON"),
        ("[" * 100_000, "line 1: not JSON"),
    ],
)
def test_damaged_answers_are_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=told):
        read_answers(path)


def test_no_answers_yet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be read: .*; answer what was handed out"):
        read_answers(tmp_path / "answers.jsonl")


# With kvpress, in its own environment.

needs_kvpress = pytest.mark.skipif(
    not KVPRESS, reason="MILLPOND_KVPRESS_PYTHON names no interpreter that has kvpress; see demos/kvpress_peer.py"
)


def run(python: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [python, str(PEER), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_kvpress
def test_without_a_press_it_answers_as_the_last_frames_do(tmp_path: Path) -> None:
    hand_out(tmp_path / "out")
    run(KVPRESS, "answer", tmp_path / "out", "--press", "none", "--ratio", "0")
    by, replies = read_answers(tmp_path / "out" / "kvpress-none-0.answers.jsonl")
    assert by["kvpress"] and by["weights"] == mini().fingerprint and len(replies) == len(ITEMS)
    there = texts(AnsweredElsewhere(num_frames=8, by="none", answers=replies))
    assert there == texts(METHODS["last-8"].show)


@needs_kvpress
@pytest.mark.parametrize("press", ["snapkv", "knorm", "expected-attention", "streaming-llm"])
def test_presses_keep_the_share_that_they_are_told(tmp_path: Path, press: str) -> None:
    asked = hand_out(tmp_path / "out", ITEMS[:8])
    run(KVPRESS, "answer", tmp_path / "out", "--press", press, "--ratio", "0.75")
    _, replies = read_answers(tmp_path / "out" / f"kvpress-{press}-75.answers.jsonl")
    spec = mini().spec.kv
    for one in asked:
        context = json.loads((tmp_path / "out" / "about.json").read_text())["prefix_ids"]
        num_tokens = len(context) + sum(len(ids) + 37 for ids in one["before_ids"])
        assert replies[one["key"]].kv_bytes == int(num_tokens * 0.25) * spec.bytes_per_token


@needs_kvpress
def test_export_answer_and_score_make_a_row_of_the_table(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    records = [{"video": one.video, "at_s": one.at_s, "question": one.question, "answer": "red"} for one in ITEMS]
    questions.write_text("".join(json.dumps(one) + "\n" for one in records))
    suite = ("jsonl", "--questions", questions, "--frames", "8", "--to", tmp_path / "out")
    assert f"{len(ITEMS)} questions are in" in run(sys.executable, "export", *suite)
    press = ("--press", "knorm", "--ratio", "0.5")
    run(KVPRESS, "answer", tmp_path / "out", *press)
    before = (tmp_path / "out" / "kvpress-knorm-50.answers.jsonl").read_text()
    run(KVPRESS, "answer", tmp_path / "out", *press)
    assert (tmp_path / "out" / "kvpress-knorm-50.answers.jsonl").read_text() == before, "nothing is asked again"
    assert "kvpress-knorm-50" in run(sys.executable, "score", *suite, *press, "--out", tmp_path / "run")
    assert len((tmp_path / "run" / "kvpress-knorm-50.jsonl").read_text().splitlines()) == 1 + len(ITEMS)

    here = CliRunner().invoke(
        cli_app,
        ["eval", "jsonl", "--questions", str(questions), "--methods", "last-8", "--out", str(tmp_path / "both")],
    )
    assert here.exit_code == 0, here.output
    told = run(sys.executable, "score", *suite, *press, "--out", tmp_path / "both")
    assert "last-8" in told and "kvpress-knorm-50" in told
    page = read_result(tmp_path / "both" / "report.json")
    assert isinstance(page, SuiteResult)
    assert [row.name for row in page.rows] == ["last-8", "kvpress-knorm-50"]
    ours, theirs = page.rows
    assert ours.origin is None and "kvpress_peer.py score" in theirs.origin.command
    assert ours.share.num_questions == theirs.share.num_questions == len(ITEMS)
    done = subprocess.run(
        [sys.executable, str(PEER), "score", *map(str, suite), *press, "--limit", "3", "--out", str(tmp_path / "both")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "is of other questions" in done.stderr
    assert len(read_result(tmp_path / "both" / "report.json").rows) == 2


def test_a_press_that_is_none_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(PEER), "answer", "nowhere", "--press", "snap"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and "no press named 'snap'; there are: none, snapkv" in done.stderr

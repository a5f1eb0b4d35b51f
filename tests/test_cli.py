"""The command line: its surface, its two outputs, its exit status. In this process, where that can tell."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from millpond.encoders import FAMILIES
from millpond.pipeline.bench import BENCHES
from millpond.pipeline.cli import app, main
from millpond.stream import SOURCES

from .clips import make_clip

CLIP = "synthetic://shapes?seed=5&duration_s=6&width=96&height=96"
# Short answers: how long an answer gets is the model's affair, and this is not about that.
BRIEF = "max_new_tokens = 3\n[narration]\nmax_new_tokens = 3\n"
QUESTION = "What appeared first?"
ANSWER_KEYS = ["question", "text", "asked_at_s", "seen_until_s", "used", "timing", "tokens"]


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Millpond:
    """`millpond ...`, run in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, config: Path) -> None:
        self._capsys, self._patch, self._config = capsys, patch, config

    def __call__(self, *arguments: str | Path) -> Done:
        self._patch.setattr(sys, "argv", ["millpond", *map(str, arguments)])
        self._capsys.readouterr()
        try:
            main()
            status: Any = 0
        except SystemExit as end:
            status = end.code or 0
        return Done(status, *self._capsys.readouterr())

    def brief(self, command: str, *arguments: str | Path) -> Done:
        return self(command, *arguments, "--config", self._config)


@pytest.fixture
def millpond(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Millpond:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = tmp_path / "brief.toml"
    config.write_text(BRIEF, encoding="utf-8")
    return Millpond(capsys, monkeypatch, config)


# Surface.

MODEL = ["--model", "--device", "--dtype", "--fps", "--gate", "--reuse", "--compress", "--keep"]
SELECT = ["--select", "--frames"]
COMMON = ["--memory", "--config", "--json", "--for"]
SURFACE = {
    "narrate": ["SOURCE", *MODEL, *COMMON],
    "ask": [
        "SOURCE",
        "QUESTION...",
        "--at",
        "--since",
        "--until",
        "--questions",
        *MODEL,
        *SELECT,
        "--similarity",
        *COMMON,
    ],
    "summarize": ["FILE", *MODEL, *SELECT, *COMMON],
    "recall": [
        "MEMORY",
        "QUESTION...",
        *("--since", "--until", "--search", "--stream"),
        *("--model", "--device", "--dtype", "--config", "--json"),
    ],
    "watch": [
        "SOURCE...",
        *("--narrate", "--questions", "--as-live", "--ray", "--workers"),
        *MODEL,
        *COMMON,
    ],
    "batch": [
        "FILES...",
        *("--out", "--ray", "--workers", "--chunk", "--question", "--anew"),
        *MODEL,
        *SELECT,
        *("--config", "--json"),
    ],
    "eval": [
        "SUITE",
        *("--questions", "--videos", "--methods", "--setting", "--limit", "--out", "--figure", "--anew"),
        *("--model", "--device", "--dtype", "--fps", "--config", "--json"),
    ],
    "page": ["--from", "--to"],
    "serve": ["--config", "--host", "--ray", "--workers", "--port"],
    "doctor": ["--config", "--model", "--json"],
    "export": [],
    "demo": ["--json"],
    "models": ["--json"],
    "sources": ["--json"],
    "list": ["KIND", "--markdown", "--json"],
    "bench": ["NAME", "--model", "--repeats", "--clips", "--json"],
}


def test_commands_and_options_are_these() -> None:
    group: Any = typer.main.get_command(app)
    surface = {
        name: [p.metavar if p.param_type_name == "argument" else p.opts[0] for p in command.params]
        for name, command in group.commands.items()
    }
    assert surface == SURFACE
    assert [p.opts[0] for p in group.params] == ["--version"]


def test_help_says_what_each_command_is_for(millpond: Millpond) -> None:
    told = millpond("--help")
    assert told.status == 0 and all(f"  {name} " in told.out for name in SURFACE)
    keys = " ".join(millpond("bench", "--help").out.split())
    for bench in BENCHES:
        for key in BENCHES[bench].about.split("Keys:")[1].replace(",", " ").split():
            assert key in keys


def test_the_version_is_the_package_s(millpond: Millpond) -> None:
    assert millpond("--version") == Done(0, version("millpond") + "\n", "")


def test_models_and_sources_are_listed(millpond: Millpond) -> None:
    models, sources = millpond("models"), millpond("sources")
    assert [line.split()[0] for line in models.out.splitlines()] == ["millpond/mini", *sorted(FAMILIES)]
    assert [line.split()[0] for line in sources.out.splitlines()] == list(SOURCES)
    assert models.err == sources.err == "" and models.status == sources.status == 0
    assert [record["name"] for record in millpond("models", "--json").records] == ["millpond/mini", *sorted(FAMILIES)]
    for record in millpond("sources", "--json").records:
        assert record.keys() == {"name", "about"} and record["about"]


# Results.


def test_an_answer_has_the_agreed_keys(millpond: Millpond) -> None:
    done = millpond.brief("ask", CLIP, QUESTION, "--json")
    (record,) = done.records
    assert (done.status, done.err) == (0, "")
    assert list(record) == ANSWER_KEYS
    assert (record["question"], record["asked_at_s"], record["seen_until_s"]) == (QUESTION, 5.0, 5.0)
    assert record["used"] == [[0.0, 5.0]] and 1 <= record["tokens"] <= 3
    assert record["timing"].keys() == {"ttft_s", "total_s"}
    assert 0 < record["timing"]["ttft_s"] <= record["timing"]["total_s"]


def test_several_questions_are_asked_in_one_pass(millpond: Millpond) -> None:
    records = millpond.brief("ask", CLIP, QUESTION, "How many objects are there now?", "--json").records
    assert [r["question"] for r in records] == [QUESTION, "How many objects are there now?"]


@pytest.mark.parametrize(("at", "seen_s"), [("2.5", 2.0), ("3", 3.0), ("0", 0.0), ("99", 5.0), ("-1", 0.0)])
def test_a_question_can_be_asked_on_the_way(millpond: Millpond, at: str, seen_s: float) -> None:
    (record,) = millpond.brief("ask", CLIP, QUESTION, "--at", at, "--json").records
    assert (record["asked_at_s"], record["seen_until_s"]) == (max(float(at), seen_s), seen_s)
    assert record["used"] == [[0.0, seen_s]]


def test_a_question_can_be_about_a_span(millpond: Millpond) -> None:
    (record,) = millpond.brief("ask", CLIP, QUESTION, "--since", "1", "--until", "3", "--json").records
    assert (record["used"], record["seen_until_s"]) == ([[1.0, 3.0]], 3.0)
    (record,) = millpond.brief("ask", CLIP, QUESTION, "--since", "2", "--json").records
    assert (record["used"], record["seen_until_s"]) == ([[2.0, 5.0]], 5.0)


def test_questions_come_from_a_file_too(millpond: Millpond, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(
        '{"question": "at the end?"}\n'
        '{"question": "at four?", "at_s": 4}\n'
        '{"question": "about the start?", "since_s": 0, "until_s": 1}\n',
        encoding="utf-8",
    )
    records = millpond.brief("ask", CLIP, QUESTION, "--questions", file, "--at", "2", "--json").records
    assert [(r["question"], r["seen_until_s"], r["used"]) for r in records] == [
        ("about the start?", 1.0, [[0.0, 1.0]]),
        (QUESTION, 2.0, [[0.0, 2.0]]),
        ("at four?", 4.0, [[0.0, 4.0]]),
        ("at the end?", 5.0, [[0.0, 5.0]]),
    ]


def test_narrations_have_their_stretch_of_time(millpond: Millpond, tmp_path: Path) -> None:
    config = tmp_path / "often.toml"
    config.write_text(BRIEF + "min_gap_s = 2\nmax_gap_s = 2\n", encoding="utf-8")
    done = millpond("narrate", CLIP, "--config", config, "--json")
    assert (done.status, done.err) == (0, "")
    for record in done.records:
        assert record.keys() == {"start_s", "end_s", *ANSWER_KEYS}
        assert record["start_s"] < record["end_s"] == record["seen_until_s"] and record["text"]


def test_a_summary_brings_its_narrations(millpond: Millpond) -> None:
    done = millpond.brief("summarize", CLIP, "--json")
    (record,) = done.records
    assert (done.status, done.err) == (0, "")
    assert record.keys() == {"start_s", "end_s", *ANSWER_KEYS, "narrations"}
    assert (record["start_s"], record["end_s"]) == (0.0, 5.0)
    for narration in record["narrations"]:
        assert narration.keys() == {"start_s", "end_s", *ANSWER_KEYS}
    assert millpond.brief("summarize", CLIP).out.splitlines()[-1].startswith("Summary: ")


def test_people_get_lines_they_can_read(millpond: Millpond) -> None:
    done = millpond.brief("ask", CLIP, QUESTION)
    first, _, last = done.out.splitlines()
    assert first == f"[0:05.0] {QUESTION}"
    assert last.startswith("    seen until 0:05.0, read 0:00.0 - 0:05.0; ")


def test_the_rate_and_the_length_can_be_chosen(millpond: Millpond) -> None:
    (record,) = millpond.brief("ask", CLIP, QUESTION, "--fps", "2", "--for", "2", "--json").records
    assert record["seen_until_s"] == 2.0
    (record,) = millpond.brief("ask", CLIP, QUESTION, "--fps", "0.5", "--json").records
    assert record["seen_until_s"] == 4.0


def test_a_file_and_a_folder_are_watched(millpond: Millpond, tmp_path: Path) -> None:
    from PIL import Image

    from .watched import picture

    clip = make_clip(tmp_path / "clip.mp4", 60)
    (record,) = millpond.brief("ask", clip, QUESTION, "--json").records
    assert record["seen_until_s"] == 2.0
    (tmp_path / "pictures").mkdir()
    for n in range(3):
        Image.fromarray(picture(n)).save(tmp_path / "pictures" / f"{n}.png")
    done = millpond.brief("ask", tmp_path / "pictures", QUESTION, "--json")
    assert (done.status, len(done.records)) == (0, 1)


# Bad input: exit status 2, one sentence on stderr, nothing on stdout.


def refused(done: Done) -> str:
    """The sentence."""
    assert (done.status, done.out) == (2, ""), done
    assert "Traceback" not in done.err
    assert done.err.startswith("millpond: ") and done.err.count("\n") == 1, done.err
    return done.err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.mp4").write_text("no video\n" * 99, encoding="utf-8")
    (tmp_path / "nothing.mp4").write_bytes(b"")
    (tmp_path / "bad.toml").write_text("modle = 'x'\n", encoding="utf-8")
    (tmp_path / "bad.jsonl").write_text('{"question": "fine?"}\n{"at_s": 1}\n', encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{}/missing.mp4", "no file or folder at {}/missing.mp4"),
        ("{}/words.mp4", "{}/words.mp4 is not a video that can be read"),
        ("{}/nothing.mp4", "{}/nothing.mp4 is empty"),
        ("{}/empty", "the folder {}/empty has no pictures in it"),
        ("ftp://host/clip.mp4", "no source reads ftp://"),
        ("", "the source is empty"),
        ("synthetic://cats", "no synthetic world is called 'cats'"),
        ("synthetic://shapes?sed=1", "has no setting 'sed'"),
        ("device://99", "no camera can be opened at device://99"),
        ("rtsp://127.0.0.1:1/x", "rtsp://127.0.0.1:1/x refuses the connection"),
    ],
)
@pytest.mark.parametrize("command", ["ask", "narrate", "summarize"])
def test_a_source_that_cannot_be_read(
    millpond: Millpond, folder: Path, command: str, source: str, message: str
) -> None:
    question = [QUESTION] if command == "ask" else []
    told = refused(millpond(command, source.format(folder), *question))
    assert message.format(folder) in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "no/such-model"], "there is no folder 'no/such-model', and the model hub gave no such model"),
        (["--model", "/no/such/folder"], "there is no folder '/no/such/folder'; give the folder of a checkpoint"),
        (["--model", "{}/empty"], "holds no config.json"),
        (["--model", "{}/words.mp4"], "is a file; give the folder of a checkpoint"),
        (["--device", "toaster"], "device must be auto, cpu, cuda or cuda:N; got 'toaster'"),
        (["--device", "cuda:99"], "device 'cuda:99' is not there"),
        (["--dtype", "int8"], "dtype must be auto, float32, bfloat16, float16; got 'int8'"),
        (["--fps", "0"], "fps must be finite and more than 0; got 0"),
        (["--fps", "nan"], "fps must be finite and more than 0; got nan"),
        (["--for", "0"], "--for takes a number of seconds above 0; got 0"),
        (["--for", "nan"], "--for takes a number of seconds above 0; got nan"),
        (["--config", "{}/bad.toml"], "there is no setting 'modle'; did you mean 'model'?"),
        (["--config", "{}/none.toml"], "none.toml' cannot be read: No such file or directory"),
        (["--questions", "{}/bad.jsonl"], 'bad.jsonl:2 must be an object with a "question" in words'),
        (["--questions", "{}/none.jsonl"], "none.jsonl' cannot be read"),
        (["--since", "3", "--until", "2"], "needs since_s <= until_s; got 3.0 and 2.0"),
        (["--since", "100"], "no frame from 100.0 s is remembered"),
        (["--at", "nan"], "at_s must be a finite number of seconds; got nan"),
        (["--gate", "nope"], "no gate named 'nope'; there are: difference, none"),
        (["--reuse", "nope"], "no reuser named 'nope'; there are: delta, none, stc"),
        (["--compress", "nope"], "no compressor named 'nope'; there are: difference_pruning, fastervlm, "),
        (["--select", "nope"], "no selector named 'nope'; there are: change, grid, keyframes, "),
        (["--select", "uniform", "--frames", "0"], "select_frames must be a whole number, at least 1; got 0"),
        (["--frames", "4"], "--frames is how many --select chooses; got 4 and no selector; add one"),
    ],
)
def test_a_setting_that_cannot_be_met(millpond: Millpond, folder: Path, options: list[str], message: str) -> None:
    assert message in refused(millpond("ask", CLIP, QUESTION, *(word.format(folder) for word in options)))


def test_no_question_at_all(millpond: Millpond) -> None:
    assert "there is no question; give one in quotes" in refused(millpond("ask", CLIP))
    assert "a question needs words" in refused(millpond("ask", CLIP, " "))


def test_a_benchmark_that_there_is_not(millpond: Millpond) -> None:
    there_are = f"no benchmark named 'nope'; there are: {', '.join(sorted(BENCHES))}\n"
    assert there_are in refused(millpond("bench", "nope"))


@pytest.mark.parametrize(
    "words", [["frobnicate"], ["ask", CLIP, "a?", "--bogus"], ["ask", CLIP, "--fps", "x"], ["ask"]]
)
def test_a_command_line_that_means_nothing(millpond: Millpond, words: list[str]) -> None:
    done = millpond(*words)
    assert (done.status, done.out) == (2, "") and "Usage: millpond" in done.err


@pytest.mark.parametrize("uri", ["rtsp://user:secret@127.0.0.1:1/", "http://user:secret@127.0.0.1:1/a.mp4"])
def test_a_password_is_never_told(millpond: Millpond, uri: str) -> None:
    told = refused(millpond("narrate", uri))
    assert "secret" not in told and "127.0.0.1:1" in told


# In a process of its own.


def run(*arguments: str | Path) -> Done:
    command = Path(sysconfig.get_path("scripts"), "millpond")
    done = subprocess.run(
        [str(command), *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_the_installed_command_keeps_results_and_the_rest_apart(tmp_path: Path) -> None:
    config = tmp_path / "brief.toml"
    config.write_text(BRIEF, encoding="utf-8")
    done = run("ask", CLIP, QUESTION, "--config", config, "--json")
    assert done.err == ""
    assert done.status == 0
    assert [list(record) for record in done.records] == [ANSWER_KEYS]


def test_the_installed_command_refuses_without_a_traceback_or_a_password() -> None:
    told = refused(run("ask", "rtsp://user:secret@127.0.0.1:1/", QUESTION))
    assert "secret" not in told


def test_a_reader_that_has_seen_enough_is_no_fault(tmp_path: Path) -> None:
    command = Path(sysconfig.get_path("scripts"), "millpond")
    reader = subprocess.Popen([str(command), "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reader.stdout is not None and reader.stderr is not None
    reader.stdout.close()
    err = reader.stderr.read()
    assert (reader.wait(300), err) == (0, b"")
    reader.stderr.close()


def test_a_fault_of_our_own_is_told_as_one(millpond: Millpond, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("this should not happen")

    monkeypatch.setattr("millpond.pipeline.engine.load_model", fail)
    with pytest.raises(RuntimeError, match="this should not happen"):
        millpond("ask", CLIP, QUESTION)

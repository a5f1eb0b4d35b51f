"""`millpond watch`: names of streams, questions as they come and at the end, and a clean end whatever ends it."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millpond.pipeline import Question
from millpond.pipeline.cli import main
from millpond.pipeline.watch_streams import Asked, read_asked, read_one, specs_of
from millpond.stream import SourceError

from .conftest import RtspServer

CLIP = "synthetic://shapes?seed={seed}&duration_s={length_s}&width=96&height=96"
KNOWN = {"door", "yard:2"}


def clip(seed: int, length_s: int = 6) -> str:
    return CLIP.format(seed=seed, length_s=length_s)


def run(capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, *arguments: str) -> tuple[Any, str, str]:
    patch.setattr(sys, "argv", ["millpond", "watch", *arguments])
    capsys.readouterr()
    status: Any = 0
    try:
        main()
    except SystemExit as end:
        status = end.code or 0
    return (status, *capsys.readouterr())


def records(out: str, kind: str) -> list[dict[str, Any]]:
    return [record for line in out.splitlines() if (record := json.loads(line))["kind"] == kind]


def test_streams_are_named_after_their_place_or_as_they_are_told(tmp_path: Path) -> None:
    (tmp_path / "a=b.mp4").touch()
    given = [
        "front=rtsp://me:secret@cam.local/main",
        "rtsp://me:secret@cam.local:8554/yard",
        str(tmp_path / "a=b.mp4"),
        clip(1),
        clip(2),
    ]
    specs = specs_of(given, memory=str(tmp_path / "kept"))
    assert [spec.stream_id for spec in specs] == ["front", "cam.local:8554/yard", "a=b", "shapes", "shapes-2"]
    assert [spec.uri for spec in specs] == [given[0].removeprefix("front="), *given[1:]]
    places = [Path(spec.memory or "") for spec in specs]
    assert {place.parent for place in places} == {tmp_path / "kept"} and len(set(places)) == 5
    assert not any("secret" in f"{spec!r} {spec.stream_id} {spec.memory}" for spec in specs)
    assert {spec.memory for spec in specs_of(given, memory="redis://localhost/0")} == {"redis://localhost/0"}
    with pytest.raises(ValueError, match=r"two sources are named 'a'; got .*; give each its own name") as caught:
        specs_of(["a=rtsp://me:secret@cam/1", "a=rtsp://me:secret@cam/2"])
    assert "secret" not in str(caught.value)
    with pytest.raises(SourceError, match="no source reads gopher://"):
        specs_of(["x=gopher://cam/1"])


def test_questions_are_words_or_json_for_one_stream_or_for_all() -> None:
    lines = [
        "",
        "Who is there?",
        "door: Who is there?",
        "what: is this?",
        '{"question": "Now?", "stream": "yard:2"}',
        "  ",
    ]
    assert list(read_asked(lines, "q", KNOWN)) == [
        Asked(None, Question("Who is there?")),
        Asked("door", Question("Who is there?")),
        Asked(None, Question("what: is this?")),
        Asked("yard:2", Question("Now?")),
    ]
    assert read_one('{"question": "Then?", "since_s": 1}', "q:1", KNOWN) == Asked(None, Question("Then?", since_s=1))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"question": "?', "q:1 is not JSON"),
        ('{"question": ""}', "q:1: a question needs words"),
        ('{"question": "a?", "stream": 4}', "q:1: stream must be a name; got 4"),
        ('{"question": "a?", "stream": "x"}', "q:1: there is no stream 'x'; there are: door, yard:2"),
        ('{"question": "a?", "at_s": 4}', "q:1: watch asks at once; got at_s=4; leave it out, or use millpond ask"),
        ('{"question": "a?", "name": "door"}', "q:1 has an unknown key 'name'; there are: question, stream, at_s"),
        ("door:", "a question needs words"),
    ],
)
def test_a_line_that_is_no_question_is_told(line: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        read_one(line, "q:1", KNOWN)


def test_many_recordings_are_told_and_asked_at_their_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = tmp_path / "questions.txt"
    asked.write_text("What appeared first?\nb: What appeared last?\n")
    status, out, err = run(
        capsys, monkeypatch, f"a={clip(1)}", f"b={clip(2)}", f"c={clip(3)}", "--questions", str(asked), "--json"
    )
    assert (status, err) == (0, "")
    answers = sorted((r["stream"], r["question"], r["seen_until_s"]) for r in records(out, "answer"))
    first, last = "What appeared first?", "What appeared last?"
    assert answers == [("a", first, 5.0), ("b", first, 5.0), ("b", last, 5.0), ("c", first, 5.0)]
    assert {r["stream"] for r in records(out, "narration")} == {"a", "b", "c"}
    assert sorted((r["stream"], r["problem"]) for r in records(out, "ended")) == [("a", None), ("b", None), ("c", None)]


def test_questions_come_from_standard_input_while_streams_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a: What appeared first?\n{broken\nWhat color is the circle?\n"))
    status, out, err = run(capsys, monkeypatch, f"a={clip(1)}", f"b={clip(2)}", "--questions", "-", "--quiet", "--json")
    assert status == 0 and "line 2 is not JSON" in err
    assert sorted((r["stream"], r["question"]) for r in records(out, "answer")) == [
        ("a", "What appeared first?"),
        ("a", "What color is the circle?"),
        ("b", "What color is the circle?"),
    ]
    assert records(out, "narration") == []


def test_what_was_watched_can_be_recalled(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(capsys, monkeypatch, f"a={clip(1)}", f"b={clip(2)}", "--memory", str(tmp_path))[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    monkeypatch.setattr(sys, "argv", ["millpond", "recall", str(tmp_path / "b"), "What appeared first?", "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert json.loads(capsys.readouterr().out)["seen_until_s"] == 5.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([clip(1), "--for", "0"], "--for takes a number of seconds above 0; got 0"),
        (["nowhere.mp4"], "nowhere.mp4"),
        ([clip(1), "--questions", "nowhere.txt"], "nowhere.txt"),
        ([clip(1), "--memory", "redis://u:s3cret@127.0.0.1:1/0"], "127.0.0.1:1"),
    ],
)
def test_bad_input_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    status, out, err = run(capsys, monkeypatch, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("millpond: ") and sentence in err and err.count("\n") == 1
    assert "s3cret" not in err


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_whoever_ends_it_loses_nothing(how: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            # A shell's background job is started with SIGINT ignored; this one shall hear it.
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from millpond.pipeline.cli import main; main()",
            "watch",
            f"a={clip(1, 60)}",
            "--as-live",
            "--fps",
            "4",
            "--memory",
            str(tmp_path),
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["kind"] == "narration"
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "millpond: interrupted; the streams end here\n")
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "from millpond.pipeline.cli import main; main()",
            "recall",
            str(tmp_path / "a"),
            "--json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    kept = json.loads(told.stdout)
    assert kept["num_blocks"] >= 1 and kept["num_lines"] >= 1


def test_a_camera_that_is_not_there_does_not_keep_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rtsp_server: Callable[..., RtspServer]
) -> None:
    server = rtsp_server()
    status, out, err = run(
        capsys,
        monkeypatch,
        f"on={server.uri()}",
        "off=rtsp://me:s3cret@127.0.0.1:9/x",
        "--fps",
        "5",
        "--for",
        "6",
        "--json",
    )
    assert status == 0 and "s3cret" not in out + err
    assert "refuses the connection" in err and "off is tried again until it answers" in err
    assert {r["stream"] for r in records(out, "narration")} == {"on"}


def test_it_runs_on_ray_as_it_does_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[Any]] = []
    for where in ([], ["--ray", "local", "--workers", "2"]):
        # What is reused depends on what is encoded together, so nothing is.
        status, out, _ = run(capsys, monkeypatch, f"a={clip(1)}", f"b={clip(2)}", "--reuse", "none", "--json", *where)
        assert status == 0
        lines = [json.loads(line) for line in out.splitlines()]
        told.append(sorted((r["stream"], r["kind"], r.get("text") or "", r.get("start_s") or 0.0) for r in lines))
    assert told[0] == told[1] and len(told[0]) > 4

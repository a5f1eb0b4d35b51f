"""Chunks on disk: whole or not there, and nothing is believed that ours would not have written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.batch.files import read_json, remove_parts, write_json, write_whole
from millpond.pipeline.batch.record import SCENE_BYTES, ChunkRecord, Said, chunk_path, one_line, read_chunk, write_chunk
from millpond.stream import Span

CONTENT = "0123456789abcdef" * 4
RECORD = ChunkRecord(
    settings="s",
    content=CONTENT,
    number=2,
    span=Span(10.0, 20.0),
    times_s=(10.0, 11.5, 19.0),
    scenes=bytes(range(SCENE_BYTES)) * 3,
    said=(Said(Span(10.0, 11.5), "a red circle"), Said(Span(11.5, 19.0), "größer — 圆")),
    num_dropped=1,
    num_damaged=2,
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_chunk(tmp_path, RECORD)
    assert read_chunk(tmp_path, 2, settings="s", content=CONTENT) == RECORD
    assert [p.name for p in (tmp_path / "chunks").iterdir()] == ["00002.json"]
    assert read_chunk(tmp_path, 1, settings="s", content=CONTENT) is None
    assert read_chunk(tmp_path, 2, settings="t", content=CONTENT) is None
    assert read_chunk(tmp_path, 2, settings="s", content=CONTENT[::-1]) is None


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no times": lambda v: v.pop("times_s"),
    "a time that is text": lambda v: v["times_s"].__setitem__(0, "10"),
    "a time that is not finite": lambda v: v["times_s"].__setitem__(0, float("nan")),
    "a time before the chunk": lambda v: v["times_s"].__setitem__(0, 9.0),
    "times out of order": lambda v: v["times_s"].reverse(),
    "fewer scenes": lambda v: v.update(scenes=v["scenes"][:-4]),
    "scenes that are no base64": lambda v: v.update(scenes="ü" + v["scenes"][1:]),
    "a line after the chunk": lambda v: v["said"][1].update(span=[11.0, 21.0]),
    "a line of two lines": lambda v: v["said"][0].update(text="a\nb"),
    "a line without words": lambda v: v["said"][0].update(text=""),
    "a line that is too long": lambda v: v["said"][0].update(text="x" * 9000),
    "a line that is a number": lambda v: v["said"][0].update(text=7),
    "lines that are none": lambda v: v.update(said=7),
    "another chunk": lambda v: v.update(number=3),
    "a count that is none": lambda v: v.update(num_dropped=True),
    "a count below nothing": lambda v: v.update(num_damaged=-1),
    "a span that ends before it begins": lambda v: v.update(span=[20.0, 10.0]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_ours_would_not_write_is_no_chunk(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_chunk(tmp_path, RECORD)
    path = chunk_path(tmp_path, 2)
    value = json.loads(path.read_text(encoding="utf-8"))
    DAMAGE[name](value)
    path.write_text(json.dumps(value), encoding="utf-8")
    assert read_chunk(tmp_path, 2, settings="s", content=CONTENT) is None
    assert "is damaged and is done again" in caplog.text


@given(st.binary(max_size=300))
def test_any_bytes_are_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "x.json"
    path.write_bytes(data)
    try:
        assert isinstance(read_json(path, max_bytes=200), dict)
    except ValueError as error:
        assert "\n" not in str(error)


def test_deep_nesting_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="cannot be read"):
        read_json(tmp_path / "x.json", max_bytes=10**6)


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    line = one_line(text)
    assert line == one_line(line) and len(line.splitlines()) <= 1
    if line:
        Said(Span(0, 0), line)


WRITER = """
import sys
from pathlib import Path
from millpond.pipeline.batch.files import write_json
n = 0
print("ready", flush=True)
while True:
    n += 1
    write_json(Path(sys.argv[1]), {"n": n, "text": "x" * 2_000_000, "end": n})
"""


@pytest.mark.parametrize("delay_s", [0.05, 0.15, 0.3])
def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path, delay_s: float) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"n": 0, "end": 0})
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None and writer.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(delay_s)
    finally:
        writer.kill()
        writer.wait()
    value = read_json(path, max_bytes=10**7)
    assert value["n"] == value["end"]
    remove_parts(tmp_path)
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_write_that_fails_leaves_what_was(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_whole(path, "before")
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"n": float("inf")})
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["x.json"]

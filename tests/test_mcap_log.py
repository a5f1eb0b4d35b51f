"""What a session saw, said and kept as MCAP: read back with the mcap package, and by Millpond as a source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from millpond.encoders.compressors import COMPRESSORS
from millpond.pipeline.answer import Answer, Timing
from millpond.pipeline.cli_robot import export
from millpond.pipeline.robot.foxglove import LOG, MARKS, PICTURE, SCHEMAS, outline
from millpond.pipeline.robot.mcap_log import McapLog
from millpond.pipeline.robot.mcap_watch import TellingCompressor
from millpond.pipeline.robot.perception import Perception, View
from millpond.stream import Frame, Span, open_source
from millpond.stream.jpeg import decode_jpeg, encode_jpeg

from .plain_sights import CHANNELS, rand, sight

pytest.importorskip("mcap")

# Shapes: H rows and W columns of a grid, 3 colours.

BEGIN_S = 1_700_000_000.0
CLIP = "synthetic://shapes?seed=5&duration_s=10&rate_hz=1&width=96&height=96"


def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Messages by topic, in order of time, each checked against the schema that stands in the file."""
    from mcap.reader import make_reader

    found: dict[str, list[dict[str, Any]]] = {}
    with path.open("rb") as file:
        for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages():
            assert schema is not None and schema.encoding == "jsonschema" and channel.message_encoding == "json"
            told = json.loads(message.data)
            check(told, json.loads(schema.data))
            stamp = told.get("timestamp") or next((m["timestamp"] for m in told.get("points", ())), None)
            if stamp is not None:
                assert stamp["sec"] * 10**9 + stamp["nsec"] == message.log_time
            found.setdefault(channel.topic, []).append({**told, "schema": schema.name, "at_s": message.log_time / 1e9})
    return found


KINDS = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool}


def check(told: Any, schema: dict[str, Any]) -> None:
    """What JSON Schema means, as far as these use it."""
    assert isinstance(told, KINDS[schema["type"]]), (told, schema)
    if schema["type"] == "object" and not schema.get("title", "").startswith("millpond."):
        assert set(told) == set(schema["properties"]), (set(told), schema)
    for name, inner in schema.get("properties", {}).items():
        check(told[name], inner)
    for item in told if schema["type"] == "array" else ():
        check(item, schema["items"])
    assert told >= schema["minimum"] if "minimum" in schema else True


def cells(marks: dict[str, Any], grid_hw: tuple[int, int], picture_hw: tuple[int, int]) -> np.ndarray:
    """The cells inside the lines: those with an odd number of upright lines to their left."""
    points = [
        (p["x"] * grid_hw[1] / picture_hw[1], p["y"] * grid_hw[0] / picture_hw[0]) for p in marks["points"][0]["points"]
    ]
    inside_HW = np.zeros(grid_hw, int)
    for (x0, y0), (x1, y1) in zip(points[::2], points[1::2], strict=True):
        if round(x0) == round(x1):
            inside_HW[round(min(y0, y1)) : round(max(y0, y1)), round(x0) :] += 1
    return inside_HW % 2 == 1


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_lines_go_around_the_kept_cells_and_no_others(height: int, width: int, seed: int) -> None:
    kept_HW = np.random.default_rng(seed).random((height, width)) < 0.5
    inside_HW = np.zeros((height, width), int)
    num_level = np.zeros((height, width), int)
    for line in outline(kept_HW):
        assert (line.x0 == line.x1) != (line.y0 == line.y1)
        if line.x0 == line.x1:
            inside_HW[line.y0 : line.y1, line.x0 :] += 1
        else:
            num_level[line.y0 :, line.x0 : line.x1] += 1
    assert np.array_equal(inside_HW % 2 == 1, kept_HW) and np.array_equal(num_level % 2 == 1, kept_HW)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rgb_HW3 = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    kept_HW = np.random.default_rng(1).random((4, 6)) < 0.4
    answer = Answer("Where is it?", "on the left", 3.0, 2.5, (Span(0.0, 2.0),), Timing(0.1, 0.2), (1, 2))
    with McapLog(tmp_path / "run.mcap", begin_unix_s=BEGIN_S) as log:
        log.frame(Frame(rgb_HW3, 1.0, "front door", gap_s=0.5))
        log.kept("front door", kept_HW, (48, 64), 1.0)
        log.tell("front door", "a heron lands", 2.0, "narration")
        log.answer("front door", answer)
        assert repr(log) == "McapLog(run.mcap, 5 messages)"
    found = read(tmp_path / "run.mcap")
    assert {topic: told[0]["schema"] for topic, told in found.items()} == {
        "/front_door/log": LOG, "/front_door/pictures": PICTURE, "/front_door/kept": MARKS,
    }  # fmt: skip
    gap, heron, asked = found["/front_door/log"]
    assert (gap["message"], gap["level"], gap["name"], gap["at_s"]) == ("no picture for 0.5 s", 3, "gap", BEGIN_S + 1)
    assert (heron["message"], heron["level"], heron["name"]) == ("a heron lands", 2, "narration")
    assert (
        asked["message"] == "Where is it?\non the left\n(seen until 2.5 s; read 0 to 2 s)"
        and asked["at_s"] == BEGIN_S + 3
    )
    (marked,) = found["/front_door/kept"]
    assert np.array_equal(cells(marked, (4, 6), (48, 64)), kept_HW)
    assert marked["texts"][0]["text"] == f"{kept_HW.sum()} of 24 tokens"
    # Millpond reads its own pictures as a camera of a log.
    with open_source(tmp_path / "run.mcap") as source:
        (frame,) = source
    assert np.array_equal(frame.rgb_HW3, decode_jpeg(encode_jpeg(rgb_HW3))) and frame.wall_s == pytest.approx(
        BEGIN_S + 1
    )


def test_a_perception_shows_what_it_kept_of_each_camera(tmp_path: Path) -> None:
    kept_T3 = torch.tensor([[0, 0, 1], [0, 2, 2], [1, 0, 0]])
    views = (View("top", 1.5, 10.0, 4, (3, 3), 2, 0.25), View("wrist", 1.4, 10.0, 7, (2, 2), 1))
    seen = Perception(torch.zeros(3, 8), kept_T3, torch.ones(3, dtype=torch.bool), views, 0.125, 2, 9, True, "too old")
    with McapLog(tmp_path / "run.mcap") as log:
        log.perception(seen, {"top": (90, 90), "wrist": (20, 40)}, 1.5)
        with pytest.raises(ValueError, match="there is no size of 'wrist'; got top"):
            log.perception(seen, {"top": (90, 90)}, 1.5)
    found = read(tmp_path / "run.mcap")
    top, wrist = cells(found["/top/kept"][0], (3, 3), (90, 90)), cells(found["/wrist/kept"][0], (2, 2), (20, 40))
    assert np.argwhere(top).tolist() == [[0, 1], [2, 2]] and np.argwhere(wrist).tolist() == [[0, 0]]
    told = found["/perception"][0]
    assert (told["age_s"], told["num_tokens"], told["num_dropped"], told["is_stale"]) == (0.125, 3, 2, True)
    assert told["problem"] == "too old" and told["views"]["top"] == {"pts_s": 1.5, "changed_share": 0.25}


def test_a_file_that_was_not_closed_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    log = McapLog(tmp_path / "run.mcap")
    picture = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    for number in range(40):
        log.picture("cam", picture, number / 10)
    log._file.flush()
    with open_source(tmp_path / "run.mcap") as source:
        frames = list(source)
    assert 10 < len(frames) < 40 and source.stats.num_damaged == 1
    log.close()
    log.close()
    with open_source(tmp_path / "run.mcap") as source:
        assert len(list(source)) == 40


def test_what_cannot_be_written_gets_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with McapLog(path) as log:
        for at_s in (-1.0, float("nan"), float("inf"), 1e12):
            with pytest.raises(ValueError, match="a message is at 0 s or later on the log's clock; got"):
                log.tell("cam", "x", at_s)
        for kept_HW, picture_hw in (
            (np.ones(4, bool), (8, 8)),
            (np.ones((2, 0), bool), (8, 8)),
            (np.ones((2, 2), bool), (0, 8)),
        ):
            with pytest.raises(ValueError, match="kept cells are a grid over a picture"):
                log.kept("cam", kept_HW, picture_hw, 0.0)
    with pytest.raises(ValueError, match="was closed; got a message for /cam/log"):
        log.tell("cam", "x", 0.0)
    for make, sentence in [
        (lambda: McapLog(path), "is there already; got it to write to"),
        (lambda: McapLog(tmp_path / "no" / "run.mcap"), "cannot write"),
        (lambda: McapLog(tmp_path / "b.mcap", begin_unix_s=-1), "begin_unix_s is a Unix time"),
        (lambda: McapLog(tmp_path / "b.mcap", jpeg_quality=0), "jpeg_quality goes from 1 to 95; got 0"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            make()
    assert set(SCHEMAS) == {LOG, MARKS, PICTURE}


@pytest.mark.parametrize("name", ["uniform", "temporal_drop"])
def test_telling_changes_nothing(name: str) -> None:
    inner = COMPRESSORS[name]()
    told: list[Any] = []
    telling = TellingCompressor(inner=inner, tell=told.append)
    assert (telling.needs, telling.uses, telling.at_most) == (inner.needs, inner.uses, inner.at_most)
    plain, run = inner.start(), telling.start()
    for number in range(4):
        seen = sight(rand(number, 36, CHANNELS), (6, 6), float(number), change_T=rand(number + 9, 36).abs())
        wanted, got = plain.compress(seen), run.compress(seen)
        assert torch.equal(wanted.kept_T, got.kept_T) and torch.equal(wanted.x_TD, got.x_TD) and told[-1] is got
    assert len(told) == 4 and run.num_bytes == plain.num_bytes


def millpond(*words: object) -> Any:
    return CliRunner().invoke(export, ["mcap", *(str(word) for word in words)], catch_exceptions=True)


def test_a_source_is_exported_and_then_what_was_kept_of_it(tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(
        "max_new_tokens = 4\n[memory]\nrecent_frames = 4\n"
        "[narration]\nmax_new_tokens = 4\nmin_gap_s = 5\nmax_gap_s = 5\n"
    )
    out, kept = tmp_path / "run.mcap", tmp_path / "kept"
    done = millpond(
        out, CLIP, "--compress", "uniform", "--keep", 9, "--memory", kept, "--config", config,
        "--question", "What appeared first?", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output + str(done.exception)
    found = read(out)
    (name,) = {topic.split("/")[1] for topic in found}
    assert len(found[f"/{name}/pictures"]) == 10
    shown = [told["at_s"] for told in found[f"/{name}/pictures"]]
    assert shown == [float(number) for number in range(10)]
    marked = found[f"/{name}/kept"]  # of those that left the newest, which are whole
    assert marked and {told["at_s"] for told in marked} <= set(shown)
    assert all(told["texts"][0]["text"].startswith("9 of ") for told in marked)
    kinds = [told["name"] for told in found[f"/{name}/log"]]
    assert kinds.count("answer") == 1 and kinds[-1] == "answer"
    again = tmp_path / "again.mcap"
    done = millpond(again, "--memory", kept, "--config", config)
    assert done.exit_code == 0, done.output + str(done.exception)
    found = read(again)
    assert any(topic.endswith("/pictures") for topic in found) and any(topic.endswith("/log") for topic in found)
    refused = millpond(again, "--memory", kept)
    assert isinstance(refused.exception, ValueError) and "is there already" in str(refused.exception)
    refused = millpond(tmp_path / "c.mcap")
    assert isinstance(refused.exception, ValueError) and "neither a SOURCE nor --memory" in str(refused.exception)
    assert not (tmp_path / "c.mcap").exists()

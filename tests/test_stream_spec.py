"""What is known of a stream before it is opened, and recordings that play as cameras do."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from millpond.pipeline.paced import PacedSource
from millpond.pipeline.stream_spec import StreamSpec
from millpond.stream import RateSampler, SourceError, open_source

SHAPES = "synthetic://shapes?seed=1&duration_s=1&rate_hz=10&width=32&height=24"


def test_it_opens_what_it_names() -> None:
    with StreamSpec("door", SHAPES).open() as source:
        frames = list(source)
    assert len(frames) == 10 and {frame.stream_id for frame in frames} == {"door"}
    assert not StreamSpec("door", SHAPES).is_live and StreamSpec("door", "rtsp://cam/1").is_live


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"stream_id": " "}, "printable"),
        ({"stream_id": "a\nb"}, "printable"),
        ({"stream_id": "x" * 201}, "1 to 200"),
        ({"uri": ""}, "empty"),
        ({"uri": "gopher://x/y"}, "no source reads"),
        ({"question": "  "}, "needs words"),
        ({"memory": ""}, "directory or a redis"),
        ({"options": {"uri": "x"}}, "besides uri"),
    ],
)
def test_it_refuses_what_makes_no_sense(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        StreamSpec(**({"stream_id": "s", "uri": SHAPES} | given))


def test_it_shows_no_credentials() -> None:
    spec = StreamSpec("cam", "rtsp://me:S3CRET@host/1", memory="redis://me:S3CRET@host/0", options={"p": "S3CRET"})
    assert "S3CRET" not in repr(spec) + str(spec) and "cam" in repr(spec)
    with pytest.raises(SourceError) as refused:
        StreamSpec("cam", "gopher://me:S3CRET@host/1")
    assert "S3CRET" not in str(refused.value)


def test_it_means_the_same_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = StreamSpec("a", "clip.mp4", memory="kept").anywhere()
    assert (there.uri, there.memory) == (str(tmp_path / "clip.mp4"), str(tmp_path / "kept"))
    assert StreamSpec("a", "rtsp://h/1", memory="redis://h/0").anywhere() == StreamSpec(
        "a", "rtsp://h/1", memory="redis://h/0"
    )
    assert os.getcwd() == str(tmp_path)


def test_a_recording_that_plays_as_a_camera_keeps_time() -> None:
    with StreamSpec("s", SHAPES, as_live=True).open() as source:
        assert isinstance(source, PacedSource) and source.is_live
        began_s = time.time()
        frames = list(source.sampled(RateSampler(5)))
        lasted_s = time.time() - began_s
    assert [frame.pts_s for frame in frames] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    assert lasted_s >= 0.75  # the last of them is due 0.8 s after the first
    walls = [frame.wall_s - frames[0].wall_s for frame in frames]
    assert walls == pytest.approx([frame.pts_s for frame in frames], abs=1e-3)


def test_who_comes_late_gets_what_is_overdue_at_once() -> None:
    with StreamSpec("s", SHAPES, as_live=True).open() as source:
        frames = iter(source)
        next(frames)
        time.sleep(1.1)
        began_s = time.monotonic()
        assert len(list(frames)) == 9
        assert time.monotonic() - began_s < 0.9


def test_closing_ends_its_waits() -> None:
    source = StreamSpec("s", "synthetic://shapes?duration_s=3600&rate_hz=0.01", as_live=True).open()
    threading.Timer(0.2, source.close).start()
    began_s = time.monotonic()
    assert len(list(source)) == 1
    assert time.monotonic() - began_s < 10
    with pytest.raises(ValueError, match="closed"):
        list(source)


def test_a_live_source_is_not_paced_again() -> None:
    with pytest.raises(ValueError, match="keeps its own time"):
        PacedSource(PacedSource(open_source(SHAPES)))

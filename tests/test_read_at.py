"""Pictures at chosen times: seeking, decord and reading from the start all give the same."""

from __future__ import annotations

import importlib.util
import logging
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from millpond.stream import Frame, open_source, random_access
from millpond.stream.random_access import READERS
from millpond.stream.video_file import FileSource

from .clips import REAL_CLIPS, VIDEOS, cut, make_clip, number_of, scratch

needs_decord = pytest.mark.skipif(
    importlib.util.find_spec("decord") is None, reason="decord has no wheel for this platform"
)


def opened(path: Path) -> FileSource:
    source = open_source(path)
    assert isinstance(source, FileSource)
    return source


def shown_at(frames: list[Frame], time_s: float) -> Frame:
    """The contract, word for word: the largest pts <= t, or the first."""
    return max((f for f in frames if f.pts_s <= time_s), key=lambda f: f.pts_s, default=frames[0])


def times_in(length_s: float, num: int = 25) -> list[float]:
    return [*np.random.default_rng(0).uniform(0, length_s, num).tolist(), length_s, 0.0, length_s + 100]


def assert_equal(got: list[Frame], wanted: list[Frame], *, levels: int = 0) -> None:
    assert [(f.pts_s, f.index, f.stream_id) for f in got] == [(f.pts_s, f.index, f.stream_id) for f in wanted]
    for a, b in zip(got, wanted, strict=True):
        assert np.abs(a.rgb_HW3.astype(int) - b.rgb_HW3).max() <= levels


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
@pytest.mark.parametrize("name", REAL_CLIPS)
@pytest.mark.parametrize("reader", READERS)
def test_real_clips(name: str, reader: str) -> None:
    source = opened(VIDEOS / name)
    frames = list(source)
    times_s = times_in(source.duration_s or 0.0, 12)
    assert_equal(source.read_at(times_s, reader=reader), [shown_at(frames, t) for t in times_s], levels=2)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.mp4", {"num_b_frames": 3}),
        ("a.mkv", {"num_b_frames": 2}),
        ("a.ts", {"num_b_frames": 2, "key_every": 25}),
        ("a.avi", {"codec": "mpeg4"}),
        ("b.avi", {"num_b_frames": 2}),
        ("late.mp4", {"ticks": [51200 + 512 * n + 100 * (n % 3) for n in range(120)], "num_b_frames": 2}),
    ],
)
def test_every_container(tmp_path: Path, name: str, settings: dict[str, object], reader: str) -> None:
    source = opened(make_clip(tmp_path / name, 120, **settings))  # type: ignore[arg-type]
    frames = list(source)
    times_s = [*times_in(4.8), *(f.pts_s for f in frames[::7])]
    assert_equal(source.read_at(times_s, reader=reader), [shown_at(frames, t) for t in times_s], levels=2)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("harm", [lambda p: cut(p, 0.8), lambda p: scratch(p, 0.7, 0.72)], ids=["cut", "scratched"])
def test_damaged_files(tmp_path: Path, reader: str, harm) -> None:  # type: ignore[no-untyped-def]
    source = opened(harm(make_clip(tmp_path / "a.mp4", 100, options={"movflags": "faststart"})))
    frames = list(source)
    got = source.read_at([0.1, 0.6, 1.0], reader=reader)
    assert [number_of(f.rgb_HW3) for f in got] == [2, 15, 25]
    # Behind the damage: something that is shown no later than asked, as reading in order gives it.
    (late,) = source.read_at([3.9], reader=reader)
    assert late.pts_s == shown_at(frames, 3.9).pts_s


def test_av1_goes_to_pyav(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import av

    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this PyAV cannot write AV1")
    caplog.set_level(logging.INFO)
    source = opened(make_clip(tmp_path / "a.mp4", 40, codec="libsvtav1"))
    assert [number_of(f.rgb_HW3) for f in source.read_at([1.0, 0.0, 0.5], reader="decord")] == [25, 0, 12]
    assert "with PyAV instead of decord" in caplog.text


@needs_decord
def test_decord_is_really_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = opened(make_clip(tmp_path / "a.mp4", 60, num_b_frames=2))
    monkeypatch.setattr(random_access, "read_by_seeking", None)
    for reader, num_times in (("decord", 3), ("auto", 50)):
        got = source.read_at([n / 25 for n in range(num_times)], reader=reader)
        assert [number_of(f.rgb_HW3) for f in got] == list(range(num_times))
    assert "instead of decord" not in caplog.text


HANGS = "import time\nwhile True: time.sleep(1)\n"
DIES = "import os\nos._exit(11)\n"
BABBLES = "import sys\nsys.stdout.write('{}\\n' * 99)\n"
LIES = 'import sys\nsys.stdout.write(\'{"height": 99999, "width": 99999, "begin_s": 0}\\n\')\n'
STOPS = 'import sys\nsys.stdout.write(\'{"height": 96, "width": 160, "begin_s": 0}\\n12345\')\n'


@needs_decord
@pytest.mark.parametrize(
    "program", [HANGS, DIES, BABBLES, LIES, STOPS], ids=["hangs", "dies", "babbles", "lies", "stops"]
)
def test_a_worker_that_fails_costs_its_deadline_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, program: str
) -> None:
    caplog.set_level(logging.INFO)
    script = tmp_path / "worker.py"
    script.write_text(program)
    monkeypatch.setattr(random_access, "WORKER_COMMAND", (sys.executable, str(script)))
    source = opened(make_clip(tmp_path / "a.mp4", 40))
    began_s = time.monotonic()
    got = source.read_at([1.0, 0.2], reader="decord", deadline_s=1.0)
    assert time.monotonic() - began_s < 10
    assert [number_of(f.rgb_HW3) for f in got] == [25, 5]
    assert "with PyAV instead of decord" in caplog.text


def test_the_order_and_number_of_times_is_kept(tmp_path: Path) -> None:
    source = opened(make_clip(tmp_path / "a.mp4", 40))
    assert [number_of(f.rgb_HW3) for f in source.read_at([1.0, 0.2, 1.0, 0.21])] == [25, 5, 25, 5]
    assert source.read_at([]) == []


def test_wrong_times_and_readers(tmp_path: Path) -> None:
    source = opened(make_clip(tmp_path / "a.mp4", 10))
    with pytest.raises(ValueError, match=r"must be finite and not negative; got -1\.0 s"):
        source.read_at([-1.0])
    with pytest.raises(ValueError, match="no reader named 'opencv'; there are: auto, av, decord"):
        source.read_at([0.0], reader="opencv")
    source.close()
    with pytest.raises(ValueError, match="was closed"):
        source.read_at([0.0])


def test_a_source_closed_while_it_reads_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(make_clip(tmp_path / "clip.mp4"))
    to_frame = source.to_frame

    def close_then_convert(instant: object) -> Frame:
        source.close()
        return to_frame(instant)  # type: ignore[arg-type]

    monkeypatch.setattr(source, "to_frame", close_then_convert)
    with pytest.raises(ValueError, match=r"clip.mp4 was closed; open it again"):
        source.read_at([0.1, 0.5], reader="av")

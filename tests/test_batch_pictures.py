"""Pictures of a batch: stretches give what the whole gives, whichever reader reads them, and whatever happens to it."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.pipeline.batch.pictures import Pictures, Stretch
from millpond.stream import Span

from .clips import REAL_CLIPS, STEP, VIDEOS, make_clip, number_of, scratch

NUM_FRAMES = 100  # 4 s


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "a.mp4", NUM_FRAMES, num_b_frames=2)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that stand for a while, and then come close upon each other."""
    ticks = [STEP * n for n in range(30)] + [STEP * (100 + n) for n in range(30)] + [STEP * 200]
    return make_clip(tmp_path_factory.mktemp("clip") / "uneven.mp4", ticks=ticks)


def opened(path: Path, reader: str) -> Pictures:
    pictures = Pictures(str(path), stream_id="x")
    if reader == "av" and pictures._decord is not None:
        pictures._decord.close()
        pictures._decord = None
    assert pictures.reader == reader
    return pictures


def numbers(pictures: Pictures, span: Span, rate_hz: float) -> list[tuple[int, float]]:
    return [(number_of(frame.rgb_HW3), round(frame.pts_s, 6)) for frame in pictures.frames(span, rate_hz=rate_hz)]


@pytest.mark.parametrize("reader", ["decord", "av"])
def test_the_frame_on_the_screen_at_each_moment(clip: Path, reader: str) -> None:
    pictures = opened(clip, reader)
    try:
        assert numbers(pictures, Span(0, 4), 1.0) == [(0, 0.0), (25, 1.0), (50, 2.0), (75, 3.0)]
        assert numbers(pictures, Span(1, 2), 2.0) == [(25, 1.0), (37, 1.48)]
        assert numbers(pictures, Span(3, 4), 25.0) == [(n, n / 25) for n in range(75, 100)]
        assert numbers(pictures, Span(0, 1), 1.0) == [(0, 0.0)], "going back"
    finally:
        pictures.close()


@settings(max_examples=25)
@given(st.lists(st.integers(1, 8), unique=True, max_size=4), st.sampled_from([0.3, 1.0, 2.0, 3.7, 25.0]))
def test_stretches_give_what_the_whole_gives(uneven: Path, cuts: list[int], rate_hz: float) -> None:
    pictures = opened(uneven, "av")
    edges = [0, *sorted(cuts), 9]
    try:
        whole = numbers(pictures, Span(0, 9), rate_hz)
        parts = [numbers(pictures, Span(a, b), rate_hz) for a, b in pairwise(edges)]
    finally:
        pictures.close()
    # What is on the screen when a stretch begins is its first picture too.
    joined: list[int] = []
    for part, start_s in zip(parts, edges, strict=False):
        assert all(start_s <= at_s for _, at_s in part)
        joined += [number for number, _ in part if not joined or number != joined[-1]]
    assert joined == [number for number, _ in whole]


@pytest.mark.parametrize("span", [Span(0, 4), Span(2, 9)])
def test_readers_agree(uneven: Path, span: Span) -> None:
    by_decord, by_av = opened(uneven, "decord"), opened(uneven, "av")
    try:
        assert numbers(by_decord, span, 3.0) == numbers(by_av, span, 3.0)
    finally:
        by_decord.close()
        by_av.close()


def test_one_process_reads_all_stretches(clip: Path) -> None:
    pictures = opened(clip, "decord")
    try:
        numbers(pictures, Span(0, 1), 5.0)
        assert pictures._decord is not None and pictures._decord._process is not None
        pid = pictures._decord._process.pid
        numbers(pictures, Span(1, 4), 5.0)
        assert pictures._decord._process.pid == pid
    finally:
        pictures.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_stretch_that_is_left_early_does_not_spoil_the_next(clip: Path) -> None:
    pictures = opened(clip, "decord")
    try:
        frames: Iterator = pictures.frames(Span(0, 4), rate_hz=25.0)
        assert [number_of(next(frames).rgb_HW3) for _ in range(3)] == [0, 1, 2]
        frames.close()  # type: ignore[attr-defined]
        assert [n for n, _ in numbers(pictures, Span(2, 3), 2.0)] == [50, 62]
        assert pictures.reader == "decord"
    finally:
        pictures.close()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


@pytest.mark.parametrize("harm", [kill, freeze])
def test_decord_dies_or_hangs_in_the_middle(
    clip: Path, harm: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    pictures = Pictures(str(clip), stream_id="x", deadline_s=2.0)
    try:
        numbers(pictures, Span(0, 1), 1.0)
        assert pictures._decord is not None and pictures._decord._process is not None
        harm(pictures._decord._process.pid)
        with caplog.at_level(logging.INFO):
            assert [n for n, _ in numbers(pictures, Span(0, 4), 25.0)] == list(range(NUM_FRAMES))
        assert pictures.reader == "av" and caplog.text.count("instead of decord") == 1
    finally:
        pictures.close()


def test_slow_readers_are_not_late(clip: Path) -> None:
    pictures = Pictures(str(clip), stream_id="x", deadline_s=0.5)
    try:
        seen = []
        for frame in pictures.frames(Span(0, 4), rate_hz=1.0):
            seen.append(number_of(frame.rgb_HW3))
            time.sleep(0.4)
        assert seen == [0, 25, 50, 75] and pictures.reader == "decord"
    finally:
        pictures.close()


def test_damage_costs_itself(tmp_path: Path) -> None:
    bad = scratch(make_clip(tmp_path / "a.mkv", NUM_FRAMES), 0.45, 0.5)
    pictures = Pictures(str(bad), stream_id="x")
    try:
        seen = [at_s for _, at_s in numbers(pictures, Span(0, 4), 5.0)]
        assert len(seen) >= 10 and seen == sorted(seen)
        assert [n for n, _ in numbers(pictures, Span(0, 1), 5.0)] == [0, 5, 10, 15, 20]
    finally:
        pictures.close()


def test_a_file_without_times_is_read_in_order(tmp_path: Path) -> None:
    raw = make_clip(tmp_path / "raw.avi", 50, num_b_frames=2)
    pictures = opened(raw, "in order")
    try:
        assert pictures.is_whole
        assert len(numbers(pictures, Span(0, 0), 5.0)) == 10, "all of it, whatever length it was said to have"
    finally:
        pictures.close()


def test_a_stretch_is_a_recording(clip: Path) -> None:
    pictures = opened(clip, "decord")
    try:
        stretch = Stretch(pictures, Span(1, 3), rate_hz=2.0)
        for _ in range(2):
            assert [number_of(frame.rgb_HW3) for frame in stretch] == [25, 37, 50, 62]
        stretch.close()
        with pytest.raises(ValueError, match="was closed"):
            iter(stretch)
    finally:
        pictures.close()


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
@pytest.mark.parametrize("name", REAL_CLIPS)
def test_clips_from_the_world(name: str) -> None:
    pictures = Pictures(str(VIDEOS / name), stream_id=name)
    try:
        whole = [frame.pts_s for frame in pictures.frames(Span(0, 8), rate_hz=1.0)]
        assert len(whole) >= 8
        if not pictures.is_whole:
            parts = [f.pts_s for start in (0, 4) for f in pictures.frames(Span(start, start + 4), rate_hz=1.0)]
            assert parts == [*whole[:4], max(whole[4], 4.0), *whole[5:]]
    finally:
        pictures.close()

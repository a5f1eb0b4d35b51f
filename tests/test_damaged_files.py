"""Files that are cut, scratched, empty, hostile or no video at all: what decodes, or one clear sentence."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.stream import SourceError, open_source

from .clips import VIDEOS, cut, make_clip, number_of, scratch

FAST_START = {"movflags": "faststart"}


@pytest.mark.parametrize(
    ("name", "clip_settings"),
    [
        ("a.mp4", {"options": FAST_START, "num_b_frames": 2}),
        ("a.mkv", {"num_b_frames": 2}),
        ("a.ts", {"num_b_frames": 2}),
        ("a.avi", {"codec": "mpeg4"}),
        ("b.avi", {"codec": "msmpeg4"}),
    ],
)
def test_a_cut_file_gives_what_decodes_and_ends(
    tmp_path: Path, name: str, clip_settings: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    clip = cut(make_clip(tmp_path / name, 150, **clip_settings), 0.8)  # type: ignore[arg-type]
    with open_source(clip) as source:
        frames = list(source)
    assert 60 < len(frames) < 150
    times_s = [frame.pts_s for frame in frames]
    assert times_s == sorted(times_s)
    # Those that came are in their places; the picture that was cut in two may be anything.
    wrong = [f for f in frames if number_of(f.rgb_HW3) != round(f.pts_s * 25)]
    assert len(wrong) <= 1
    if not name.endswith(".ts"):  # which promises nothing
        assert "is cut off" in caplog.text or source.stats.num_damaged
    assert all(record.levelno == logging.WARNING for record in caplog.records)


@pytest.mark.parametrize(
    ("name", "clip_settings"),
    [
        ("a.mp4", {"num_b_frames": 2}),
        ("a.ts", {}),
        ("a.avi", {"codec": "mpeg4"}),
        ("b.avi", {"codec": "msmpeg4"}),
    ],
)
def test_a_scratch_costs_itself_and_not_what_follows(
    tmp_path: Path, name: str, clip_settings: dict[str, object]
) -> None:
    clip = scratch(make_clip(tmp_path / name, 150, **clip_settings), 0.4, 0.43)  # type: ignore[arg-type]
    with open_source(clip) as source:
        frames = list(source)
    times_s = [frame.pts_s for frame in frames]
    assert times_s == sorted(times_s)
    # AVI has no times: it counts, and what is lost is not counted.
    late = 0 if not name.endswith(".avi") else 150 - len(frames)
    right = [f for f in frames if number_of(f.rgb_HW3) - round(f.pts_s * 25) in (0, late)]
    assert len(right) > 110
    assert any(f.pts_s > 5.5 for f in right), "it goes on behind the scratch"
    assert source.stats.num_damaged or len(frames) < 150


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
@pytest.mark.parametrize(("name", "least"), [("cup.mp4", 100), ("vtest.avi", 400), ("Megamind.avi", 100)])
def test_real_clips_scratched(tmp_path: Path, name: str, least: int) -> None:
    copy = tmp_path / name
    copy.write_bytes((VIDEOS / name).read_bytes())
    with open_source(copy) as source:
        num_whole = sum(1 for _ in source.instants())  # type: ignore[attr-defined]
    with open_source(scratch(copy, 0.3, 0.31)) as source:
        times_s = [instant.pts_s for instant in source.instants()]  # type: ignore[attr-defined]
    assert least < len(times_s) and times_s == sorted(times_s)
    assert source.stats.num_damaged or len(times_s) < num_whole


def test_an_mp4_cut_before_its_index(tmp_path: Path) -> None:
    clip = cut(make_clip(tmp_path / "a.mp4", 50), 0.5)
    with pytest.raises(SourceError, match=r"is an MP4 or MOV that is cut off or damaged: its index cannot be read"):
        open_source(clip)


def test_a_file_with_an_index_and_no_pictures(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 50, options=FAST_START)
    data = clip.read_bytes()
    clip.write_bytes(data[: data.index(b"mdat") + 8])
    with open_source(clip) as source, pytest.raises(SourceError, match="no picture in it can be decoded"):
        list(source)


def text(path: Path) -> None:
    path.write_text("Dear diary, this is no video.\n" * 100)


def script(path: Path) -> None:
    path.write_text("ffconcat version 1.0\nfile /etc/passwd\n")


def playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXTINF:8,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")


def subtitles(path: Path) -> None:
    path.write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n\n" * 9)


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(50_000))


def zeros(path: Path) -> None:
    path.write_bytes(bytes(50_000))


@pytest.mark.parametrize("make", [text, script, playlist, subtitles, noise, zeros], ids=lambda make: make.__name__)
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".txt"])
def test_what_is_no_video(tmp_path: Path, make, suffix: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / f"a{suffix}"
    make(path)
    with pytest.raises(SourceError, match=r"is not a video that can be read; wanted MP4, MOV, ") as caught:
        open_source(path)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(SourceError, match=r"a.mp4 is empty \(0 bytes\)"):
        open_source(tmp_path / "a.mp4")


def test_a_folder_where_a_file_is_wanted(tmp_path: Path) -> None:
    from millpond.stream.video_file import FileSource

    with pytest.raises(SourceError, match="is a folder; give one video file"):
        FileSource(tmp_path)


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.avi", 5, codec="mpeg4")
    clip.write_bytes(clip.read_bytes().replace(b"FMP4", b"ZZQX"))
    with pytest.raises(SourceError, match="holds video in a codec that this FFmpeg cannot decode"):
        open_source(clip)


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    """A codec that takes the header's word for its size: nothing is allocated, one sentence is told."""
    clip = make_clip(tmp_path / "a.avi", 5, codec="msmpeg4")
    data = bytearray(clip.read_bytes())
    struct.pack_into("<II", data, data.index(b"strf") + 12, 60_000, 60_000)
    clip.write_bytes(data)
    with pytest.raises(SourceError, match=r"a.avi (says its pictures are|has a video stream but no picture)"):
        list(open_source(clip))


def test_an_mp4_whose_header_lies_about_the_size_plays_as_it_is(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 5)
    data = bytearray(clip.read_bytes())
    struct.pack_into(">HH", data, data.index(b"avc1", data.index(b"stsd")) + 28, 65_000, 65_000)
    clip.write_bytes(data)
    assert [(f.width, f.height) for f in open_source(clip)] == [(160, 96)] * 5


def test_a_track_without_pictures(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(SourceError, match=r"a.mkv (has a video stream but no picture|is cut off|is a video whose)"):
        list(open_source(tmp_path / "a.mkv"))


@settings(max_examples=40)
@given(begin=st.floats(0, 0.98), length=st.floats(0.001, 0.2), seed=st.integers(0, 99), keep=st.floats(0.3, 1))
def test_whatever_happens_to_a_file_it_plays_or_says_why(
    tmp_path_factory: pytest.TempPathFactory, begin: float, length: float, seed: int, keep: float
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    name = ("a.mp4", "a.ts", "a.avi", "a.mkv")[seed % 4]
    codec = {"codec": "mpeg4"} if name == "a.avi" else {"num_b_frames": 2}
    clip = cut(scratch(make_clip(folder / name, 30, **codec), begin, min(1, begin + length), seed), keep)
    try:
        times_s = [frame.pts_s for frame in open_source(clip)]
    except SourceError as error:
        assert str(clip) in str(error) and "\n" not in str(error)
    else:
        assert times_s and times_s == sorted(times_s)

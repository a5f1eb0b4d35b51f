"""FileSource on whole files: exact times, order, rotation, sizes."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from millpond.stream import RateSampler, Source, SourceError, open_source

from .clips import H264, REAL_CLIPS, STEP, TIME_BASE, VIDEOS, make_clip, make_sound, number_of

has_real_clips = pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")


def numbers(source: Source) -> list[int]:
    return [number_of(frame.rgb_HW3) for frame in source]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("plain.mp4", {}),
        ("b.mp4", {"num_b_frames": 3}),
        ("b.mkv", {"num_b_frames": 2}),
        ("b.ts", {"num_b_frames": 2}),
        ("b.mov", {"codec": "mpeg4", "num_b_frames": 2}),
        ("plain.avi", {"codec": "mpeg4"}),
        ("old.avi", {"codec": "msmpeg4"}),
        # AVI keeps no presentation times: B-pictures come out with those of decoding.
        ("b4.avi", {"codec": "mpeg4", "num_b_frames": 2}),
        ("b264.avi", {"num_b_frames": 2}),
        ("sound.mp4", {"with_sound": True}),
        ("pieces.mp4", {"options": {"movflags": "frag_keyframe+empty_moov"}}),
    ],
)
def test_every_picture_comes_once_in_order_at_its_time(tmp_path: Path, name: str, settings: dict[str, object]) -> None:
    clip = make_clip(tmp_path / name, 40, **settings)  # type: ignore[arg-type]
    with open_source(clip) as source:
        frames = list(source)
        assert source.duration_s == pytest.approx(1.6, abs=0.02)
    assert [number_of(frame.rgb_HW3) for frame in frames] == list(range(40))
    assert [frame.pts_s for frame in frames] == [number / 25 for number in range(40)]
    assert source.stats.num_frames == 40 and source.stats.num_retimed == source.stats.num_damaged == 0


def test_uneven_times_are_exact(tmp_path: Path) -> None:
    gaps = np.random.default_rng(1).integers(100, 4000, 60)
    ticks = [0, *np.cumsum(gaps).tolist()]
    with open_source(make_clip(tmp_path / "vfr.mp4", ticks=ticks, num_b_frames=2)) as source:
        assert [frame.pts_s for frame in source] == [float(tick * TIME_BASE) for tick in ticks]


@pytest.mark.parametrize("suffix", [".mp4", ".ts", ".mkv"])
def test_time_begins_with_the_stream(tmp_path: Path, suffix: str) -> None:
    ticks = [(100 + number) * STEP for number in range(20)]
    with open_source(make_clip(tmp_path / f"late{suffix}", ticks=ticks)) as source:
        assert [frame.pts_s for frame in source] == pytest.approx([number / 25 for number in range(20)], abs=1e-9)


@has_real_clips
@pytest.mark.parametrize(("name", "num_frames"), [*zip(REAL_CLIPS, (270, 455, 217, 68, 795), strict=True)])
def test_the_real_clips(name: str, num_frames: int) -> None:
    with open_source(VIDEOS / name) as source:
        times_s = [instant.pts_s for instant in source.instants()]  # type: ignore[attr-defined]
        assert source.duration_s is not None and 0 <= source.duration_s - times_s[-1] < 0.1
    assert len(times_s) == num_frames and times_s[0] == 0.0
    assert all(a < b for a, b in pairwise(times_s)), "not one time is repeated or out of order"
    assert source.stats.num_damaged == source.stats.num_retimed == 0


@has_real_clips
def test_pictures_are_those_of_pyav_and_times_too() -> None:
    with open_source(VIDEOS / "cup.mp4") as source, av.open(str(VIDEOS / "cup.mp4")) as container:
        for ours, theirs in zip(source.sampled(RateSampler(1000.0)), container.decode(video=0), strict=True):
            assert ours.pts_s == pytest.approx(theirs.time, abs=1e-12)
            if ours.index % 40 == 0:
                assert np.array_equal(ours.rgb_HW3, theirs.to_ndarray(format="rgb24"))


@has_real_clips
def test_a_cameras_mp4_without_presentation_times_comes_in_order() -> None:
    """box.mp4 has B-pictures and only decoding times: neighbours must be more alike than strangers."""
    with open_source(VIDEOS / "box.mp4") as source:
        times_s = [frame.pts_s for frame, _ in zip(source, range(100), strict=False)]
    assert [round(b - a, 3) for a, b in pairwise(times_s)] == pytest.approx([1 / 30] * 99, abs=0.002)


def test_a_turned_phone_gives_upright_pictures(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "turned.mp4", 5)
    data = bytearray(clip.read_bytes())
    track = data.index(b"tkhd")
    # The display matrix (16.16 fixed point) of a quarter turn clockwise, the way phones write it.
    one = 0x10000
    struct.pack_into(">9i", data, track + 4 + 40, 0, one, 0, -one, 0, 0, 0, 0, 0x40000000)
    clip.write_bytes(data)
    with open_source(clip) as source:
        frame = next(iter(source))
        (at_zero,) = source.read_at([0.0])  # type: ignore[attr-defined]
    assert (frame.width, frame.height) == (96, 160)
    assert number_of(np.rot90(frame.rgb_HW3)) == 0
    assert np.array_equal(at_zero.rgb_HW3, frame.rgb_HW3)


def test_a_picture_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "large.mp4", 3)
    with pytest.raises(SourceError, match=r"large.mp4 says its pictures are 160x96, more than max_pixels=1000"):
        open_source(clip, max_pixels=1000)


def test_a_stream_that_changes_its_size_goes_on(tmp_path: Path) -> None:
    small, large = tmp_path / "small.ts", tmp_path / "large.ts"
    make_clip(small, 25)
    with av.open(str(large), "w") as container:
        stream = container.add_stream(H264, rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 192, "yuv420p"
        for _ in range(25):
            container.mux(stream.encode(av.VideoFrame(320, 192, "yuv420p")))
        container.mux(stream.encode(None))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with open_source(joined) as source:
        frames = list(source)
    assert {(f.width, f.height) for f in frames} == {(160, 96), (320, 192)}
    times_s = [frame.pts_s for frame in frames]
    # The second part's clock starts again; time does not.
    assert times_s == sorted(times_s) and len(frames) >= 48 and times_s[-1] == pytest.approx(1.96, abs=0.09)


def test_sound_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"voice.m4a has no video in it, only audio"):
        open_source(make_sound(tmp_path / "voice.m4a"))


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    song = tmp_path / "song.mp4"
    with av.open(str(song), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 16000, 0
        picture = av.VideoFrame(64, 64, "yuvj420p")
        picture.pts = 0
        packets = [*cover.encode(picture), *cover.encode(None), *sound.encode(silence), *sound.encode(None)]
        container.mux(packets)
    with pytest.raises(SourceError, match="has no video in it, only audio"):
        open_source(song)

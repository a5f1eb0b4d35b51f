"""Motion as the codec tells it: where it is, that none is lost on the way, and that it only makes a change map look
twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.stream import ChangeRule, EveryFrame, Frame, MotionField, RateSampler, StrideSampler, open_source
from millpond.stream.motion import MotionGatherer

from .clips import H264, VIDEOS

# Shapes: H rows and W columns of pixels, blocks or patches, 3 colours.

HEIGHT, WIDTH, SQUARE, STEP = 104, 160, 32, 4  # a last row of blocks that is half outside the picture


def moving_square(number: int) -> np.ndarray:
    """A grained square that goes right by STEP pixels in each picture, on a grained ground that stands still."""
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 120, (HEIGHT, WIDTH, 3), np.uint8)
    square = rng.integers(140, 250, (SQUARE, SQUARE, 3), np.uint8)
    ground[32 : 32 + SQUARE, STEP * number : STEP * number + SQUARE] = square
    return ground


def make(path: Path, codec: str, num_frames: int = 20, **options: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"g": "100", "bf": "0", **options})
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 2_000_000
        for number in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moving_square(number), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def field(displacement_HW: Any, unknown_HW: Any = None, size: tuple[int, int] | None = None) -> MotionField:
    displacement_HW = np.asarray(displacement_HW, np.float32)
    rows, columns = displacement_HW.shape
    height, width = size or (rows * 16, columns * 16)
    unknown_HW = np.zeros((rows, columns), bool) if unknown_HW is None else np.asarray(unknown_HW)
    edges = [np.minimum(np.arange(n + 1) * 16, end) for n, end in ((rows, height), (columns, width))]
    return MotionField(displacement_HW, unknown_HW, *edges)


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video", H264])
def test_what_moved_and_by_how_much(tmp_path: Path, codec: str) -> None:
    # With more pictures to refer to, a vector may reach back over several.
    with open_source(make(tmp_path / "a.mkv", codec, refs="1"), motion_vectors=True) as source:
        frames = list(source)
    assert frames[0].motion is None or frames[0].motion.is_unknown_HW.all()  # a picture that is coded as a whole
    told = []
    for number, frame in enumerate(frames[1:], 1):
        motion = frame.motion
        assert motion is not None and (motion.height, motion.width) == (HEIGHT, WIDTH)
        assert motion.displacement_HW.shape == (7, 10) and motion.num_pictures == 1
        inside = np.s_[2:4, (STEP * number + 15) // 16 : (STEP * number + SQUARE) // 16]
        told.extend(motion.displacement_HW[inside][~motion.is_unknown_HW[inside]])
        assert (motion.displacement_HW[2:4, STEP * number // 16 + 5 :] < 1).all()
    assert len(told) > 40
    assert np.mean(np.abs(np.array(told) - STEP) < 0.5) > 0.9


def test_the_motion_of_pictures_left_out_is_not_lost(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mkv", "mpeg4")
    with open_source(path, motion_vectors=True) as source:
        every = list(source)
        few = list(source.sampled(StrideSampler(5)))
    assert [frame.motion.num_pictures for frame in few[1:] if frame.motion] == [5, 5, 5]
    for number, frame in enumerate(few[1:], 1):
        between = [f.motion for f in every[5 * number - 4 : 5 * number + 1]]
        assert frame.motion is not None and None not in between
        most = np.max([motion.displacement_HW for motion in between if motion], axis=0)
        assert np.array_equal(frame.motion.displacement_HW, most)


@pytest.mark.parametrize("codec", ["mpeg4", H264])
def test_the_frames_are_the_same_with_motion_and_without(tmp_path: Path, codec: str) -> None:
    path = make(tmp_path / "a.mkv", codec)
    for sampler in (EveryFrame(), RateSampler(2.0)):
        plain = list(open_source(path).sampled(sampler))
        with_motion = list(open_source(path, motion_vectors=True).sampled(sampler))
        assert all(frame.motion is None for frame in plain)
        assert [f.pts_s for f in plain] == [f.pts_s for f in with_motion]
        assert all(np.array_equal(a.rgb_HW3, b.rgb_HW3) for a, b in zip(plain, with_motion, strict=True))


def test_a_codec_without_vectors_gives_none(tmp_path: Path) -> None:
    with open_source(make(tmp_path / "a.avi", "mjpeg"), motion_vectors=True) as source:
        assert [frame.motion for frame in source] == [None] * 20


def test_a_picture_coded_as_a_whole_leaves_all_unknown(tmp_path: Path) -> None:
    with open_source(
        make(tmp_path / "a.mkv", "mpeg4", g="5", sc_threshold="1000000000"), motion_vectors=True
    ) as source:
        unknown = [frame.motion is None or bool(frame.motion.is_unknown_HW.all()) for frame in source]
    assert unknown == [number % 5 == 0 for number in range(20)]


def test_zeros_of_b_pictures_are_not_taken_for_stillness(tmp_path: Path) -> None:
    """For B-pictures of MPEG-4 FFmpeg gives zero vectors whatever moved."""
    with open_source(make(tmp_path / "a.mkv", "mpeg4", bf="2"), motion_vectors=True) as source:
        every = list(source)
        few = list(source.sampled(StrideSampler(3)))
    told = [frame.motion for frame in every if frame.motion and not frame.motion.is_unknown_HW.all()]
    assert 4 <= len(told) < len(every) - 8
    assert all(motion.displacement_HW.max() >= STEP for motion in told)
    assert all(frame.motion.displacement_HW.max() >= STEP for frame in few[2:] if frame.motion)


class Vectors:
    def __init__(self, rows: list[tuple[int, ...]]) -> None:
        names = (
            "source",
            "w",
            "h",
            "src_x",
            "src_y",
            "dst_x",
            "dst_y",
            "flags",
            "motion_x",
            "motion_y",
            "motion_scale",
        )
        kinds = ("<i4", "u1", "u1", "<i2", "<i2", "<i2", "<i2", "<u8", "<i4", "<i4", "<u2")
        self._rows = np.array(rows, dtype=list(zip(names, kinds, strict=True)))

    def to_ndarray(self) -> np.ndarray:
        return self._rows


class Picture:
    """What a gatherer looks at of a decoded picture."""

    def __init__(self, size: tuple[int, int], vectors: Vectors | None, rotation: int = 0) -> None:
        self.height, self.width = size
        self.rotation = rotation
        self.pict_type = 2
        self.side_data = {} if vectors is None else {"MOTION_VECTORS": vectors}


def gathered(*pictures: Picture) -> MotionField | None:
    gatherer = MotionGatherer()
    gatherer.add(Picture((pictures[0].height, pictures[0].width), Vectors([])))
    gatherer.take()
    for picture in pictures:
        gatherer.add(picture)  # type: ignore[arg-type]
    return gatherer.take()


int16, int32 = st.integers(-(2**15), 2**15 - 1), st.integers(-(2**31), 2**31 - 1)


@given(
    rows=st.lists(
        st.tuples(int32, st.integers(0, 255), st.integers(0, 255), int16, int16, int16, int16)
        .flatmap(lambda a: st.tuples(st.just(a), st.integers(0, 2**64 - 1), int32, int32, st.integers(0, 2**16 - 1)))
        .map(lambda parts: (*parts[0], *parts[1:])),
        max_size=20,
    ),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    rotation=st.sampled_from([0, 90, 180, -90]),
    grid_hw=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
@settings(max_examples=80)
def test_vectors_may_say_anything(
    rows: list[tuple[int, ...]], size: tuple[int, int], rotation: int, grid_hw: tuple[int, int]
) -> None:
    motion = gathered(Picture(size, Vectors(rows), rotation))
    assert motion is not None
    assert (motion.height, motion.width) == (size[::-1] if rotation in (90, -90) else size)
    assert 0 <= motion.displacement_HW.min() <= motion.displacement_HW.max() <= sum(size)
    on_grid = motion.on_grid(grid_hw)
    assert on_grid.displacement_HW.shape == on_grid.is_unknown_HW.shape == grid_hw
    assert on_grid.displacement_HW.max() == motion.displacement_HW.max()
    assert on_grid.is_unknown_HW.any() == motion.is_unknown_HW.any()


def test_a_turned_picture_has_its_motion_turned() -> None:
    # 20 x 40 pixels, a block of which the top right corner's moved; turned counter-clockwise that is the top left.
    motion = gathered(Picture((20, 40), Vectors([(-1, 16, 16, 0, 0, 36, 8, 0, 12, 16, 4)]), rotation=90))
    assert motion is not None
    assert motion.displacement_HW.tolist() == [[5, 0], [0, 0], [0, 0]]
    assert motion.row_edges.tolist() == [0, 8, 24, 40] and motion.column_edges.tolist() == [0, 16, 20]
    assert motion.is_unknown_HW.tolist() == [[False, True], [True, True], [True, True]]


def test_after_damage_nothing_is_believed_for_a_while() -> None:
    still = [(-1, 16, 16, 8, 8, 8, 8, 0, 0, 0, 4)]
    gatherer = MotionGatherer()
    unknown = []
    for number in range(50):
        if number == 5:
            gatherer.add_damage()
        gatherer.add(Picture((16, 16), Vectors(still)))  # type: ignore[arg-type]
        motion = gatherer.take()
        unknown.append(motion is None or bool(motion.is_unknown_HW.any()))
    assert unknown[1:5] == [False] * 4 and all(unknown[5:20]) and not any(unknown[40:])


def test_a_patch_takes_the_most_of_the_blocks_that_it_touches() -> None:
    motion = field([[0, 1, 2], [3, 4, 5]], [[False, False, True], [False] * 3])
    assert motion.on_grid((1, 1)).displacement_HW.tolist() == [[5]]
    assert motion.on_grid((2, 3)).displacement_HW.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert motion.on_grid((2, 2)).displacement_HW.tolist() == [[1, 2], [4, 5]]
    assert motion.on_grid((4, 6)).displacement_HW.tolist()[1] == [0, 0, 1, 1, 2, 2]
    assert motion.on_grid((1, 3)).is_unknown_HW.tolist() == [[False, False, True]]
    assert motion.on_grid((1, 2), covered_hw=(0.5, 2 / 3)).displacement_HW.tolist() == [[0, 1]]


def test_fields_that_are_none_are_refused() -> None:
    good = field([[0.0, 1.0]])
    assert len(repr(good)) < 120
    with pytest.raises(ValueError, match="one value for each block"):
        MotionField(good.displacement_HW, good.is_unknown_HW[:, :1], good.row_edges, good.column_edges)
    with pytest.raises(ValueError, match="float32 pixels and bools; got float64"):
        MotionField(good.displacement_HW.astype(float), good.is_unknown_HW, good.row_edges, good.column_edges)
    with pytest.raises(ValueError, match="finite pixels, 0 or more"):
        field([[-1.0, 0.0]])
    with pytest.raises(ValueError, match="finite pixels, 0 or more"):
        field([[float("nan"), 0.0]])
    with pytest.raises(ValueError, match="edges of blocks rise from 0"):
        MotionField(good.displacement_HW, good.is_unknown_HW, good.row_edges, good.column_edges[::-1])
    with pytest.raises(ValueError, match="num_pictures=0"):
        MotionField(good.displacement_HW, good.is_unknown_HW, good.row_edges, good.column_edges, 0)
    with pytest.raises(ValueError, match="a grid needs patches"):
        good.on_grid((0, 3))
    with pytest.raises(ValueError, match="read-only"):
        good.displacement_HW[0, 0] = 1
    with pytest.raises(ValueError, match=r"a frame of 8x8 pixels needs motion of as many; got 32x16"):
        Frame(np.zeros((8, 8, 3), np.uint8), 0.0, motion=good)


def test_a_patch_that_moved_has_changed_at_half_the_threshold_until_it_is_encoded() -> None:
    base = np.full((64, 64, 3), 100, np.uint8)
    faint = base.copy()
    faint[:32] += 3  # above half the threshold of 5, below the whole; half the picture, so that it is no flicker
    faint[:, :32] += 1  # below the half
    motion = field([[9, 9, 0, 9]] + [[9, 0, 0, 0]] * 3)
    rule = ChangeRule(flicker_levels=0)

    def changed(pictures: list[tuple[np.ndarray, MotionField | None]], rule: ChangeRule = rule) -> list[list[int]]:
        detector = rule.start((4, 4))
        for picture, of_it in pictures:
            seen = detector.compare([picture], [of_it])
            if picture is base:
                detector.encoded()
        return np.argwhere(seen.changed_HW).tolist()

    # In columns 0 and 1 the picture is 4 brighter above and 1 below; in 2 and 3, 3 above and none below.
    moved = [[0, 0], [0, 1], [0, 3], [1, 0]]
    assert changed([(base, None), (faint, None)]) == []
    assert changed([(base, None), (faint, motion)]) == moved
    assert changed([(base, None), (faint, motion), (faint, None)]) == moved  # remembered while it is not encoded
    assert changed([(base, None), (base, motion), (faint, None)]) == []  # and forgotten once it is
    assert changed([(base, None), (faint, motion)], ChangeRule(flicker_levels=0, moved_px=float("inf"))) == []
    with pytest.raises(ValueError, match="motion must be of pictures of"):
        changed([(base, None), (faint, field([[0.0]]))])


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
@pytest.mark.parametrize("name", ["vtest.avi", "box.mp4"])
def test_on_real_clips_nearly_all_that_changed_is_where_the_codec_does_not_say_still(name: str) -> None:
    detector = ChangeRule().start((27, 27))
    num_changed = num_seen = 0
    with open_source(VIDEOS / name, motion_vectors=True) as source:
        for frame, _ in zip(source.sampled(RateSampler(2.0)), range(40), strict=False):
            seen = detector.compare([frame.rgb_HW3])
            detector.encoded()
            if frame.motion is None:
                continue
            motion = frame.motion.on_grid((27, 27))
            num_changed += int(seen.changed_HW.sum())
            num_seen += int((seen.changed_HW & (motion.is_unknown_HW | (motion.displacement_HW > 1))).sum())
    assert num_seen > 0.95 * num_changed > 0

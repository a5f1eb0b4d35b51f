"""MCAP recordings as sources: pictures of every kind, the joints' rows of their times, topics, and what is refused."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.stream import RateSampler, SourceError, open_source
from millpond.stream.robot_log import RobotFrame

from .clips import HEIGHT, RATE_HZ, WIDTH, number_of, numbered_picture
from .robot_logs import (
    CAMERA,
    COMMANDS,
    JOINTS,
    START_NS,
    STATE_NAMES,
    LogWriter,
    coded,
    compressed,
    joints,
    numbers,
    picture_ns,
    raw,
    write_log,
)

for package in ("mcap", "mcap_ros2", "zstandard", "lz4"):
    pytest.importorskip(package)

JOINT, ARRAY = "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray"
COMPRESSED, IMAGE = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("logs") / "run.mcap")


def frames_of(uri: object, **options: object) -> list[RobotFrame]:
    with open_source(uri, **options) as source:  # type: ignore[arg-type]
        return list(source)  # type: ignore[arg-type]


@pytest.mark.parametrize(("chunk_bytes", "compression"), [(6000, "ZSTD"), (6000, "LZ4"), (1, "NONE"), (0, "NONE")])
def test_pictures_come_with_the_rows_of_their_times(tmp_path: Path, chunk_bytes: int, compression: str) -> None:
    path = write_log(tmp_path / "run.mcap", chunk_bytes=chunk_bytes, compression=compression)
    with open_source(f"mcap://{path}?topic={CAMERA}&action={COMMANDS}") as source:
        assert source.stream_id == f"run{CAMERA}"
        frames = list(source)
        assert source.stats.num_gaps == source.stats.num_damaged == 0
    assert [number_of(frame.rgb_HW3) for frame in frames] == list(range(30))
    assert [frame.pts_s for frame in frames] == pytest.approx([n / RATE_HZ for n in range(30)])
    assert frames[7].wall_s == pytest.approx(picture_ns(7) / 1e9) and frames[7].gap_s == 0
    assert frames[0].state is None  # nothing was told yet
    for number, frame in list(enumerate(frames))[1:]:
        assert frame.state is not None and frame.state.names == STATE_NAMES
        assert frame.state.values_D.tolist() == [number, -number]
        assert frame.state.age_s(frame.pts_s) == pytest.approx(0.005)
        # Told at the very time of the picture, it belongs to it; nothing later does, and nothing is interpolated.
        assert frame.action is not None and frame.action.values_D.tolist() == [10.0 * (number - number % 2)]
        assert frame.action.names == ("0",) and frame.action.pts_s <= frame.pts_s


def test_what_is_not_asked_for_is_left_out(run: Path) -> None:
    assert all(frame.state is None and frame.action is None for frame in frames_of(run, state="none"))
    with open_source(run) as source:
        assert (source.state_topic, source.action_topic) == (JOINTS, None)  # type: ignore[attr-defined]


def test_pictures_that_are_not_due_are_not_decoded(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from millpond.stream import mcap_messages

    decoded: list[int] = []
    decode = mcap_messages.decode_picture

    def counting(data: bytes, max_pixels: int) -> np.ndarray:
        decoded.append(len(data))
        return decode(data, max_pixels)

    monkeypatch.setattr(mcap_messages, "decode_picture", counting)
    with open_source(run) as source:
        due = list(source.sampled(RateSampler(5.0)))
    assert [frame.index for frame in due] == [0, 5, 10, 15, 20, 25] and len(decoded) == 6


CHANNELS = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0], "rgba8": [0, 1, 2, 0], "bgra8": [2, 1, 0, 0], "mono8": [0]}


@pytest.mark.parametrize("encoding", sorted(CHANNELS))
@pytest.mark.parametrize("padding", [0, 5])
def test_raw_pictures_to_the_last_bit(tmp_path: Path, encoding: str, padding: int) -> None:
    rgb_HW3 = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    rows = rgb_HW3[:, :, CHANNELS[encoding]].reshape(HEIGHT, -1)
    log = LogWriter(tmp_path / "raw.mcap")
    log.add("/cam", IMAGE, raw(rows, encoding, START_NS, padding), START_NS)
    (frame,) = frames_of(log.close())
    wanted = np.repeat(rgb_HW3[:, :, :1], 3, axis=2) if encoding == "mono8" else rgb_HW3
    assert np.array_equal(frame.rgb_HW3, wanted) and not frame.rgb_HW3.flags.writeable


def test_png_and_json_pictures(tmp_path: Path) -> None:
    picture = numbered_picture(77)
    log = LogWriter(tmp_path / "png.mcap")
    log.add("/cam", COMPRESSED, compressed(picture, START_NS, "PNG", "rgb8; png compressed bgr8"), START_NS)
    (frame,) = frames_of(log.close())
    assert np.array_equal(frame.rgb_HW3, picture)
    log = LogWriter(tmp_path / "json.mcap")
    log.describe("/cam", "foxglove.CompressedImage", "jsonschema", b"{}", "json")
    stamp = {"sec": START_NS // 10**9, "nsec": 500}
    told = {
        "timestamp": stamp,
        "frame_id": "",
        "format": "png",
        "data": base64.b64encode(coded(picture, "PNG")).decode(),
    }
    log.add_bytes("/cam", json.dumps(told).encode(), START_NS)
    (frame,) = frames_of(log.close())
    assert np.array_equal(frame.rgb_HW3, picture) and frame.wall_s == pytest.approx(START_NS / 1e9)


@pytest.mark.parametrize(
    ("told", "values", "names"),
    [
        (joints(START_NS, [1.5, float("nan")]), [1.5, float("nan")], STATE_NAMES),
        (joints(START_NS, [1.5], []), [1.5], ("0",)),
        (joints(START_NS, [], []), None, ()),  # nothing is told
        (joints(START_NS, [1.5], ["a", "b"]), None, ()),  # two names for one number
        (joints(START_NS, [0.0] * 5000, []), None, ()),  # no robot
    ],
)
def test_rows_of_joints(tmp_path: Path, told: object, values: list[float] | None, names: tuple[str, ...]) -> None:
    log = LogWriter(tmp_path / "run.mcap", chunk_bytes=10**6)
    log.add(JOINTS, JOINT, told, START_NS)
    log.add(CAMERA, COMPRESSED, compressed(numbered_picture(1), START_NS), START_NS)
    with open_source(log.close()) as source:
        (frame,) = source
    if values is None:
        # No older row stands in for what could not be read; the picture itself is whole.
        assert frame.state is None and frame.gap_s == 0 and source.stats.num_damaged == 1  # type: ignore[attr-defined]
    else:
        assert frame.gap_s == 0
        np.testing.assert_array_equal(frame.state.values_D, values)  # type: ignore[attr-defined]
        assert frame.state.names == names  # type: ignore[attr-defined]


def test_velocities_where_there_are_no_positions(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "run.mcap")
    told = joints(START_NS, [], ["a", "b"])
    told.velocity = [3.0, 4.0]
    log.add(JOINTS, JOINT, told, START_NS)
    log.add(CAMERA, COMPRESSED, compressed(numbered_picture(1), START_NS), START_NS)
    (frame,) = frames_of(log.close())
    assert frame.state is not None and frame.state.values_D.tolist() == [3.0, 4.0]


@settings(max_examples=20)
@given(order=st.permutations(range(12)), chunk_bytes=st.sampled_from([1, 4000, 20000]))
def test_order_is_that_of_time_whatever_the_files_is(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], chunk_bytes: int
) -> None:
    log = LogWriter(tmp_path_factory.mktemp("logs") / "run.mcap", chunk_bytes=chunk_bytes)
    for number in order:
        log_ns = picture_ns(number)
        log.add(CAMERA, COMPRESSED, compressed(numbered_picture(number), log_ns), log_ns)
        log.add(JOINTS, JOINT, joints(log_ns, [number, 0]), log_ns)
    frames = frames_of(log.close())
    assert [number_of(frame.rgb_HW3) for frame in frames] == list(range(12))
    assert [frame.state and frame.state.values_D[0] for frame in frames] == list(range(12))
    assert [frame.index for frame in frames] == list(range(12)) and frames[0].pts_s == 0


def test_two_cameras_of_one_file_share_a_clock(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "run.mcap")
    for number in range(4):
        for topic, late_ns in (("/left", 0), ("/right", 3_000_000)):
            log_ns = picture_ns(number) + late_ns
            log.add(topic, COMPRESSED, compressed(numbered_picture(number), log_ns), log_ns)
    path = log.close()
    left, right = frames_of(path, topic="/left"), frames_of(f"mcap://{path}?topic=/right")
    assert [r.pts_s - l.pts_s for l, r in zip(left, right, strict=True)] == pytest.approx([0.003] * 4)  # noqa: E741
    assert {left[0].stream_id, right[0].stream_id} == {"run/left", "run/right"}
    with pytest.raises(SourceError, match=r"has several cameras: /left, /right; choose one with topic="):
        open_source(path)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with topics of every sort that cannot be used."""
    log = LogWriter(tmp_path_factory.mktemp("logs") / "odd.mcap")
    log.add("/depth", IMAGE, raw(np.zeros((HEIGHT, 2 * WIDTH), np.uint8), "16UC1", START_NS), START_NS)
    deep = compressed(numbered_picture(1), START_NS, "PNG", "16UC1; compressedDepth png")
    log.add("/deep", COMPRESSED, deep, START_NS)
    log.describe("/proto", "foxglove.CompressedImage", "protobuf", b"", "protobuf")
    log.add_bytes("/proto", b"\x08\x01", START_NS)
    log.describe("/ros1", "sensor_msgs/msg/Image", "ros1msg", b"", "ros1")
    log.add_bytes("/ros1", b"\x08\x01", START_NS)
    log.describe("/idl", "sensor_msgs/msg/Image", "ros2idl", b"module a {};", "cdr")
    log.add_bytes("/idl", b"\0\1\0\0", START_NS)
    log.add("/arm", JOINT, joints(START_NS, [1, 2]), START_NS)
    log.add("/hand", JOINT, joints(START_NS, [1, 2]), START_NS)
    log.add("/mid", ARRAY, numbers([1]), START_NS)
    return log.close()


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("topic=/depth&state=none", "pictures in '16UC1', which cannot be shown as they are; wanted rgb8, bgr8"),
        ("topic=/deep&state=none", "is depth .*no picture; wanted JPEG or PNG"),
        ("topic=/proto&state=none", "written as 'protobuf'; of that kind only 'json' is read"),
        ("topic=/ros1&state=none", "written as 'ros1'; of that kind only 'cdr' is read"),
        ("topic=/idl&state=none", "is described in 'ros2idl'; wanted 'ros2msg'"),
        ("topic=/arm", "no camera topic '/arm'; its camera topics: /deep, /depth, /idl, /proto, /ros1"),
        ("topic=/depth", "several topics of joint states: /arm, /hand; choose one with state="),
        ("topic=/depth&state=/mud", "no topic '/mud' for state; there are: /arm, /hand, /mid"),
        ("camera=/depth", "no setting 'camera'; it has: topic"),
        ("topic=/a&topic=/b", "takes one topic; got '/a' and '/b'"),
    ],
)
def test_what_cannot_be_used_gets_one_sentence(odd: Path, query: str, sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence) as caught:
        frames_of(f"mcap://{odd}?{query}")
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.mcap").write_bytes(b"")
    (tmp_path / "words.mcap").write_bytes(b"not one" * 20)
    (tmp_path / "folder.mcap").mkdir()
    nothing = LogWriter(tmp_path / "nothing.mcap").close()
    log = LogWriter(tmp_path / "blind.mcap")
    log.add(JOINTS, JOINT, joints(START_NS, [1, 2]), START_NS)
    for path, sentence in [
        (tmp_path / "missing.mcap", "no file or folder at .*; check the path"),
        (tmp_path / "empty.mcap", r"is empty \(0 bytes\)"),
        (tmp_path / "words.mcap", "is no MCAP file"),
        (tmp_path / "folder.mcap", "is no regular file"),
        (nothing, "has no messages in it"),
        (log.close(), "has no camera topic; its topics: /joint_states"),
        ("mcap://", "names no place; write mcap://path"),
        ("nul\0.mcap", "is no path"),
    ]:
        with pytest.raises(SourceError, match=sentence):
            open_source(path)
    for options in ({"damage": "ignore"}, {"max_pixels": 0}):
        with pytest.raises(ValueError, match="; "):
            open_source(nothing, **options)


def test_the_uri_of_a_file_is_one_too(run: Path) -> None:
    assert len(frames_of(run.as_uri())) == 30


def test_without_the_extra_it_is_said_once(run: Path) -> None:
    code = f"import sys; sys.modules['mcap'] = None\nfrom millpond.stream import open_source\nopen_source({str(run)!r})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtra: robot logs need mcap; pip install 'millpond[robot]'" in told.stderr


@pytest.fixture(autouse=True)
def no_warnings_are_lost(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [record for record in caplog.records if record.levelname == "ERROR"]

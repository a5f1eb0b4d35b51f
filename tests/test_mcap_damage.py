"""Damaged and hostile MCAP files: an error that names the place, or a frame that is flagged; never silence."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.stream import SourceError, mcap_file, open_source
from millpond.stream.mcap_file import DamagedPiece, McapFile
from millpond.stream.robot_log import RobotFrame

from .clips import RATE_HZ, number_of, numbered_picture
from .robot_logs import (
    CAMERA,
    JOINTS,
    START_NS,
    LogWriter,
    chunk_places,
    coded,
    compressed,
    joints,
    picture_ns,
    spoil,
    write_log,
)

for package in ("mcap", "mcap_ros2", "zstandard", "lz4"):
    pytest.importorskip(package)

COMPRESSED = "sensor_msgs/msg/CompressedImage"
STEP_S = 1 / RATE_HZ


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("logs") / "run.mcap")


def read(path: Path, **options: object) -> tuple[list[RobotFrame], object]:
    with open_source(path, **options) as source:  # type: ignore[arg-type]
        return list(source), source  # type: ignore[arg-type]


def check_flags(frames: list[RobotFrame], num_frames: int = 30) -> list[int]:
    """Nothing is passed off as what it is not, and whatever is missing before a frame is in its gap."""
    found = [number_of(frame.rgb_HW3) for frame in frames]
    assert found == sorted(set(found)) and set(found) <= set(range(num_frames))
    before = -1
    for number, frame in zip(found, frames, strict=True):
        if number != before + 1:
            assert frame.gap_s >= (number - before - 1) * STEP_S - 1e-6, f"{number} after {before} without a flag"
        if frame.state is not None:
            assert frame.state.values_D[0] == number  # never an older row for one that is lost
        before = number
    return found


@pytest.mark.parametrize("chunk", [0, 2, -1])
def test_a_corrupt_chunk_costs_itself_and_is_flagged(run: Path, chunk: int, caplog: pytest.LogCaptureFixture) -> None:
    places = chunk_places(run)
    assert len(places) > 4
    offset, length = places[chunk]
    bad = spoil(run, offset + length // 2, offset + length // 2 + 20)
    frames, source = read(bad)
    found = check_flags(frames)
    lost = sorted(set(range(30)) - set(found))
    assert lost and lost == list(range(lost[0], lost[-1] + 1))
    assert source.stats.num_damaged == 1 and source.stats.num_gaps == 1  # type: ignore[attr-defined]
    assert source.stats.gap_s >= len(lost) * STEP_S - 0.02  # type: ignore[attr-defined]
    assert f"at byte {offset}" in caplog.text and "is damaged" in caplog.text
    flagged = [frame for frame in frames if frame.gap_s]
    assert len(flagged) == (0 if chunk == -1 else 1)
    with pytest.raises(SourceError, match=rf"chunk \d+ at byte {offset}, from \d\.\d+ to \d\.\d+ s, is damaged: .*gap"):
        read(bad, damage="error")


def test_a_gap_is_carried_to_the_next_frame_that_is_due(run: Path) -> None:
    from millpond.stream import RateSampler

    offset, length = chunk_places(run)[1]
    bad = spoil(run, offset + length // 2, offset + length // 2 + 20)
    with open_source(bad) as source:
        due = list(source.sampled(RateSampler(2.0)))
    assert sum(frame.gap_s for frame in due) == pytest.approx(source.stats.gap_s) and source.stats.gap_s > 0


@pytest.mark.parametrize("share", [0.35, 0.7, 0.97])
def test_a_recording_that_was_cut_off_gives_what_there_is_and_says_so(
    run: Path, share: float, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    data = run.read_bytes()
    short = tmp_path / "short.mcap"
    last = chunk_places(run)[-1]
    short.write_bytes(data[: int((last[0] + last[1]) * share)])
    frames, source = read(short)
    found = check_flags(frames)
    assert found == list(range(len(found))) and 0 < len(found) < 30
    assert source.stats.num_damaged == 1 and source.stats.num_gaps == 1  # type: ignore[attr-defined]
    assert "ends with damage" in caplog.text
    with pytest.raises(SourceError, match=r"longer than the file|was cut off"):
        read(short, damage="error")


def test_without_a_summary_all_is_found(run: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.mcap"
    offset, length = chunk_places(run)[-1]
    short.write_bytes(run.read_bytes()[: offset + length])
    assert len(read(short)[0]) == 30


def test_a_record_that_cannot_be_stepped_over_is_passed_with_the_summary(run: Path) -> None:
    offset, _ = chunk_places(run)[2]
    bad = spoil(run, offset, offset + 9)  # the record's own head
    frames, source = read(bad)
    found = check_flags(frames)
    assert 20 < len(found) < 30 and source.stats.num_gaps == 1  # type: ignore[attr-defined]


def test_a_picture_that_does_not_decode_is_flagged(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "run.mcap")
    for number in range(4):
        told = compressed(numbered_picture(number), picture_ns(number))
        told.data = told.data[:40] if number == 2 else told.data
        log.add(CAMERA, COMPRESSED, told, picture_ns(number))
    frames, source = read(log.close())
    assert check_flags(frames, 4) == [0, 1, 3]
    assert [frame.index for frame in frames] == [0, 1, 3]
    assert frames[-1].gap_s == pytest.approx(2 * STEP_S) and source.stats.num_damaged == 1  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match=r"a message of /cam/image/compressed at 0\.080 s: "):
        read(log.path, damage="error")


def test_nothing_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "run.mcap")
    log.add(CAMERA, COMPRESSED, compressed(numbered_picture(0), START_NS), START_NS)
    path = log.close()
    with pytest.raises(SourceError, match=r"no picture of .* can be read: .* at most 100 are decoded"):
        read(path, max_pixels=100)
    offset, length = chunk_places(path)[0]
    with pytest.raises(SourceError, match=r"no picture of .* can be read: chunk 0 at byte"):
        read(spoil(path, offset + length - 40, offset + length - 20))


def test_a_chunk_unpacks_to_what_its_head_says_and_no_further(tmp_path: Path) -> None:
    """A megabyte of zeros packs to some fifty bytes: whoever unpacks without a bound can be filled at will."""
    import lz4.frame
    import zstandard

    bomb = b"\0" * 2**20
    packed = {"zstd": zstandard.compress(bomb), "lz4": lz4.frame.compress(bomb)}
    for name, data in packed.items():
        head = struct.pack("<QQQI", START_NS, START_NS, 1000, 0) + struct.pack("<I", len(name)) + name.encode()
        body = head + struct.pack("<Q", len(data)) + data
        path = tmp_path / f"{name}.mcap"
        path.write_bytes(b"\x89MCAP0\r\n" + struct.pack("<BQ", 6, len(body)) + body)
        file = McapFile(path)
        with path.open("rb") as opened, pytest.raises(DamagedPiece, match="does not unpack to the 1000 bytes"):
            file.read(opened, file.pieces[0], {1})
        small = McapFile(path, max_chunk_bytes=900)
        with path.open("rb") as opened, pytest.raises(DamagedPiece, match="more than max_chunk_bytes=900"):
            small.read(opened, small.pieces[0], {1})


def test_chunks_that_all_overlap_are_held_up_to_a_bound(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "run.mcap", chunk_bytes=1, compression="NONE")
    size = len(compressed(numbered_picture(0), START_NS).data)
    for number in range(40):
        log.add(CAMERA, COMPRESSED, compressed(numbered_picture(number), START_NS), START_NS)
    path = log.close()
    with pytest.raises(SourceError, match=r"overlap in time so much that .* bytes wait"):
        read(path, max_chunk_bytes=size + 300)
    assert len(read(path)[0]) == 40


def test_small_messages_that_wait_are_counted_as_what_they_take(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "run.mcap", chunk_bytes=1, compression="NONE")
    log.add(CAMERA, COMPRESSED, compressed(numbered_picture(0), START_NS), START_NS)
    for number in range(200):
        log.add(JOINTS, "sensor_msgs/msg/JointState", joints(START_NS, [number, 0]), START_NS)
    path = log.close()
    with pytest.raises(SourceError, match=r"overlap in time so much that .* bytes wait"):
        read(path, max_chunk_bytes=2500)
    assert len(read(path)[0]) == 1


def test_descriptions_in_chunks_are_bounded_all_together(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each chunk may bring others, packed to next to nothing."""
    short = tmp_path / "short.mcap"
    offset, length = chunk_places(run)[-1]
    short.write_bytes(run.read_bytes()[: offset + length])  # no summary tells them
    file = McapFile(short)
    monkeypatch.setattr(mcap_file, "_MAX_DESCRIBED_BYTES", 100)
    with short.open("rb") as opened:
        with pytest.raises(DamagedPiece, match="schemas and channels take more than 100 bytes"):
            file.read(opened, file.pieces[0], ())
        assert not file.schemas and not file.channels
        monkeypatch.setattr(mcap_file, "_MAX_DESCRIBED_BYTES", 10_000)
        for _ in range(50):  # the same again is nothing more
            file.read(opened, file.pieces[0], ())
    assert file.schemas and file.channels


def test_a_description_with_an_array_of_messages_is_refused(tmp_path: Path) -> None:
    """Each byte of such a message would become an object of its own, some hundred times as large."""
    log = LogWriter(tmp_path / "run.mcap")
    line = "\n" + "=" * 80 + "\n"
    text = f"a/Nothing[] many\nuint8[] data\nstring format{line}MSG: a/Nothing\n"
    log.describe(CAMERA, COMPRESSED, "ros2msg", text.encode(), "cdr")
    log.add_bytes(CAMERA, b"\0\1\0\0" + b"\0" * 40, START_NS)
    with pytest.raises(SourceError, match=rf"described with an array of a/Nothing, which no {COMPRESSED} has"):
        read(log.close())


def test_a_row_of_a_megabyte_is_damaged(tmp_path: Path) -> None:
    log = LogWriter(tmp_path / "run.mcap", chunk_bytes=10**7)
    log.add(JOINTS, "sensor_msgs/msg/JointState", joints(START_NS, [0.0] * 140_000, []), START_NS)
    log.add(CAMERA, COMPRESSED, compressed(numbered_picture(0), START_NS), START_NS)
    frames, source = read(log.close())
    assert frames[0].state is None and source.stats.num_damaged == 1  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match=r"/joint_states at 0\.000 s: \d+ bytes; wanted at most"):
        read(log.path, damage="error")


@pytest.mark.parametrize(("sec", "is_damaged"), [("NaN", False), ("Infinity", False), ("1" + "0" * 400, True)])
def test_a_stamp_that_is_no_time_is_none(tmp_path: Path, sec: str, is_damaged: bool) -> None:
    log = LogWriter(tmp_path / "run.mcap")
    log.describe("/cam", "foxglove.CompressedImage", "jsonschema", b"{}", "json")
    for number, told in enumerate(["7", sec, "7"]):
        data = base64.b64encode(coded(numbered_picture(number), "PNG")).decode()
        log.add_bytes("/cam", f'{{"timestamp": {{"sec": {told}}}, "data": "{data}"}}'.encode(), picture_ns(number))
    frames, source = read(log.close())
    assert check_flags(frames, 3) == ([0, 2] if is_damaged else [0, 1, 2])
    assert source.stats.num_damaged == int(is_damaged)  # type: ignore[attr-defined]
    assert all(frame.wall_s is None for frame in frames)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_a_chunk_whose_times_are_wrong_is_not_believed(run: Path, share: float, tmp_path: Path) -> None:
    """Its head is under no checksum."""
    data = bytearray(run.read_bytes())
    places = chunk_places(run)
    offset, _ = places[int(share * len(places))]
    struct.pack_into("<Q", data, offset + 9, 12345)  # from 1970 on
    bad = tmp_path / "bad.mcap"
    bad.write_bytes(data)
    frames, source = read(bad)
    assert len(check_flags(frames)) < 30 and source.stats.num_gaps == 1  # type: ignore[attr-defined]
    assert frames[-1].pts_s < 2.0


@settings(max_examples=40)
@given(place=st.floats(0, 1, exclude_max=True), length=st.integers(1, 400), seed=st.integers(0, 255))
def test_whatever_is_damaged_is_told(
    tmp_path_factory: pytest.TempPathFactory, place: float, length: int, seed: int
) -> None:
    """Bytes anywhere in the file are overwritten: an error, or the frames that are left, those after a hole flagged."""
    folder = tmp_path_factory.getbasetemp() / "hostile"
    whole = folder / "run.mcap"
    if not whole.exists():
        folder.mkdir(exist_ok=True)
        write_log(whole, 12)
    data = bytearray(whole.read_bytes())
    begin = 8 + int(place * (len(data) - 8))
    for at in range(begin, min(begin + length, len(data))):
        data[at] ^= seed or 1
    bad = folder / "bad.mcap"
    bad.write_bytes(data)
    try:
        frames, source = read(bad)
    except SourceError as error:
        assert "\n" not in str(error)
        return
    found = check_flags(frames, 12)
    if len(found) < 12:
        assert source.stats.num_damaged  # type: ignore[attr-defined]

"""What is damaged in a directory is found, reported and skipped; the rest is kept."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.memory.depots.directory import DirectoryDepot
from millpond.memory.depots.record import HEADER_BYTES
from millpond.memory.depots.segment_file import FILE_HEADER_BYTES, Found, Gap, scan

from .depot_folders import DirectoryReader, contents, make, segments


def test_a_tail_torn_at_any_byte_costs_what_was_torn(tmp_path: Path) -> None:
    records = make(tmp_path)
    (file,) = segments(tmp_path)
    whole = file.read_bytes()
    ends = [FILE_HEADER_BYTES]
    for payload in records.values():
        ends.append(ends[-1] + HEADER_BYTES + len(payload))
    assert ends[-1] == len(whole)
    for length in range(len(whole) + 1):
        file.write_bytes(whole[:length])
        kept = {number: payload for number, payload in records.items() if ends[number + 1] <= length}
        with DirectoryReader(tmp_path) as reader:
            assert contents(reader) == kept and file.stat().st_size == length
        depot = DirectoryDepot(tmp_path)
        assert contents(depot) == kept
        assert len(depot.faults) == (0 if length in ends else 1), (length, depot.faults)
        depot.put("kv", 9, b"goes on")
        depot.check()
        depot.close()
        with DirectoryReader(tmp_path) as reader:
            assert contents(reader) == {**kept, 9: b"goes on"} and reader.faults == ()
        for path in segments(tmp_path):
            path.unlink()


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_costs_one_record_and_is_reported(tmp_path: Path, flip: int) -> None:
    records = make(tmp_path, 4)
    (file,) = segments(tmp_path)
    whole = file.read_bytes()
    for place in range(FILE_HEADER_BYTES, len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        depot = DirectoryDepot(tmp_path)
        found = contents(depot)
        assert len(found) == 3 and found.items() <= records.items(), place
        assert len(depot.faults) == 1 and str(file) in depot.faults[0]
        depot.check()
        depot.put("kv", 9, b"goes on")
        depot.close()
        with DirectoryReader(tmp_path) as reader:
            assert contents(reader) == {**found, 9: b"goes on"}
        file.write_bytes(whole)


def test_a_damaged_record_does_not_bring_an_older_one_back(tmp_path: Path) -> None:
    depot = DirectoryDepot(tmp_path, segment_bytes=200)
    depot.put("kv", 1, b"older")
    depot.put("kv", 0, bytes(150))
    depot.put("kv", 1, b"newer")
    depot.close()
    assert len(segments(tmp_path)) == 2
    path = segments(tmp_path)[-1]
    path.write_bytes(path.read_bytes().replace(b"newer", b"nEwer"))
    for _ in range(3):
        depot = DirectoryDepot(tmp_path, segment_bytes=200)
        assert depot.get("kv", 1) is None and depot.numbers("kv") == [0]
        depot.check()
        for number in range(10, 40):  # the damaged file is compacted away
            depot.put("kv", number, bytes(50))
            depot.drop("kv", number)
        depot.close()


def test_what_lies_inside_of_payloads_is_never_taken_for_records(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    make(inner)
    (file,) = segments(inner)
    outer = DirectoryDepot(tmp_path / "outer")
    outer.put("kv", 100, file.read_bytes())
    outer.put("kv", 101, b"after")
    outer.close()
    (file,) = segments(tmp_path / "outer")
    damaged = bytearray(file.read_bytes())
    damaged[FILE_HEADER_BYTES] ^= 1
    file.write_bytes(damaged)
    with DirectoryReader(tmp_path / "outer") as reader:
        assert contents(reader) == {101: b"after"}
        assert len(reader.faults) == 1 and "are damaged and are skipped" in reader.faults[0]


@pytest.mark.parametrize("place", [0, 5, 8, 20, 27, 31])
def test_a_file_with_a_bad_header_is_set_aside_and_the_rest_kept(tmp_path: Path, place: int) -> None:
    records = make(tmp_path, 8, segment_bytes=100)
    files = segments(tmp_path)
    damaged = bytearray(files[1].read_bytes())
    damaged[place] ^= 4
    files[1].write_bytes(damaged)
    with DirectoryReader(tmp_path) as reader:
        assert 0 < len(contents(reader)) < 8 and len(reader.faults) == 1
    assert files[1].exists(), "who only reads changes nothing"
    depot = DirectoryDepot(tmp_path, segment_bytes=100)
    found = contents(depot)
    assert 0 < len(found) < 8 and found.items() <= records.items()
    assert "is set aside as" in depot.faults[0] and not files[1].exists()
    depot.check()
    depot.close()
    with DirectoryReader(tmp_path) as reader:
        assert reader.faults == () and contents(reader) == found


def test_files_that_are_set_aside_do_not_pile_up(tmp_path: Path) -> None:
    make(tmp_path, 1)
    for turn in range(20):
        (tmp_path / "kv" / f"{turn + 100:08d}.seg").write_bytes(b"junk" * 20)
        depot = DirectoryDepot(tmp_path, segment_bytes=200)
        assert contents(depot) == {0: b"A" * 10} and depot.faults
        depot.close()
    assert len(list((tmp_path / "kv").glob("*.bad"))) == 2


@settings(max_examples=60)
@given(
    junk=st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=30)), min_size=1, max_size=5),
    inserts=st.booleans(),
)
def test_any_damage_leaves_a_depot_that_opens_and_gives_nothing_wrong(
    junk: list[tuple[int, bytes]], inserts: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        records = make(path, 6, segment_bytes=200)
        whole = b"".join(file.read_bytes() for file in segments(path))
        lengths = [file.stat().st_size for file in segments(path)]
        for place, what in junk:
            place %= len(whole)
            whole = whole[:place] + what + whole[place + (0 if inserts else len(what)) :]
        for file, length in zip(segments(path), lengths, strict=True):
            file.write_bytes(whole[:length])
            whole = whole[length:]
        depot = DirectoryDepot(path, segment_bytes=200)
        assert contents(depot).items() <= records.items()
        depot.put("kv", 0, b"new")
        depot.check()
        depot.close()
        with DirectoryReader(path) as reader:
            assert reader.get("kv", 0) == b"new"


def test_the_faults_of_a_ruin_are_counted_but_not_all_told(tmp_path: Path) -> None:
    depot = DirectoryDepot(tmp_path)
    for number in range(200):
        depot.put("kv", number, b"as it was written")
    depot.close()
    (file,) = segments(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"as it was", b"as it is!"))
    with DirectoryReader(tmp_path) as reader:
        assert reader.numbers("kv") == [] and len(reader.faults) == 51
        assert reader.faults[-1].endswith("more such places")


def test_damage_while_it_is_open_reads_as_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    depot = DirectoryDepot(tmp_path)
    depot.put("kv", 1, b"good")
    depot.put("kv", 2, b"gone")
    (file,) = segments(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"gone", b"done"))
    assert [depot.get("kv", n) for n in (1, 2, 2)] == [b"good", None, None]
    assert len(caplog.records) == 1
    file.unlink()
    assert depot.get("kv", 1) is None
    with pytest.raises(RuntimeError, match="say 2 records, what is there says 0"):
        depot.check()
    depot.close()


def test_names_that_are_no_files_of_ours_are_let_be(tmp_path: Path) -> None:
    records = make(tmp_path)
    (tmp_path / "kv" / "00000077.seg").mkdir()
    os.mkfifo(tmp_path / "kv" / "00000078.seg")
    (tmp_path / "kv" / "notes.txt").write_text("mine")
    (tmp_path / "kv" / "5.seg").write_text("mine")
    depot = DirectoryDepot(tmp_path)
    assert contents(depot) == records and len(depot.faults) == 2
    depot.put("kv", 50, b"x")
    depot.close()
    assert (tmp_path / "kv" / "notes.txt").exists() and (tmp_path / "kv" / "5.seg").exists()


def test_scanning_leaves_no_byte_out(tmp_path: Path) -> None:
    """Records and gaps side by side, over several windows of the reader."""
    depot = DirectoryDepot(tmp_path)
    lengths = [0, 1, 2**20 - 70, 5, 3 * 2**20 + 1, 2**20 - 32, 7]
    for number, length in enumerate(lengths):
        depot.put("kv", number, b"MPrc"[: length % 4] + bytes(length - length % 4))
    depot.close()
    (file,) = segments(tmp_path)
    damaged = bytearray(file.read_bytes())
    salt = int.from_bytes(damaged[24:28], "little")
    start = FILE_HEADER_BYTES + 4 * HEADER_BYTES + sum(lengths[:4])
    damaged[start] ^= 1  # the header of the long one
    file.write_bytes(damaged)
    with file.open("rb") as opened:
        found = list(scan(opened.fileno(), FILE_HEADER_BYTES, len(damaged), salt))
    assert [f.offset for f in found] == [FILE_HEADER_BYTES, *(f.end for f in found[:-1])]
    assert found[-1].end == len(damaged)
    assert [f.header.number if isinstance(f, Found) else f.end - f.offset for f in found] == [
        *(0, 1, 2, 3),
        HEADER_BYTES + lengths[4],
        *(5, 6),
    ]
    assert sum(isinstance(f, Gap) for f in found) == 1

"""DirectoryDepot: holds what a dictionary would, and only in folders that are its own."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from millpond.memory.depots import DepotTaken
from millpond.memory.depots.directory import DirectoryDepot
from millpond.memory.depots.record import HEADER_BYTES
from millpond.memory.depots.segment_file import FILE_HEADER_BYTES, write_all

from .depot_folders import DirectoryReader, contents, segments


class LikeADictionary(RuleBasedStateMachine):
    """Puts, drops, deaths and reopenings in any order; files of a few records, so that they come and go."""

    @initialize(segment_bytes=st.sampled_from([64, 200, 500, 5000]))
    def begins(self, segment_bytes: int) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.path, self.segment_bytes = Path(self.temporary.name), segment_bytes
        self.expected: dict[int, bytes] = {}
        self.opens()

    def opens(self) -> None:
        self.depot = DirectoryDepot(self.path, segment_bytes=self.segment_bytes)
        assert self.depot.faults == ()

    @rule(number=st.integers(0, 7), payload=st.binary(max_size=120))
    def put(self, number: int, payload: bytes) -> None:
        self.depot.put("kv", number, payload)
        self.expected[number] = payload

    @rule(number=st.integers(0, 7))
    def drop(self, number: int) -> None:
        self.depot.drop("kv", number)
        self.expected.pop(number, None)

    @rule()
    def flush(self) -> None:
        self.depot.flush()

    @rule()
    def reopens(self) -> None:
        self.depot.close()
        self.opens()

    @rule()
    def dies(self) -> None:
        """What a SIGKILL leaves: no flush, no goodbye."""
        self.depot._let_go()
        self.opens()

    @rule(junk=st.binary(min_size=1, max_size=60))
    def dies_in_the_middle_of_a_record(self, junk: bytes) -> None:
        self.depot._let_go()
        files = segments(self.path)
        if files:
            with files[-1].open("ab") as file:
                file.write(junk)
        self.depot = DirectoryDepot(self.path, segment_bytes=self.segment_bytes)
        assert len(self.depot.faults) == (1 if files else 0)

    @invariant()
    def holds_what_it_should(self) -> None:
        assert contents(self.depot) == self.expected
        with DirectoryReader(self.path) as reader:
            assert contents(reader) == self.expected
        self.depot.check()

    @invariant()
    def takes_as_much_as_it_says(self) -> None:
        num_bytes = sum(path.stat().st_size for path in segments(self.path))
        assert self.depot.num_bytes("kv") == num_bytes
        records = sum(HEADER_BYTES + len(payload) for payload in self.expected.values())
        files = len(segments(self.path)) * (FILE_HEADER_BYTES + HEADER_BYTES * 8)  # 8 drops, needed in each at worst
        assert num_bytes <= 2 * records + self.segment_bytes // 8 + 2 * files

    def teardown(self) -> None:
        if hasattr(self, "depot"):
            self.depot.close()
            self.temporary.cleanup()


TestLikeADictionary = LikeADictionary.TestCase
TestLikeADictionary.settings = settings(max_examples=30, stateful_step_count=25)


@pytest.mark.parametrize("step", [2, 3, 10])
def test_thinning_gives_room_back(tmp_path: Path, step: int) -> None:
    depot = DirectoryDepot(tmp_path, segment_bytes=2000)
    for number in range(200):
        depot.put("kv", number, bytes([number]) * 100)
    for number in range(200):
        if number % step:
            depot.drop("kv", number)
    living_bytes = len(range(0, 200, step)) * (HEADER_BYTES + 100)
    num_drops = len(depot._logs["kv"]._books.drops)
    num_files = len(segments(tmp_path))
    assert depot.num_bytes("kv") <= 2 * (living_bytes + num_drops * HEADER_BYTES) + 250 + num_files * FILE_HEADER_BYTES
    assert contents(depot) == {number: bytes([number]) * 100 for number in range(0, 200, step)}
    depot.check()
    depot.close()


@pytest.mark.parametrize("filler", [0, 400])
def test_a_drop_holds_for_as_long_as_its_record_is_in_any_file(tmp_path: Path, filler: int) -> None:
    """The file with the drop is emptied in every way; the one with the record stays because of another."""
    depot = DirectoryDepot(tmp_path, segment_bytes=300)
    depot.put("kv", 0, bytes(100))
    depot.put("kv", 1, b"must stay dropped")
    depot.put("kv", 2, bytes(250))
    depot.drop("kv", 1)
    for number in range(3, 30):
        depot.put("kv", number, bytes(filler))
        depot.drop("kv", number)
        assert depot.get("kv", 1) is None
        depot._let_go()
        depot = DirectoryDepot(tmp_path, segment_bytes=300)
        assert depot.numbers("kv") == [0, 2]
        depot.check()
    depot.drop("kv", 0)
    depot.drop("kv", 2)
    assert depot.num_bytes("kv") <= 300 // 8 + 2 * FILE_HEADER_BYTES + 3 * HEADER_BYTES
    depot.close()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not what millpond writes"),
        ("[" * 4000, "not what millpond writes"),
        ('"millpond depot"', "not what millpond writes"),
        (json.dumps({"format": "another"}), "not what millpond writes"),
        (json.dumps({"format": "millpond depot", "version": 2}), "version 2 of the format"),
        (json.dumps({"format": "millpond depot"}), "version None"),
    ],
)
def test_refuses_a_folder_of_another_version_or_make(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "millpond.json").write_text(text)
    for read_only in (False, True):
        with pytest.raises(ValueError, match=match):
            DirectoryDepot(tmp_path, read_only=read_only)
    assert os.listdir(tmp_path) == ["millpond.json"]


def test_refuses_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'thesis.doc' and no millpond.json"):
        DirectoryDepot(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.doc"]
    with pytest.raises(ValueError, match="a depot is a folder"):
        DirectoryDepot(tmp_path / "thesis.doc")
    with pytest.raises(ValueError, match="no depot at"):
        DirectoryDepot(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()


def test_takes_a_folder_where_it_was_killed_while_making_it(tmp_path: Path) -> None:
    for name in ("lock", "reserve", "millpond.json.new"):
        (tmp_path / name).write_text("")
    DirectoryDepot(tmp_path).close()
    DirectoryDepot(tmp_path, read_only=True).close()


def test_one_process_cannot_open_it_twice_either(tmp_path: Path) -> None:
    depot = DirectoryDepot(tmp_path)
    with pytest.raises(DepotTaken, match=f"process {os.getpid()}"):
        DirectoryDepot(tmp_path)
    depot.put("kv", 1, b"unharmed")
    depot.close()


def test_writes_of_many_short_pieces_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depot = DirectoryDepot(tmp_path)
    pieces = [bytes([n % 256]) * (n % 5) for n in range(3000)]
    writev = os.writev

    def stops_short(fd: int, parts: list[memoryview]) -> int:
        return writev(fd, parts[:3] if len(parts[0]) < 3 else [parts[0][:2]])

    monkeypatch.setattr("os.writev", stops_short)
    depot.put("kv", 1, pieces)
    monkeypatch.undo()
    depot.put("kv", 2, pieces)
    assert depot.get("kv", 1) == depot.get("kv", 2) == b"".join(pieces)
    depot.close()


def test_write_all_writes_all(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        write_all(file.fileno(), [b"", b"ab", b"", memoryview(b"cd"), b""])
    assert (tmp_path / "file").read_bytes() == b"abcd"


def test_refuses_segments_without_room() -> None:
    with pytest.raises(ValueError, match="segment_bytes=10"):
        DirectoryDepot("/nowhere", segment_bytes=10)

"""A directory outlives killed processes and full disks, and one process writes to it at a time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from millpond.memory.depots import DepotError, DepotFull, DepotTaken
from millpond.memory.depots.directory import DirectoryDepot

from .depot_folders import DirectoryReader, contents, line_of, python

HOLDS = """
import sys
from millpond.memory.depots.directory import DirectoryDepot
depot = DirectoryDepot(sys.argv[1])
depot.put("kv", 1, b"one")
print("holds", flush=True)
sys.stdin.readline()
for number in range(2, 300):
    depot.put("kv", number, bytes(1000))
    if number >= 100:
        depot.drop("kv", number - 100)
print("wrote", flush=True)
sys.stdin.readline()
"""


def test_two_processes_one_writes(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    try:
        assert line_of(process) == "holds"
        with pytest.raises(DepotTaken, match=f"{tmp_path} is being written to by process {process.pid}; end that"):
            DirectoryDepot(tmp_path)
        with DirectoryReader(tmp_path) as reader:
            assert contents(reader) == {1: b"one"}
            process.stdin.write("\n")
            process.stdin.flush()
            while not reader.get("kv", 299):  # it reads all the time, and nothing of it is wrong
                assert process.poll() is None
                assert all(payload in (None, b"one", bytes(1000)) for payload in contents(reader).values())
            assert line_of(process) == "wrote"
            assert reader.numbers("kv") == list(range(200, 300))
            reader.check()
            process.kill()
            process.wait()
            DirectoryDepot(tmp_path).close()  # the lock died with it
    finally:
        process.kill()
        process.communicate()


WRITES = """
import os, random, sys
from millpond.memory.depots.directory import DirectoryDepot

def writes(path, seed):
    depot = DirectoryDepot(path, segment_bytes=20_000)
    dice = random.Random(seed)
    number = max(depot.numbers("kv"), default=-1) + 1
    for older in depot.numbers("kv"):
        if older < number - 50:  # it was killed between a put and the drop after it
            depot.drop("kv", older)
    while True:
        depot.put("kv", number, number.to_bytes(4, "little") * dice.randrange(500))
        if number >= 50:
            depot.drop("kv", number - 50)
        depot.put("state", 0, number.to_bytes(4, "little"))
        say(number)
        number += 1

def say(word):  # in one write, so that whoever is killed has said all of it or nothing
    os.write(1, f"{word}\\n".encode())

for turn in sys.stdin:  # a process to be killed for each line
    child = os.fork()
    if not child:
        say(os.getpid())
        writes(sys.argv[1], int(turn))
    os.waitpid(child, 0)
    say("killed")
"""


def test_what_was_put_survives_sigkill_at_any_moment(tmp_path: Path) -> None:
    dice = random.Random(7)
    with subprocess.Popen(
        [sys.executable, "-c", WRITES, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as nursery:
        assert nursery.stdin is not None
        for turn in range(20):
            nursery.stdin.write(f"{turn}\n")
            nursery.stdin.flush()
            pid = int(line_of(nursery))
            said = [line_of(nursery) for _ in range(dice.randrange(1, 120))]
            os.kill(pid, signal.SIGKILL)
            while said[-1] != "killed":
                said.append(line_of(nursery))
            last = int(said[-2])
            depot = DirectoryDepot(tmp_path, segment_bytes=20_000)
            depot.check()
            numbers = depot.numbers("kv")
            # It died after saying `last`; the put after it, or that and a drop, may have happened as well.
            assert numbers[-1] in (last, last + 1)
            assert numbers in [list(range(max(0, first), numbers[-1] + 1)) for first in (last - 49, last - 48)]
            assert int.from_bytes(depot.get("state", 0) or b"", "little") in (last, last + 1)
            for number in numbers:
                payload = depot.get("kv", number)
                assert payload == number.to_bytes(4, "little") * (len(payload or b"") // 4)
            assert len(depot.faults) <= 2
            depot.close()
        nursery.stdin.close()


FILLS = """
import resource, sys
from millpond.memory.depots import DepotFull
from millpond.memory.depots.directory import DirectoryDepot
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
depot = DirectoryDepot(sys.argv[1])
for number in range(100):
    try:
        depot.put("kv", number, bytes([number]) * 3000)
    except DepotFull as error:
        assert "free some room" in str(error), error
        break
else:
    raise SystemExit("it was never full")
assert [depot.get("kv", n) for n in range(number)] == [bytes([n]) * 3000 for n in range(number)]
depot.check()
depot.put("kv", number, b"less")
depot.close()
print(number)
"""


def test_a_limit_on_files_leaves_what_was_there(tmp_path: Path) -> None:
    process = python(FILLS, tmp_path)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    depot = DirectoryDepot(tmp_path)
    assert depot.faults == () and depot.numbers("kv") == list(range(int(said) + 1))
    assert depot.get("kv", int(said)) == b"less"
    depot.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(depot: DirectoryDepot, first: int, num_bytes: int) -> int:
    """Puts until it is full; the number after the last that was taken."""
    for number in range(first, first + 10_000):
        try:
            depot.put("kv", number, bytes([number % 251]) * num_bytes)
        except DepotFull:
            return number
    raise AssertionError("it was never full")


def test_a_full_disk_keeps_what_it_has_and_takes_drops(small_disk: Path) -> None:
    depot = DirectoryDepot(small_disk, segment_bytes=200_000)
    end = fill(depot, 0, 20_000)
    assert end > 50
    end = fill(depot, end, 100)  # the last bytes, too
    assert depot.numbers("kv") == list(range(end))
    assert all(payload == bytes([n % 251]) * len(payload or b"") for n, payload in contents(depot).items())
    depot.check()
    for number in range(0, 50, 2):
        depot.drop("kv", number)
    for number in range(1, 50, 2):
        depot.drop("kv", number)
    assert depot.numbers("kv") == list(range(50, end))
    for number in range(end, end + 20):
        depot.put("kv", number, bytes(20_000))
    depot.flush()
    assert (small_disk / "reserve").exists(), "room for the next time"
    depot.close()
    again = DirectoryDepot(small_disk, segment_bytes=200_000)
    assert again.numbers("kv") == list(range(50, end + 20)) and again.faults == ()
    again.check()
    again.close()


def test_a_disk_that_is_full_from_the_start_says_so(small_disk: Path) -> None:
    with (small_disk / "big").open("wb", buffering=0) as file:
        while (2 << 20) - file.tell() and file.write(bytes(4096)) == 4096:
            pass
    with pytest.raises(DepotFull, match="cannot open the depot"):
        DirectoryDepot(small_disk / "depot")


def test_a_write_that_stops_half_way_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depot = DirectoryDepot(tmp_path)
    depot.put("kv", 1, b"one")

    def half(fd: int, parts: list[bytes]) -> None:
        os.write(fd, b"".join(parts)[:40])
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("millpond.memory.depots.segments.write_all", half)
    with pytest.raises(DepotError, match="Input/output error") as raised:
        depot.put("kv", 2, bytes(100))
    assert not isinstance(raised.value, DepotFull)
    depot.check()

    def fails(fd: int, num_bytes: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.ftruncate", fails)
    with pytest.raises(DepotError):
        depot.put("kv", 2, bytes(100))
    monkeypatch.undo()
    depot.put("kv", 3, b"three")
    assert contents(depot) == {1: b"one", 3: b"three"}
    depot.check()
    depot.flush()
    depot.close()
    again = DirectoryDepot(tmp_path)
    assert contents(again) == {1: b"one", 3: b"three"} and len(again.faults) == 1
    again.close()

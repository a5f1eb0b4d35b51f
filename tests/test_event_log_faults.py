"""EventLog where things go wrong: processes are killed, files damaged, disks full, readers slow."""

from __future__ import annotations

import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from millpond.memory.event_log import MIN_BUDGET_BYTES, EventLog
from millpond.stream import Span

WRITES = """
import sys
from millpond.memory.event_log import EventLog
from millpond.stream import Span
log = EventLog(sys.argv[1], budget_bytes=2**20, lines_per_commit=int(sys.argv[2]))
for n in range(log.num_lines + log.num_let_go, 10**9):
    number = log.add(Span(n, n + 1), f"line{n} of a stream with some words {n % 7} {n % 11}")
    if n % 5 == 0:
        log.flush()
        print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(2))
def test_every_committed_line_outlives_a_kill(tmp_path: Path, seed: int) -> None:
    made = random.Random(seed)
    path = tmp_path / "log.sqlite"
    committed = -1
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITES, str(path), str(made.choice([1, 3, 200]))], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(made.randint(1, 300)):
            committed = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest, _ = process.communicate()
        told = [int(word) for word in rest.split()[:-1]]  # the last may be cut short
        committed = max([committed, *told])
        log = EventLog(path, budget_bytes=MIN_BUDGET_BYTES)
        assert log.faults == ()
        log.check()
        numbers = {line.number for line in log.lines(num_lines=10**6) if line.kind != "trace"}
        assert numbers >= set(range(log.num_let_go, committed + 1)), "none is missing"
        assert [line.number for line in log.search(f"line{committed}", 1)] == [committed]
        log.close()


def filled(path: Path) -> None:
    log = EventLog(path, budget_bytes=2**20)
    for n in range(600):
        log.add(Span(n, n + 1), f"line{n} some words")
    log.close()


def damage_head(path: Path) -> None:
    path.write_bytes(b"no database at all" + path.read_bytes()[18:])


def damage_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8192 : len(data) // 2] = os.urandom(len(data) // 2 - 8192)
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3 - 100])


def forge_schema(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER evil AFTER INSERT ON lines BEGIN DELETE FROM lines; END")
    connection.close()


@pytest.mark.parametrize("damage", [damage_head, damage_middle, cut_short, forge_schema])
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.sqlite"
    for _ in range(2):
        filled(path)
        damage(path)
        bad = path.read_bytes()
        with caplog.at_level(logging.WARNING):
            log = EventLog(path, budget_bytes=2**20)
        assert "is damaged" in caplog.text and "log.sqlite.bad" in caplog.text
        assert (tmp_path / "log.sqlite.bad").read_bytes() == bad
        assert len(log.faults) == 1 and "could be read" in log.faults[0]
        log.check()
        number = log.add(Span(700, 701), "after")
        assert log.search("after", 1)[0].number == number
        log.close()
        path.unlink()
    assert {p.name.partition("-")[0] for p in tmp_path.iterdir()} == {"log.sqlite.bad"}, "one is kept, not many"


def test_what_can_be_read_of_a_damaged_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    filled(path)
    forge_schema(path)
    log = EventLog(path)
    assert log.num_lines == 600 and log.search("line5", 1)[0].number == 5
    assert log.add(Span(600, 601), "next") == 600
    log.check()
    log.close()


def test_damage_that_shows_later_does_not_reach_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = EventLog(path)
    for n in range(30_000):  # more than SQLite keeps in its cache
        log.add(Span(n, n + 1), f"line{n} of a stream that is watched for days")
    log.close()
    log = EventLog(path)
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    for n in range(700, 1300):
        log.add(Span(n, n + 1), f"line{n}")
    assert log.search("line1299", 1)[0].span == Span(1299, 1300)
    assert len(log.faults) == 1
    log.check()
    log.close()


def test_another_programs_database_and_a_later_version_are_left_alone(tmp_path: Path) -> None:
    for name, pragma, sentence in (
        ("other", "user_version = 7", "another program's database"),
        ("later", "application_id = 0x4d504c47; PRAGMA user_version = 2", "version 2 .* reads version 1"),
    ):
        path = tmp_path / name
        connection = sqlite3.connect(path)
        connection.executescript(f"CREATE TABLE t(x); PRAGMA {pragma}")
        connection.close()
        before = path.read_bytes()
        with pytest.raises(ValueError, match=sentence):
            EventLog(path)
        assert path.read_bytes() == before and not path.with_name(f"{name}.bad").exists()


def test_an_empty_file_is_a_new_log(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").touch()
    log = EventLog(tmp_path / "log.sqlite")
    log.add(Span(0, 1), "car")
    log.check()
    log.close()


SOME_WORDS = [f"word{n}" for n in range(3000)]

FULL_DISK = """
import logging, resource, signal, sys
from millpond.memory.event_log import EventLog
from millpond.stream import Span
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
now_s = 0.0
log = EventLog(sys.argv[1], lines_per_commit=10, clock=lambda: now_s)
log.add(Span(0, 1), "zebra")
log.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
for n in range(20_000):
    log.add(Span(n, n + 1), f"line{n} of a stream that goes on")
    now_s += 0.01
assert log.is_down and log.num_lost > 1000, log.num_lost
assert log.search("zebra", 1)[0].number == 0
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
now_s += 31
log.flush()
assert not log.is_down
assert log.search("line19999", 1)[0].span.start_s == 19999
log.check()
log.close()
"""


def test_a_full_disk_is_told_once_and_stops_nobody(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "log.sqlite")], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("WARNING") == 1 and "cannot be written" in run.stdout
    assert run.stdout.count("INFO") == 1 and "is written again" in run.stdout


def test_a_reader_that_never_ends_does_not_let_it_outgrow_its_cap(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = EventLog(path, budget_bytes=MIN_BUDGET_BYTES, clock=lambda: now_s)
    now_s = 0.0
    log.add(Span(0, 1), "zebra")
    log.flush()
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM lines").fetchall()
    made = random.Random(3)
    for n in range(3000):
        log.add(Span(n, n + 1), " ".join(made.choices(SOME_WORDS, k=8)))
        assert log.num_bytes <= MIN_BUDGET_BYTES
    assert log.is_down
    reader.close()
    now_s = 100.0
    for n in range(500):
        log.add(Span(n, n + 1), " ".join(made.choices(SOME_WORDS, k=8)))
        assert log.num_bytes <= MIN_BUDGET_BYTES
    assert not log.is_down
    log.check()
    log.close()

"""RedisDepot among others: readers, a second writer, and whoever plants what was never put."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond.memory.depots.base import DepotTaken
from millpond.memory.depots.record import HEADER_BYTES, PUT, header_of
from millpond.memory.depots.redis import RedisDepot

from .redis_server import RedisServer, opening, running_redis

_sessions = itertools.count()


Opened = Callable[..., RedisDepot]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def raw(server: RedisServer) -> Iterator[redis.Redis]:
    """Somebody else on the same server."""
    with server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def opened(server: RedisServer, raw: redis.Redis) -> Iterator[Opened]:
    with opening(server) as opened:
        yield opened


OTHER_PROCESS = """
import sys
from millpond.memory.depots.redis import RedisDepot
depot = RedisDepot(sys.argv[1], "s", read_only=sys.argv[2] == "read")
sys.stdout.write("open\\n"); sys.stdout.flush()
for line in sys.stdin:
    number = int(line)
    if sys.argv[2] == "write":
        depot.put("kv", number, b"from the other")
    sys.stdout.write(f"{depot.numbers('kv')} {depot.get('kv', number)}\\n"); sys.stdout.flush()
"""


class Other:
    """A depot in a process of its own, asked by number."""

    def __init__(self, url: str, what: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS, url, what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, number: int) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        return self.says()

    def end(self) -> str:
        self.process.kill()
        return self.process.communicate()[1]


def test_another_process_reads_what_this_one_writes(server: RedisServer, opened: Opened) -> None:
    depot, other = opened(), Other(server.url(), "read")
    try:
        assert other.says() == "open"
        assert other.ask(1) == "[] None"
        depot.put("kv", 1, b"first")
        depot.put("kv", 5, b"second")
        assert other.ask(1) == "[1, 5] b'first'"
        depot.put("kv", 1, b"again")
        depot.drop("kv", 5)
        assert other.ask(1) == "[1] b'again'"
        assert other.ask(5) == "[1] None"
    finally:
        other.end()


def test_a_second_writer_is_refused_until_the_first_has_ended(server: RedisServer, opened: Opened) -> None:
    other = Other(server.url(), "write")
    try:
        assert other.says() == "open"
        with pytest.raises(DepotTaken, match=rf"pid {other.process.pid} on .*writes session 's' .*; end it"):
            opened()
        assert other.ask(7) == "[7] b'from the other'"
        reader = opened(read_only=True)
        with pytest.raises(ValueError, match="read_only=True"):
            reader.put("kv", 7, b"")
        with pytest.raises(ValueError, match="read_only=True"):
            reader.drop("kv", 7)
    finally:
        other.end()
    # Killed, it gave nothing back; but it is seen to be dead, so nobody waits for its lease to expire.
    depot = opened(lease_s=1000)
    assert depot.get("kv", 7) == b"from the other"
    with pytest.raises(DepotTaken, match="writes session 's'"):
        opened()
    depot.close()
    opened().check()


def test_a_writer_that_lost_its_lease_is_told_and_changes_nothing(opened: Opened, raw: redis.Redis, caplog) -> None:
    first = opened(lease_s=1000)
    first.put("kv", 1, b"first's")
    raw.delete("millpond:s:lease")  # expired, while the first was stopped
    second = opened(lease_s=1000)
    second.put("kv", 1, b"second's")
    second.close()  # what it gives back is not the first's again
    for _ in range(2):
        for change in (lambda: first.put("kv", 1, b"late"), lambda: first.drop("kv", 1), first.flush):
            with pytest.raises(DepotTaken, match="taken over by another process"):
                change()
    assert len([record for record in caplog.records if "taken over by" in record.message]) == 1
    assert first.get("kv", 1) == b"second's"
    third = opened()
    first.close()
    third.put("kv", 1, b"third's")
    assert opened(read_only=True).get("kv", 1) == b"third's"
    third.check()


def test_a_lease_is_kept_while_nothing_is_put(opened: Opened, raw: redis.Redis) -> None:
    depot = opened(lease_s=0.3)
    threading.Event().wait(1.0)
    with pytest.raises(DepotTaken, match="another process"):
        opened(lease_s=0.3)
    depot.close()
    assert not raw.exists("millpond:s:lease")


@pytest.mark.parametrize(
    "planted", [b"", b"x", b"\xff" * 600, b"0" * 32 + b"|1|||1||h", b"9" * 32 + b"|x|" + b"9" * 900]
)
def test_a_planted_lease_is_no_more_than_a_lease(opened: Opened, raw: redis.Redis, planted: bytes) -> None:
    raw.set("millpond:s:lease", planted)
    if planted:
        with pytest.raises(DepotTaken, match="another process"):
            opened()
    raw.delete("millpond:s:lease")
    raw.set("millpond:s:writer", planted)
    opened().put("kv", 1, b"x")


def record(number: int, payload: bytes, salt: int) -> bytes:
    return header_of(PUT, number, [memoryview(payload)], salt=salt) + payload


def damages(good: bytes, salt: int) -> dict[str, bytes]:
    """By what is wrong with them: values that must not pass as record 1 of good."""
    huge = header_of(PUT, 1, [memoryview(b"x")], salt=salt)
    return {
        "no header of ours": b"x" * 500,
        "no header": good[: HEADER_BYTES - 1],
        "header says": good[:-1],
        "bytes, ": good + b"!",
        "checksum": good[:-1] + bytes([good[-1] ^ 1]),
        "header of": record(2, b"of another number", salt),
        "has no header": record(1, b"of another session", salt ^ 1),
        "header": huge,
        "more than 5000 of payload": b"y" * 6000,
    }


@pytest.mark.parametrize("why", damages(b"x" * 99, 0))
def test_a_damaged_record_is_none_and_leaves_the_books(opened: Opened, raw: redis.Redis, why: str) -> None:
    depot = opened(max_payload_bytes=5000)
    for number in range(3):
        depot.put("kv", number, b"good")
    good = raw.get("millpond:s:kv:1")
    raw.set("millpond:s:kv:1", damages(good, depot._keys.salt("kv"))[why])
    reader = opened(read_only=True, max_payload_bytes=5000)
    assert reader.get("kv", 1) is None and depot.get("kv", 1) is None
    for fault in (*reader.faults, *depot.faults):
        assert "kv 1 of session 's' is damaged and skipped" in fault and why in fault
    assert len(reader.faults) == len(depot.faults) == 1
    assert depot.numbers("kv") == reader.numbers("kv") == [0, 2]
    assert depot.get("kv", 0) == depot.get("kv", 2) == b"good"
    depot.check()
    depot.put("kv", 1, b"new")
    assert depot.get("kv", 1) == b"new"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(planted=st.binary(max_size=200), at=st.integers(0, 60), kept=st.booleans())
def test_no_bytes_pass_that_were_not_put(opened: Opened, raw: redis.Redis, planted: bytes, at: int, kept: bool) -> None:
    depot = opened(f"session {next(_sessions)}")
    depot.put("kv", 1, b"what was put")
    [key] = [key for key in raw.scan_iter(f"{depot._keys.prefix}kv:1")]
    good = raw.get(key)
    bad = good[:at] + planted + (good[at:] if kept else good[at + len(planted) :])
    raw.set(key, bad)
    assert depot.get("kv", 1) == (b"what was put" if bad == good else None)
    depot.check()
    depot.close()


def test_what_is_planted_elsewhere_is_skipped_and_cleaned_up(opened: Opened, raw: redis.Redis) -> None:
    depot = opened()
    depot.put("kv", 4, b"good")
    depot.close()
    strange = {"abc": 1, "-1": 1, "1e3": 1, "٣": 1, "007": 1, str(2**63): 1, "": 1, "8": float("inf"), "9": -5}
    raw.zadd("millpond:s:kv", strange)
    raw.zadd("millpond:s:kv", {"6": 10, "7": 10})
    raw.rpush("millpond:s:kv:6", "a list")
    reader = opened(read_only=True)
    assert reader.numbers("kv") == [4, 6, 7]
    assert reader.get("kv", 6) is reader.get("kv", 7) is None
    assert "kv 6 of session 's' is damaged and skipped: it is not a string" in reader.faults[0]
    depot = opened()
    assert depot.faults == (f"{len(strange)} entries of 'millpond:s:kv' were no numbers of records, and are gone",)
    assert depot.numbers("kv") == [4]
    depot.check()
    raw.zadd("millpond:s:kv", {"11": 3, "junk": 4})
    depot.put("kv", 5, b"more")
    assert depot.numbers("kv") == [4, 5]
    raw.set("millpond:s:picture", "not a set")
    with pytest.raises(OSError, match="WRONGTYPE"):
        depot.put("picture", 1, b"x" * 2_000_000)
    left = list(raw.scan_iter("millpond:s:incoming:*"))
    assert left and all(0 < raw.ttl(key) <= 60 for key in left)  # what was gathered does not stay
    with pytest.raises(OSError, match="WRONGTYPE"):
        depot.numbers("picture")
    assert depot.get("kv", 5) == b"more"


def test_books_that_are_wrong_are_found(opened: Opened, raw: redis.Redis) -> None:
    depot = opened()
    depot.put("kv", 1, b"good")
    raw.append("millpond:s:kv:1", "!")
    with pytest.raises(RuntimeError, match=rf"books say {HEADER_BYTES + 4} bytes for kv 1 .* has {HEADER_BYTES + 5}"):
        depot.check()
    with pytest.raises(RuntimeError, match="books say"):
        opened(read_only=True).check()


def test_a_set_that_the_server_let_go_is_made_again(opened: Opened, raw: redis.Redis) -> None:
    depot = opened()
    for number in range(5):
        depot.put("kv", number, b"x")
    raw.delete("millpond:s:kv", "millpond:s:kv:3")
    depot.put("kv", 9, b"x")
    assert depot.numbers("kv") == [0, 1, 2, 4, 9]
    depot.check()

"""RedisDepot when the server is away, hangs, refuses or is none; no call waits, and no password is told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millpond.memory.depots import DepotWriter
from millpond.memory.depots.base import DepotError
from millpond.memory.depots.redis import RedisDepot
from millpond.memory.depots.redis_lease import COMMIT, LET_GO
from millpond.memory.depots.redis_link import Breaker, DepotDown

from .redis_server import RedisServer, answering, running_redis


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as running:
        yield running


@pytest.fixture
def lasting(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path, keeps=True) as running:
        yield running


# The breaker alone.


def test_the_breaker_lets_one_call_through_after_each_wait(clock: Clock) -> None:
    breaker = Breaker(clock=clock)
    assert breaker.admit() and breaker.admit() and not breaker.is_open
    assert breaker.failed()
    for wait_s in (0.5, 1, 2, 4, 8, 16, 30, 30, 30):
        assert breaker.is_open and breaker.remaining_s == pytest.approx(wait_s)
        assert not breaker.failed(), "another call that was under way counts as one more failure"
        clock.now_s += 0.99 * wait_s
        assert not breaker.admit()
        clock.now_s += 0.02 * wait_s
        assert breaker.admit()
        assert not breaker.admit(), "two at once"
        assert not breaker.failed()
    clock.now_s += 31
    assert breaker.admit()
    assert breaker.succeeded() and not breaker.succeeded()
    assert breaker.admit() and breaker.admit() and breaker.remaining_s == 0
    breaker.failed()
    assert breaker.remaining_s == 0.5


def test_a_call_that_never_ends_holds_the_breaker_for_one_wait(clock: Clock) -> None:
    breaker = Breaker(clock=clock)
    breaker.failed()
    clock.now_s += 0.5
    assert breaker.admit() and not breaker.admit()
    clock.now_s += 0.5
    assert breaker.admit()


@pytest.mark.parametrize("waits", [(0, 1), (2, 1), (-1, 1)])
def test_waits_that_cannot_be(waits: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        Breaker(first_wait_s=waits[0], max_wait_s=waits[1])


# A server that goes and comes back.


def test_attempts_are_counted_not_guessed(server: RedisServer, clock: Clock) -> None:
    depot = RedisDepot(server.url(), clock=clock)
    depot.put("kv", 1, b"x")
    server.stop()
    with answering(b"", server.port) as (_, arrivals):

        def num_attempts(num_calls: int = 20) -> int:
            before = len(arrivals)
            calls: list[Callable[[], object]] = [
                lambda: depot.put("kv", 2, b"x"),
                lambda: depot.get("kv", 1),
                lambda: depot.drop("kv", 1),
                lambda: depot.numbers("kv"),
                depot.flush,
                depot.check,
            ]
            for i in range(num_calls):
                with pytest.raises(DepotDown):
                    calls[i % len(calls)]()
            return len(arrivals) - before

        assert num_attempts() == 1
        for wait_s in (0.5, 1, 2, 4, 8, 16, 30, 30):
            clock.now_s += 0.98 * wait_s
            assert num_attempts() == 0
            clock.now_s += 0.04 * wait_s
            assert num_attempts() == 1
        assert depot.num_bytes("kv") > 0  # the books are here
    server.start()
    with pytest.raises(DepotDown, match=r"is away; it is tried again in [\d.]+ s"):
        depot.put("kv", 2, b"x")
    clock.now_s += 30
    depot.put("kv", 2, b"back")
    assert depot.get("kv", 2) == b"back"
    depot.close()


def test_a_server_that_starts_again_with_what_it_had(lasting: RedisServer, clock: Clock) -> None:
    depot = RedisDepot(lasting.url(), clock=clock)
    for number in range(50):
        depot.put("picture", number, bytes([number]) * 1000)
    lasting.stop()
    for number in range(50, 60):
        with pytest.raises(DepotDown):
            depot.put("picture", number, b"lost")
    with pytest.raises(DepotDown):
        depot.drop("picture", 7)
    lasting.start()
    clock.now_s += 1
    depot.put("picture", 60, b"after")
    turn = depot._lease.staged_key
    depot.put("picture", 60, b"after")
    assert depot._lease.staged_key == turn, "recovers at every put"
    assert depot.numbers("picture") == [*range(50), 60]
    assert depot.get("picture", 7) == bytes([7]) * 1000
    depot.check()
    depot.close()
    reader = RedisDepot(lasting.url(), read_only=True)
    assert reader.get("picture", 60) == b"after"
    reader.check()
    reader.close()


def test_a_server_that_starts_again_empty(server: RedisServer, clock: Clock) -> None:
    depot = RedisDepot(server.url(), clock=clock)
    for number in range(50):
        depot.put("picture", number, b"x")
    server.stop()
    with pytest.raises(DepotDown):
        depot.put("picture", 50, b"x")
    server.start()
    clock.now_s += 1
    depot.put("picture", 51, b"x")
    assert depot.numbers("picture") == [51]
    depot.check()
    with pytest.raises(DepotError, match="another process"):
        RedisDepot(server.url())
    depot.close()


def test_a_server_that_went_empty_unnoticed(server: RedisServer) -> None:
    depot = RedisDepot(server.url())
    for number in range(5):
        depot.put("picture", number, b"x")
    with server.client() as raw:
        raw.flushall()
    assert depot.get("picture", 3) is None
    depot.put("picture", 51, b"x")
    assert depot.numbers("picture") == [51]
    depot.check()
    depot.close()


def test_a_server_that_hangs_is_not_waited_for(server: RedisServer, clock: Clock) -> None:
    depot = RedisDepot(server.url(), clock=clock)
    depot.put("kv", 1, b"old")
    server.freeze()
    began = time.monotonic()
    with pytest.raises(DepotDown, match=r"[Tt]imeout|timed out"):
        depot.put("kv", 1, b"x" * 3_000_000)
    with pytest.raises(DepotDown, match="is away"):
        depot.get("kv", 1)
    clock.now_s += 0.6
    with pytest.raises(DepotDown):  # a new connection hangs as well
        depot.get("kv", 1)
    # Two calls of 0.5 s, and one of none. redis-py's own retries would make it 3 s at the least.
    assert time.monotonic() - began < 2.5
    server.thaw()
    clock.now_s += 1
    assert depot.get("kv", 1) in (b"old", b"x" * 3_000_000)
    depot.put("kv", 1, b"new")
    depot.check()
    assert depot.get("kv", 1) == b"new"
    depot.close()


def test_what_arrives_after_its_time_changes_nothing(server: RedisServer, clock: Clock) -> None:
    depot = RedisDepot(server.url(), clock=clock)
    depot.put("kv", 1, b"old")
    with server.client() as raw:
        token = raw.get("millpond:stream:lease")
        server.freeze()
        with pytest.raises(DepotDown):
            depot.put("kv", 1, b"late")
        server.thaw()
        clock.now_s += 1
        depot.put("kv", 1, b"new")
        prefix = "millpond:stream:"
        fence = (token, 10_000, 1000)
        raw.set("staged", b"late")
        keys = [f"{prefix}lease", f"{prefix}writer", "staged", f"{prefix}kv:1", f"{prefix}kv"]
        assert raw.eval(COMMIT, 5, *keys, *fence, 1, 4)[0] == b"lost"
        assert raw.eval(LET_GO, 4, *keys[:2], *keys[3:], *fence, 1, "")[0] == b"lost"
        # Put in the right turn they are obeyed, so it is the turn that they fail for.
        fence = (raw.get("millpond:stream:lease"), 10_000, 1000)
        assert depot.get("kv", 1) == b"new"
        assert raw.eval(LET_GO, 4, *keys[:2], *keys[3:], *fence, 1, "")[0] == b"ok"
    assert depot.get("kv", 1) is None
    depot.check()
    depot.close()


def test_the_writer_goes_on_while_the_server_is_away(server: RedisServer, caplog) -> None:
    depot = RedisDepot(server.url())
    writer = DepotWriter(depot, patience_s=0.0)
    payload = b"x" * 1000
    for number in range(100):
        writer.submit("picture", number, lambda: payload, num_bytes=len(payload))
        if number == 50:
            writer.flush(5)
            server.stop()
    assert not writer.flush(1.0)
    assert writer.stats.is_down and writer.stats.num_waiting == 49
    server.start()
    assert writer.flush(10)
    assert depot.numbers("picture") == list(range(51, 100))  # what came before went with the server
    assert not writer.stats.is_down
    writer.close()
    depot.check()
    depot.close()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_readers_never_see_half_a_record(server: RedisServer) -> None:
    depot, reader = RedisDepot(server.url()), RedisDepot(server.url(), read_only=True)
    versions = [bytes([i]) * (70_000 * i) for i in range(8)]
    depot.put("state", 0, versions[1])
    seen: list[bytes | None] = []
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            seen.extend((reader.get("state", 0), depot.get("state", 0)))

    thread = threading.Thread(target=read)
    thread.start()
    for i in range(80):
        depot.put("state", 0, versions[1 + i * 5 % 7])
    is_over.set()
    thread.join()
    assert seen and set(seen) <= set(versions)
    assert depot.faults == reader.faults == ()
    depot.check()
    depot.close()
    reader.close()

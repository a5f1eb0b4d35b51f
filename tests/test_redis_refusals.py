"""RedisDepot where the server cannot be used: none there, not Redis, a wrong password, a wrong url."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from millpond.memory.depots import open_depot
from millpond.memory.depots.base import DepotError
from millpond.memory.depots.redis import RedisDepot
from millpond.memory.depots.redis_link import DepotDown, DepotRefused

from .redis_server import RedisServer, answering, running_redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as running:
        yield running


def test_there_must_be_a_server_at_the_beginning(server: RedisServer) -> None:
    server.stop()
    for read_only in (False, True):
        with pytest.raises(DepotDown, match=rf"redis://127.0.0.1:{server.port}/0 cannot be reached"):
            open_depot(server.url(), read_only=read_only)


GARBAGE = (
    b"",
    b":7\r\n",
    b"+OK\r\n",
    b"*0\r\n",
    b"$-1\r\n",
    b"*2\r\n$2\r\nok\r\n:0\r\n",
    b"*2\r\n*0\r\n*0\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"$999999999999999999999999\r\n",
    b"$x\r\n",
    b"*1\r\n" * 20_000,
    b"\xff\xfe\r\n",
    b":abc\r\n",
    b":7\r\n" * 10,
    b"*0\r\n" * 10,
    b"*2\r\n$2\r\nok\r\n$-1\r\n" * 5,
    b"+OK\r\n" * 10,
    b"-ERR no\r\n" * 10,
    b"*2\r\n$4\r\nlost\r\n:3\r\n" * 5,
)


@pytest.mark.parametrize("answer", GARBAGE, ids=lambda answer: repr(answer[:20]))
@pytest.mark.parametrize("read_only", [False, True])
def test_what_is_no_redis_server_is_an_error_of_ours(answer: bytes, read_only: bool) -> None:
    with answering(answer) as (port, _):
        try:
            depot = RedisDepot(f"redis://127.0.0.1:{port}", read_only=read_only)
        except DepotError as error:
            assert f"redis://127.0.0.1:{port}" in str(error)
            return
        for ask in (depot.numbers, depot.num_bytes, lambda kind: depot.get(kind, 1)):
            with pytest.raises(DepotError):
                assert ask("kv") in (0, None, []), answer
                raise DepotError("nothing there is an answer too")
        depot.close()


SECRETS = ("p@ss:w/rd", "geheim", "a b#c?d", "100%")


@pytest.mark.parametrize("secret", SECRETS)
def test_the_password_is_never_told(tmp_path: Path, secret: str, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    with running_redis(tmp_path, "--requirepass", secret) as server:
        right = server.url(f":{quote(secret, safe='')}")
        wrong = server.url(f":{quote(secret[::-1], safe='')}x")
        said = []
        for url in (wrong, server.url(), server.url(f"nobody:{quote(secret, safe='')}")):
            with pytest.raises(DepotRefused) as refused:
                RedisDepot(url)
            said.append(str(refused.value))
        depot = RedisDepot(right)
        depot.put("kv", 1, b"x")
        said.append(repr(depot))
        with pytest.raises(DepotError) as taken:
            RedisDepot(right)
        said.append(str(taken.value))
        server.stop()
        for _ in range(2):
            with pytest.raises(DepotDown) as down:
                depot.put("kv", 1, b"x")
            said.append(str(down.value))
        depot.close()
        with pytest.raises(ValueError, match="after close") as closed:
            depot.get("kv", 1)
        said.append(str(closed.value))
    for text in (*said, caplog.text):
        assert secret not in text and secret[::-1] not in text and quote(secret, safe="") not in text
    assert all(f"127.0.0.1:{server.port}" in text for text in said)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:se#cret@host:6379/0",
        "redis://user:se/cret@host:6379/0",
        "redis://:secret@host:port/0",
        "redis://user:secret@host/zero",
        "redis://user:secret@host/0?socket_timeout=60",
        "redis://user:secret@host/0?retry_on_timeout=yes",
        "redis://user:secret@host/0?max_connections=secret",
        "redis://user:secret@[::1/0",
        "http://user:secret@host",
        "redis://user:secret@host:99999/0",
    ],
)
def test_a_url_that_leads_nowhere_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis://") as refused:
        RedisDepot(url)
    assert "cret" not in str(refused.value).replace("=secret", "") and refused.value.__cause__ is None


@pytest.mark.parametrize(
    "options", [{"timeout_s": 0}, {"timeout_s": 0.6}, {"expire_s": 0}, {"lease_s": 0}, {"max_payload_bytes": 0}]
)
def test_settings_that_cannot_be(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        RedisDepot("redis://127.0.0.1:1", **options)

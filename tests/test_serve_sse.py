"""Following a stream's log: from now on, from a number, after a break, by many, and until the stream goes."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .serve_server import ENDED, STEADY, Served, served

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    streams = [{"id": "yard", "source": ENDED}, {"id": "street", "source": STEADY, "as_live": True}]
    with served({"streams": streams}) as running:
        running.wait_for("yard")
        running.wait_for_frame("street")
        yield running


@contextmanager
def following(server: Served, stream_id: str, last: int | str | None = None) -> Iterator[Iterator[dict[str, Any]]]:
    headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": str(last)})
    timeout = httpx.Timeout(60.0)
    with server.client.stream("GET", f"/v1/streams/{stream_id}/events", headers=headers, timeout=timeout) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield events_of(response)


def events_of(response: Any) -> Iterator[dict[str, Any]]:
    event: dict[str, Any] = {}
    for line in response.iter_lines():
        if not line:
            if "data" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            event[name] = value.strip()


def test_all_that_was_told_comes_after_minus_one_and_is_what_the_log_says(server: Served) -> None:
    rows = server.client.get("/v1/streams/yard/events").json()["data"]
    with following(server, "yard", -1) as events:
        got = [next(events) for _ in rows]
    assert [json.loads(event["data"]) for event in got] == rows
    assert [int(event["id"]) for event in got] == [row["number"] for row in rows]


def test_a_client_that_was_cut_off_gets_what_it_missed_and_nothing_twice(server: Served) -> None:
    first = server.note("street", "a heron lands")
    with following(server, "street", first - 1) as events:
        assert int(next(events)["id"]) == first
    missed = [server.note("street", words) for words in ("a heron fishes", "a heron leaves")]
    with following(server, "street", first) as events:
        got = [json.loads(next(events)["data"])["text"] for _ in missed]
        now = server.note("street", "an otter comes")
        assert int(next(events)["id"]) == now
    assert got == ["a heron fishes", "a heron leaves"]


def test_who_says_nothing_gets_only_what_comes(server: Served) -> None:
    server.note("street", "long ago")
    with following(server, "street") as events:
        time.sleep(0.3)
        number = server.note("street", "just now")
        assert int(next(events)["id"]) == number


def test_a_number_that_the_log_never_reached_means_a_log_that_began_anew(server: Served) -> None:
    with following(server, "yard", 10**9) as events:
        assert int(next(events)["id"]) == server.streams.events("yard")[0].number


@pytest.mark.parametrize("last", ["abc", "1.5", "9" * 30, "1;2"])
def test_a_place_that_is_no_number_is_refused(server: Served, last: str) -> None:
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last}
    told = server.client.get("/v1/streams/yard/events", headers=headers)
    assert (told.status_code, told.json()["error"]["param"]) == (400, "Last-Event-ID")


def test_a_stream_that_is_not_there_cannot_be_followed(server: Served) -> None:
    assert server.client.get("/v1/streams/no/events", headers={"Accept": "text/event-stream"}).status_code == 404


def test_followers_are_let_go_when_their_stream_is_removed(server: Served) -> None:
    server.client.post("/v1/streams", json={"id": "short", "source": ENDED})
    server.wait_for("short")
    ended = threading.Event()

    def follow() -> None:
        with following(server, "short", -1) as events:
            for event in events:
                if event.get("event") == "end":
                    ended.set()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    time.sleep(0.3)
    assert server.client.delete("/v1/streams/short").status_code == 204
    assert ended.wait(30)
    thread.join(30)
    assert not thread.is_alive()


def test_many_follow_and_each_gets_every_line(server: Served) -> None:
    num_clients, start = 20, server.streams.last_event("street")
    got: list[list[str]] = [[] for _ in range(num_clients)]

    def follow(mine: list[str]) -> None:
        with following(server, "street", start) as events:
            while len(mine) < 3:
                mine.append(json.loads(next(events)["data"])["text"])

    threads = [threading.Thread(target=follow, args=(mine,), daemon=True) for mine in got]
    for thread in threads:
        thread.start()
    said = ["one", "two", "three"]
    for words in said:
        server.note("street", words)
    for thread in threads:
        thread.join(90)
    assert got == [said] * num_clients


def test_a_client_that_takes_nothing_holds_up_nobody(server: Served) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as slow:
        slow.sendall(
            b"GET /v1/streams/street/events?after=-1 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        )
        for n in range(300):
            server.note("street", f"line {n} of many")
        with following(server, "street", server.streams.last_event("street") - 1) as events:
            assert json.loads(next(events)["data"])["text"] == "line 299 of many"


def test_old_lines_come_from_the_log_where_they_are_not_at_hand_any_more(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = server.client.get("/v1/streams/yard/events").json()["data"]
    watched = server.streams._watched["yard"]
    monkeypatch.setattr(watched, "before", watched.last_number)
    monkeypatch.setattr(watched, "lines", type(watched.lines)())
    with following(server, "yard", -1) as events:
        assert [json.loads(next(events)["data"]) for _ in rows] == rows
    assert server.client.get("/v1/streams/yard/events").json()["data"] == rows

"""DepotWriter: nobody waits for the depot, nothing is lost in silence, failures come and go."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.memory.depots import DepotError, DepotFull, DepotWriter, Kind, Payload
from millpond.memory.depots.outage import Outage
from millpond.memory.depots.ram import RamDepot

LONG_S = 10.0  # a wait that ends by itself long before


class Gate(RamDepot):
    """A depot that can be held up, and told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()
        self.opened.set()
        self.is_inside = threading.Event()
        self.fails_put: OSError | None = None
        self.fails_flush: OSError | None = None
        self.tried: list[tuple[Kind, int]] = []
        self.num_flushes = 0

    def put(self, kind: Kind, number: int, payload: Payload) -> None:
        self.is_inside.set()
        self.opened.wait(LONG_S)
        self.tried.append((kind, number))
        if self.fails_put is not None:
            raise self.fails_put
        super().put(kind, number, payload)

    def flush(self) -> None:
        self.num_flushes += 1
        if self.fails_flush is not None:
            raise self.fails_flush


@pytest.fixture
def depot() -> Gate:
    return Gate()


Opened = Callable[..., DepotWriter]


@pytest.fixture
def opened(depot: Gate) -> Iterator[Opened]:
    writers: list[DepotWriter] = []

    def start(**options: object) -> DepotWriter:
        writers.append(DepotWriter(depot, **options))  # type: ignore[arg-type]
        return writers[-1]

    yield start
    depot.opened.set()
    for writer in writers:
        writer.close()
        assert not writer._thread.is_alive()
        writer.check()


def hold(depot: Gate, writer: DepotWriter) -> None:
    """The thread is inside of the depot, with ("state", 99) in its hands, until depot.opened is set."""
    depot.opened.clear()
    depot.is_inside.clear()
    writer.submit("state", 99, lambda: b"", num_bytes=0)
    assert depot.is_inside.wait(LONG_S)


def until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.002)


def test_writes_in_order_and_says_when_it_is_durable(depot: Gate, opened: Opened) -> None:
    writer = opened(flush_every_s=1000)
    for number in range(20):
        assert writer.submit("kv", number, lambda number=number: bytes([number]), num_bytes=1)
    assert writer.flush(LONG_S)
    assert depot.tried == [("kv", n) for n in range(20)] and depot.num_flushes == 1
    assert [depot.get("kv", n) for n in (0, 19)] == [b"\0", b"\x13"]
    stats = writer.stats
    assert (stats.num_submitted, stats.num_written, stats.num_waiting, stats.waiting_bytes) == (20, 20, 0, 0)
    assert (stats.is_down, stats.last_error) == (False, "")
    assert writer.flush(LONG_S) and depot.num_flushes == 1, "nothing is new: nothing to flush"


def test_flushes_by_itself(depot: Gate, opened: Opened) -> None:
    writer = opened(flush_every_s=0.01)
    writer.submit("kv", 1, lambda: b"x", num_bytes=1)
    until(lambda: depot.num_flushes == 1)
    time.sleep(0.05)
    assert depot.num_flushes == 1, "what is flushed is not flushed again"


def test_sees_what_waits(depot: Gate, opened: Opened) -> None:
    depot.put("kv", 1, b"old")
    depot.put("kv", 2, b"stays")
    writer = opened()
    hold(depot, writer)
    writer.submit("kv", 1, lambda: [b"n", b"ew"], num_bytes=3)
    writer.submit("kv", 3, lambda: b"three", num_bytes=5)
    writer.drop("kv", 2)
    assert [writer.get("kv", n) for n in range(4)] == [None, b"new", None, b"three"]
    assert writer.get("state", 99) == b"", "what is being written is seen, too"
    assert writer.numbers("kv") == [1, 3] and depot.numbers("kv") == [1, 2]
    depot.opened.set()
    assert writer.flush(LONG_S)
    assert [depot.get("kv", n) for n in range(4)] == [None, b"new", None, b"three"]
    assert [writer.get("kv", n) for n in range(4)] == [None, b"new", None, b"three"]
    assert writer.num_bytes("kv") == depot.num_bytes("kv")


def test_the_newest_of_a_number_wins_and_takes_no_more_room(depot: Gate, opened: Opened) -> None:
    writer = opened(queue_bytes=4000)
    hold(depot, writer)
    for step in range(100):
        assert writer.submit("state", 0, lambda step=step: bytes([step]), num_bytes=1000)
    assert writer.stats.num_superseded == 99
    writer.check()
    depot.opened.set()
    assert writer.flush(LONG_S)
    assert depot.tried == [("state", 99), ("state", 0)] and depot.get("state", 0) == bytes([99])


def test_a_full_queue_lets_the_oldest_pictures_go_first(depot: Gate, opened: Opened) -> None:
    writer = opened(queue_bytes=10_000, patience_s=0.0)
    hold(depot, writer)
    writer.submit("kv", 0, lambda: b"kv", num_bytes=1000)
    for number in range(4):
        assert writer.submit("picture", number, lambda: b"p", num_bytes=1000)
    assert writer.submit("kv", 1, lambda: b"kv", num_bytes=3000)
    assert writer.numbers("picture") == [2, 3]
    assert not writer.submit("kv", 2, lambda: b"kv", num_bytes=7000), "no pictures are given for what does not fit"
    assert writer.numbers("picture") == [2, 3]
    assert writer.stats.num_dropped == 3
    writer.check()
    depot.opened.set()
    assert writer.flush(LONG_S)
    assert depot.numbers("kv") == [0, 1] and depot.numbers("picture") == [2, 3]


def test_a_submission_waits_for_room_that_comes(depot: Gate, opened: Opened) -> None:
    writer = opened(queue_bytes=3000, patience_s=LONG_S)
    hold(depot, writer)
    writer.submit("kv", 0, lambda: b"", num_bytes=1500)
    threading.Timer(0.05, depot.opened.set).start()
    assert writer.submit("kv", 1, lambda: b"", num_bytes=1500)
    assert writer.flush(LONG_S)
    assert writer.stats.num_dropped == 0


def test_a_depot_that_does_not_move_is_waited_for_once(depot: Gate, opened: Opened) -> None:
    writer = opened(queue_bytes=3000, patience_s=0.2)
    hold(depot, writer)
    writer.submit("kv", 0, lambda: b"", num_bytes=1500)
    waits: list[float | None] = []
    wait_for = writer._changed.wait_for
    writer._changed.wait_for = lambda is_so, wait_s=None: (waits.append(wait_s), wait_for(is_so, wait_s))[1]  # type: ignore[method-assign]
    assert not any(writer.submit("kv", number, lambda: b"", num_bytes=1500) for number in range(1, 6))
    assert waits == [0.2]


def test_what_can_never_fit_is_dropped_at_once_and_said(
    depot: Gate, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    writer = opened(queue_bytes=3000, patience_s=LONG_S)
    assert not any(writer.submit("kv", number, lambda: b"", num_bytes=5000) for number in range(3))
    assert "raise queue_bytes" in writer.stats.last_error
    assert caplog.text.count("raise queue_bytes") == 1


def failing() -> bytes:
    raise KeyError("a payload that cannot be made")


def test_what_make_raises_costs_that_record_only(depot: Gate, opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    def no_room() -> bytes:
        raise OSError(28, "not the depot's")

    writer = opened()
    hold(depot, writer)
    for number, make in enumerate((failing, lambda: b"good", no_room, lambda: "no bytes")):
        writer.submit("kv", number, make, num_bytes=1)  # type: ignore[arg-type]
    assert [writer.get("kv", number) for number in (0, 1)] == [None, b"good"]
    depot.opened.set()
    assert writer.flush(LONG_S)
    assert depot.numbers("kv") == [1]
    stats = writer.stats
    assert (stats.num_failed, stats.num_written, stats.is_down) == (3, 2, False)
    assert stats.last_error.startswith("kv 3 cannot be archived: TypeError")
    assert len(caplog.records) == 1 and "a payload that cannot be made" in caplog.text


def test_a_depot_that_fails_is_tried_again_until_it_takes_everything(
    depot: Gate, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    writer = opened(retry_s=0.01, max_retry_s=0.02)
    depot.fails_put = DepotError("cannot reach redis://me:secret@host:1/0")
    for number in range(5):
        assert writer.submit("kv", number, lambda number=number: bytes([number]), num_bytes=1)
    until(lambda: len(depot.tried) >= 6)
    assert set(depot.tried) == {("kv", 0)}, "order is kept"
    assert writer.stats.is_down and writer.get("kv", 3) == b"\3"
    assert not writer.flush(0.03)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "secret" not in caplog.text + writer.stats.last_error
    depot.fails_put = None
    assert writer.flush(LONG_S)
    assert depot.numbers("kv") == list(range(5)) and not writer.stats.is_down
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"] and "is back" in caplog.text


def test_a_flush_that_fails_is_tried_again(depot: Gate, opened: Opened) -> None:
    writer = opened(retry_s=0.01, max_retry_s=0.02, flush_every_s=0.01)
    depot.fails_flush = DepotError("no")
    writer.submit("kv", 0, lambda: b"", num_bytes=0)
    until(lambda: depot.num_flushes >= 3)
    assert writer.stats.is_down
    depot.fails_flush = None
    assert writer.flush(LONG_S)
    until(lambda: not writer.stats.is_down)


def test_nobody_waits_for_a_depot_that_is_down(depot: Gate, opened: Opened) -> None:
    writer = opened(queue_bytes=5000, patience_s=LONG_S, retry_s=LONG_S)
    depot.fails_put = DepotError("gone")
    writer.submit("kv", 0, lambda: b"", num_bytes=0)
    until(lambda: writer.stats.is_down)
    start_s = time.monotonic()
    for number in range(1000):
        writer.submit("picture", number, lambda: b"", num_bytes=1000)
    assert time.monotonic() - start_s < LONG_S
    assert writer.stats.num_dropped == 998 and writer.numbers("picture") == [998, 999]
    depot.fails_put = None


def test_drops_get_through_to_a_full_depot_and_what_it_can_never_hold_is_given_up(depot: Gate, opened: Opened) -> None:
    depot.put("picture", 7, b"old")
    depot.fails_put = DepotFull("no room")
    writer = opened(retry_s=0.01, max_retry_s=0.02)
    writer.submit("kv", 0, lambda: b"", num_bytes=0)
    writer.submit("kv", 1, lambda: b"", num_bytes=0)
    writer.drop("picture", 7)
    until(lambda: depot.numbers("picture") == [])
    until(lambda: ("kv", 1) in depot.tried)
    assert writer.stats.num_failed >= 1 and writer.stats.is_down
    depot.fails_put = None
    assert writer.flush(LONG_S)


def test_close_writes_what_waits(depot: Gate, opened: Opened) -> None:
    writer = opened(flush_every_s=1000)
    for number in range(100):
        writer.submit("kv", number, lambda: b"", num_bytes=0)
    writer.close()
    assert depot.numbers("kv") == list(range(100)) and depot.num_flushes == 1
    assert not writer.submit("kv", 100, lambda: b"", num_bytes=0)
    writer.close()
    assert writer.stats.num_dropped == 1


@pytest.mark.parametrize("trouble", ["held up", "down"])
def test_close_does_not_wait_for_trouble(
    depot: Gate, opened: Opened, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    writer = opened(retry_s=0.5)
    if trouble == "held up":
        hold(depot, writer)
    else:
        depot.fails_put = DepotError("gone")
    for number in range(3):
        writer.submit("kv", number, lambda: b"", num_bytes=0)
    start_s = time.monotonic()
    writer.close()
    assert time.monotonic() - start_s < 5  # 2 s are promised, on a machine that is not busy
    assert writer.stats.num_dropped == 3
    assert "3 records were not written" in caplog.text


def test_ends_with_the_process() -> None:
    writer = DepotWriter(Gate())
    assert writer._thread.daemon
    writer.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "drop", "fail", "heal", "flush"]),
        st.sampled_from(["kv", "picture"]),
        st.integers(0, 5),
        st.integers(0, 3000),
    ),
    max_size=30,
)


@settings(max_examples=40)
@given(steps=STEPS)
def test_the_books_balance_whatever_happens(steps: list[tuple[str, Kind, int, int]]) -> None:
    depot = Gate()
    writer = DepotWriter(depot, queue_bytes=6000, patience_s=0.0, retry_s=0.0005, max_retry_s=0.001)
    newest: dict[tuple[Kind, int], bytes | None] = {}
    for turn, (what, kind, number, num_bytes) in enumerate(steps):
        payload = turn.to_bytes(2, "little")
        if what == "submit":
            if writer.submit(kind, number, lambda payload=payload: payload, num_bytes=num_bytes):
                newest[kind, number] = payload
        elif what == "drop":
            if writer.drop(kind, number):
                newest[kind, number] = None
        elif what == "flush":
            writer.flush(0.001)
        else:
            depot.fails_put = DepotError("down") if what == "fail" else None
        writer.check()
    depot.fails_put = None
    assert writer.flush(LONG_S)
    lost = writer.stats.num_dropped
    writer.close()
    writer.check()
    for (kind, number), payload in newest.items():
        assert depot.get(kind, number) == payload or (lost and kind == "picture")


def test_an_outage_doubles_its_waits_and_speaks_of_itself_once(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [100.0]
    outage = Outage(0.5, 30.0, lambda: now_s[0])
    caplog.set_level(logging.INFO)
    waits = []
    for _ in range(8):
        outage.fail("it is gone")
        waits.append(outage.wait_s)
        now_s[0] += outage.wait_s
        assert outage.wait_s <= 0
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    outage.end("it")
    assert not outage.is_on and outage.wait_s == 0
    assert [r.getMessage()[:8] for r in caplog.records] == ["it is go", "it is ba"]
    now_s[0] += 100
    for _ in range(5):  # it flickers
        outage.fail("it is gone")
        assert outage.wait_s == 0.5
        outage.end("it")
        now_s[0] += 1
    assert len(caplog.records) == 4
    outage.fail("")
    outage.try_now()
    assert outage.is_on and outage.wait_s <= 0


@pytest.mark.parametrize(
    "options",
    [{"queue_bytes": 0}, {"patience_s": -1}, {"flush_every_s": 0}, {"retry_s": 0}, {"retry_s": 2, "max_retry_s": 1}],
)
def test_refuses_settings_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        DepotWriter(RamDepot(), **options)  # type: ignore[arg-type]


def test_refuses_a_negative_length(opened: Opened) -> None:
    with pytest.raises(ValueError, match="num_bytes=-1"):
        opened().submit("kv", 0, lambda: b"", num_bytes=-1)

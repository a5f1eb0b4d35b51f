"""What every depot promises. A new row needs an entry in PLACES, nothing else."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond.memory.depots import DEPOTS, Depot, DepotWriter, Payload, open_depot
from millpond.memory.depots.base import KINDS, MAX_NUMBER

from .method_docs import missing_from_docs
from .redis_server import running_redis

Place = Callable[..., Depot]
"""Opens the depot of one place; called again, the same place again."""

_sessions = itertools.count()


def ram(folder: Path) -> Iterator[Place]:
    yield lambda **options: open_depot(None, **options)


def directory(folder: Path) -> Iterator[Place]:
    yield lambda **options: open_depot(folder / "depot", **options)


def on_redis(folder: Path) -> Iterator[Place]:
    with running_redis(folder) as server:
        session = f"every {next(_sessions)}"
        yield lambda **options: open_depot(server.url(), session=session, **options)


PLACES = {"ram": ram, "directory": directory, "redis": on_redis}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    opened: list[Depot] = []
    for opens in PLACES[request.param](tmp_path):

        def opens_and_notes(opens: Place = opens, **options: object) -> Depot:
            opened.append(opens(**options))
            return opened[-1]

        yield opens_and_notes
        for depot in opened:
            depot.close()


def test_every_row_has_a_place() -> None:
    assert set(PLACES) == set(DEPOTS)


@pytest.mark.parametrize("name", DEPOTS)
def test_says_where_it_comes_from(name: str) -> None:
    assert missing_from_docs(DEPOTS[name]) == []


PAYLOADS = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=40).map(bytearray),
    st.lists(st.binary(max_size=20), max_size=4),
    st.integers(0, 5000).map(lambda n: memoryview(bytes(n))),
)
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 4), st.none() | PAYLOADS), max_size=25)


def joined(payload: Payload) -> bytes:
    return b"".join(payload) if isinstance(payload, list) else bytes(payload)  # type: ignore[arg-type]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_holds_what_a_dictionary_would(place: Place, steps: list[tuple[str, int, Payload | None]]) -> None:
    depot = place()
    expected: dict[str, dict[int, bytes]] = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for number in depot.numbers(kind):  # of the example before
            depot.drop(kind, number)
    for kind, number, payload in steps:
        if payload is None:
            depot.drop(kind, number)  # type: ignore[arg-type]
            expected[kind].pop(number, None)
        else:
            depot.put(kind, number, payload)  # type: ignore[arg-type]
            expected[kind][number] = joined(payload)
    for kind in KINDS:
        assert depot.numbers(kind) == sorted(expected[kind])
        assert {n: depot.get(kind, n) for n in range(5)} == {n: expected[kind].get(n) for n in range(5)}
        assert depot.num_bytes(kind) >= sum(map(len, expected[kind].values()))
    depot.check()
    depot.flush()
    depot.check()
    depot.close()


def test_the_same_place_again_holds_the_same(place: Place) -> None:
    depot = place()
    depot.put("state", 0, b"old")
    depot.put("state", 0, [b"n", b"ew"])
    depot.put("kv", MAX_NUMBER, b"")
    depot.put("line", 3, b"gone")
    depot.drop("line", 3)
    depot.close()
    again = place()
    if "Ram" in repr(again):
        assert all(again.numbers(kind) == [] for kind in KINDS)
    else:
        assert (again.get("state", 0), again.get("kv", MAX_NUMBER), again.get("line", 3)) == (b"new", b"", None)
        assert [again.numbers(kind) for kind in ("state", "kv", "line")] == [[0], [MAX_NUMBER], []]
    assert again.faults == ()
    again.check()


def test_replacing_and_dropping_do_not_pile_up(place: Place) -> None:
    depot = place()
    for step in range(400):
        depot.put("state", 0, bytes(40_000))
        depot.put("picture", step, bytes(40_000))
        if step >= 10:
            depot.drop("picture", step - 10)
    # 16 MB each were put; dead room is as much as lives and an eighth of a directory's 32 MiB segment at most.
    assert depot.num_bytes("state") < 2**22 + 100_000
    assert depot.num_bytes("picture") < 2**22 + 900_000
    assert depot.numbers("picture") == list(range(390, 400))
    depot.check()


def test_questions_change_nothing(place: Place) -> None:
    depot = place()
    depot.put("picture", 7, b"seven")
    before = [(kind, depot.numbers(kind), depot.num_bytes(kind)) for kind in KINDS]
    assert [depot.get("picture", 7), depot.get("picture", 8), depot.get("kv", 7)] == [b"seven", None, None]
    repr(depot)
    depot.check()
    assert [(kind, depot.numbers(kind), depot.num_bytes(kind)) for kind in KINDS] == before


def test_dropping_what_is_not_there_does_nothing(place: Place) -> None:
    depot = place()
    before = depot.num_bytes("kv")
    depot.drop("kv", 5)
    assert (depot.numbers("kv"), depot.num_bytes("kv")) == ([], before)


@pytest.mark.parametrize(("kind", "number"), [("kv", -1), ("kv", 2**63), ("kv", True), ("kv", 1.0), ("../kv", 1)])
def test_refuses_what_is_no_address(place: Place, kind: str, number: int) -> None:
    depot = place()
    for act in (
        lambda: depot.put(kind, number, b""),
        lambda: depot.get(kind, number),
        lambda: depot.drop(kind, number),
    ):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"got|no kind of record"):
            act()


def test_refuses_buffers_with_gaps_between(place: Place) -> None:
    depot = place()
    with pytest.raises(ValueError, match="contiguous"):
        depot.put("kv", 1, memoryview(b"abcdef")[::2])
    assert depot.get("kv", 1) is None


def test_takes_buffers_of_any_shape_and_keeps_its_own_copy(place: Place) -> None:
    depot = place()
    written = bytearray(range(16))
    depot.put("kv", 1, [memoryview(written).cast("I").cast("B").cast("h"), b"", written])
    written[:] = bytes(16)
    assert depot.get("kv", 1) == bytes(range(16)) * 2


def test_read_only_reads_and_refuses_to_write(place: Place) -> None:
    depot = place()
    depot.put("kv", 1, b"one")
    reader = place(read_only=True)
    assert reader.read_only and not depot.read_only
    if depot.is_shared:
        depot.put("kv", 2, b"two")
        depot.drop("kv", 1)
        assert (reader.numbers("kv"), reader.get("kv", 2), reader.get("kv", 1)) == ([2], b"two", None)
    for act in (lambda: reader.put("kv", 3, b""), lambda: reader.drop("kv", 2), lambda: reader.flush()):
        with pytest.raises(ValueError, match="read_only"):
            act()
    with pytest.raises(ValueError, match="read_only"):
        DepotWriter(reader)


def test_a_closed_depot_says_so(place: Place) -> None:
    depot = place()
    depot.close()
    depot.close()
    for act in (lambda: depot.put("kv", 1, b""), lambda: depot.get("kv", 1), lambda: depot.numbers("kv")):
        with pytest.raises(ValueError, match="close"):
            act()


def test_others_may_read_while_one_writes(place: Place) -> None:
    depot = place()
    is_over, wrong = threading.Event(), []

    def read() -> None:
        while not is_over.is_set():
            for number in depot.numbers("kv"):
                payload = depot.get("kv", number)
                if payload not in (None, number.to_bytes(2, "little") * 2000):
                    wrong.append(number)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(300):
        depot.put("kv", number, number.to_bytes(2, "little") * 2000)
        if number >= 20:
            depot.drop("kv", number - 20)
    is_over.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    depot.check()


def test_open_depot_knows_places_by_their_names(tmp_path: Path) -> None:
    assert type(open_depot(None)) is DEPOTS["ram"]
    for where in (tmp_path / "a", str(tmp_path / "b")):
        with_folder = open_depot(where)
        assert type(with_folder) is DEPOTS["directory"]
        with_folder.close()

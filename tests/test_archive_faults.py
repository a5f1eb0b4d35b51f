"""The archive where pictures get lost, processes end, records are damaged, models change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.memory.archive import Archive
from millpond.memory.depots import DepotWriter, open_depot
from millpond.memory.depots.ram import RamDepot
from millpond.memory.keyframe import Head, decode_head, decode_pixels, encode_head, encode_pixels
from millpond.stream import Span

from .archive_parts import Direct, Lazy, noise, picture, vector, watch


@pytest.fixture
def store() -> Direct:
    return Direct(RamDepot())


def test_what_the_store_does_not_take_is_not_named(store: Direct) -> None:
    archive = Archive(store, keyframe_similarity=1.0)
    for t in range(20):
        store.takes = not 5 <= t < 10
        archive.see(picture(t), Span(t, t + 1), vector(t // 6, t))
    archive.close()
    archive.check()
    assert [f.span.start_s for f in archive.between(Span(0, 99))] == [t for t in range(20) if not 4 <= t < 9]
    assert archive.num_lost == 5


def test_what_the_store_lost_while_it_waited_is_not_named() -> None:
    store = Lazy(RamDepot())
    archive = Archive(store, keyframe_similarity=1.0)
    for t in range(10):
        archive.see(picture(t), Span(t, t + 1), vector(t // 6, t))
    for number in (3, 4):
        del store.waiting[2 * number + 1]
    store.write()
    archive.see(picture(0), Span(10, 11), vector(1))
    archive.see(picture(0), Span(11, 12), vector(1))
    archive.check()
    assert archive.num_lost == 2 and 3 not in [f.number for f in archive.between(Span(0, 99))]
    assert not {6, 7, 8, 9} & set(store.numbers("picture")), "nor are its halves kept"


def test_asking_for_a_picture_that_waits_does_not_lose_those_before() -> None:
    store = Lazy(RamDepot())
    archive = Archive(store, keyframe_similarity=1.0)
    for t in range(10):
        archive.see(picture(t), Span(t, t + 1), vector(t // 6, t))
    assert archive.get(6) is not None
    archive.see(picture(0), Span(10, 11), vector(1))
    assert archive.num_lost == 0 and archive.num_keyframes == 10


def test_a_store_that_takes_nothing_for_long_costs_no_old_picture_and_little_room() -> None:
    store = Lazy(RamDepot())
    archive = Archive(store, keyframe_similarity=1.0)
    watch(archive, [0, 1])
    store.write()
    archive.see(picture(0), Span(12, 13), vector(0))
    before = [f.number for f in archive.between(Span(0, 12))]
    for t in range(13, 900):
        store.waiting.clear()  # what a writer does whose queue is full
        archive.see(picture(0, 1), Span(t, t + 1), vector(t // 6, t))
        archive.check()
    assert [f.number for f in archive.between(Span(0, 11))] == before[:11]
    assert archive.num_keyframes < 300


# Restarts


def answers(archive: Archive) -> list[object]:
    queries = [vector(scene, 5) for scene in range(9)]
    return [
        [archive.find(query, 4) for query in queries],
        [archive.find(query, 3, Span(10, 33)) for query in queries],
        [archive.between(Span(a, a + 7)) for a in range(0, 60, 5)],
        [archive.nearest(time_s) for time_s in range(-1, 70, 7)],
    ]


@settings(max_examples=25)
@given(
    scenes=st.lists(st.integers(0, 8), min_size=1, max_size=14),
    length=st.integers(1, 7),
    budget_bytes=st.sampled_from([2**16, 2**20]),
    side=st.integers(1, 48),
)
def test_after_a_restart_the_answers_are_the_same(scenes: list[int], length: int, budget_bytes: int, side: int) -> None:
    store = Direct(RamDepot())
    archive = Archive(store, budget_bytes=budget_bytes, keyframe_similarity=0.999)
    for t in range(len(scenes) * length):
        archive.see(noise(t, side), Span(t, t + 1), vector(scenes[t // length], t, 0.1))
    archive.close()
    again = Archive(store, budget_bytes=budget_bytes)
    restored = again.restore()
    assert restored == (archive.num_keyframes, 0)
    assert answers(again) == answers(archive)
    for f in archive.between(Span(0, 1000)):
        mine, other = archive.get(f.number), again.get(f.number)
        assert mine is not None and other is not None and np.array_equal(mine.picture_HW3, other.picture_HW3)
        assert mine.vector_D is not None and other.vector_D is not None and torch.equal(mine.vector_D, other.vector_D)
    again.check()


def test_what_is_seen_after_a_restart_comes_after_and_the_cap_holds(store: Direct) -> None:
    archive = Archive(store, budget_bytes=2**17, keyframe_similarity=1.0)
    for t in range(100):
        archive.see(noise(t, 32), Span(t, t + 1), vector(t // 8, t))
    last = archive.between(Span(0, 1000))[-1]
    again = Archive(store, budget_bytes=2**16, keyframe_similarity=1.0)
    again.restore()
    again.see(noise(0, 32), Span(0, 1), vector(3))
    again.check()
    for t in range(1, 100):
        again.see(noise(t, 32), Span(t, t + 1), vector(t // 8, t))
        again.check()
    newest = again.between(Span(0, 1000))[-1]
    assert newest.number > last.number and newest.event > last.event


def test_a_directory_brings_its_pictures_back(tmp_path: Path) -> None:
    def opened() -> Iterator[Archive]:
        depot = open_depot(tmp_path / "depot")
        writer = DepotWriter(depot)
        archive = Archive(writer)
        archive.restore()
        yield archive
        archive.close()
        assert writer.flush(20)
        writer.close()
        depot.close()

    before: list[object] = []
    for archive in opened():
        watch(archive, [3, 1, 4])
        archive.close()
        before = answers(archive)
    for archive in opened():
        assert answers(archive) == before
        assert archive.get(0) is not None
        watch(archive, [5, 6], first_s=18)
    for archive in opened():
        assert [f.span.start_s for f in archive.between(Span(0, 99))] == [0, 6, 12, 18, 24]


def test_another_may_look_while_one_writes() -> None:
    store = Direct(RamDepot())
    archive = Archive(store)
    looker = Archive(store.depot)  # type: ignore[arg-type]
    assert looker.restore() == (0, 0)
    watch(archive, [0, 1])
    assert looker.restore() == (2, 0)
    watch(archive, [2, 3], first_s=12)
    archive.close()
    assert looker.restore().num_keyframes == 2
    assert answers(looker) == answers(archive)
    store.depot.drop("picture", 3)
    looker.restore()
    assert looker.num_keyframes == 3 and looker.get(1) is None


def test_pictures_of_another_model_are_found_by_time_only(store: Direct) -> None:
    watch(archive := Archive(store, vectors="one"), [0, 1])
    archive.close()
    for other in (Archive(store, vectors="other"), Archive(store, vectors="one")):
        other.restore(num_channels=8)
        assert other.find(torch.ones(8), 5) == []
        assert [f.span.start_s for f in other.between(Span(0, 99))] == [0, 6]
        keyframe = other.get(0)
        assert keyframe is not None and keyframe.vector_D is None
        other.see(picture(0), Span(12, 13), torch.ones(8))


def test_halves_and_damaged_records_are_skipped_and_swept_away(store: Direct) -> None:
    archive = Archive(store)
    watch(archive, [0, 1, 2, 3, 4])
    archive.close()
    depot = store.depot
    head = depot.get("picture", 6)
    assert head is not None
    depot.drop("picture", 0)  # 0: no head
    depot.drop("picture", 3)  # 1: no pixels
    depot.put("picture", 4, head)  # 2: the head of another
    depot.put("picture", 9, b"nothing")  # 4: no picture, which shows when it is asked for
    depot.put("picture", 12, b"\0" * 50)  # 6: nothing at all
    again = Archive(store)
    assert again.restore() == (2, 4)
    assert [f.number for f in again.between(Span(0, 99))] == [3, 4]
    assert again.get(3) is not None and again.get(4) is None
    again.see(picture(0), Span(40, 41), vector(0))
    again.see(picture(0), Span(41, 42), vector(0))
    assert store.numbers("picture") == [6, 7, 8, 9, 14, 15]


def test_a_head_says_what_it_is_or_is_refused() -> None:
    head = Head(3, Span(1, 2), 4, True, "one", torch.nn.functional.normalize(vector(0), dim=0))
    data = b"".join(encode_head(head))
    assert decode_head(data)[:5] == head[:5]
    for old, new in [(b'"head"', b'"tail"'), (b'"number":3', b'"number":-'), (b"1.0", b"9.0"), (b"true", b"1234")]:
        assert old in data
        with pytest.raises(ValueError, match="got"):
            decode_head(data.replace(old, new))
    for bad in (torch.full((4,), 2.0), torch.full((4,), float("nan")), torch.zeros(2, 2), torch.zeros(0)):
        with pytest.raises(ValueError, match="got"):
            decode_head(b"".join(encode_head(head._replace(vector_D=bad))))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 699), st.integers(0, 255)), min_size=1, max_size=6))
def test_flipped_bytes_of_a_picture_give_a_picture_or_a_sentence(flips: list[tuple[int, int]]) -> None:
    data = bytearray(b"".join(encode_pixels(1, picture(0), 85, {"tokens": torch.ones(3)})))
    for at, value in flips:
        data[at % len(data)] = value
    try:
        assert decode_pixels(bytes(data), 1, 10**6).picture_HW3.dtype == np.uint8
    except ValueError as error:
        assert "got" in str(error)

"""Slots: whatever writer and reader do, and in whatever order, nothing that is held is written."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.robot.perception import View
from millpond.pipeline.robot.slots import Published, Slot, SlotRing, publication

NUM_TOKENS = 4


def made(num_held: int) -> SlotRing:
    ring = SlotRing(num_held)
    ring.make_room(NUM_TOKENS, torch.zeros(1, 3))
    return ring


def publish(ring: SlotRing, number: int) -> Slot:
    slot = ring.free()
    slot.tokens_TD.fill_(float(number))
    view = View("top", 0.0, 0.0, number, (2, 2), NUM_TOKENS)
    ring.publish(publication(slot, [view], 0.0, 0, number, None))
    return slot


def is_whole(published: Published) -> bool:
    return bool((published.tokens_TD == float(published.number)).all())


@given(st.integers(1, 4), st.lists(st.booleans(), max_size=60))
def test_what_is_held_stays_and_the_newest_is_what_is_taken(num_held: int, takes: list[bool]) -> None:
    ring = made(num_held)
    held: list[Published] = []
    number = 0
    for does_take in takes:
        if does_take:
            taken = ring.take()
            assert (taken is None) == (number == 0)
            if taken is not None:
                assert taken.number == number - 1
                held = [*held, taken][-num_held:]
        else:
            slot = publish(ring, number)
            assert all(slot is not one.slot for one in held)
            number += 1
        assert all(is_whole(one) for one in held)


def test_a_reader_and_a_writer_that_hurry_never_meet() -> None:
    ring = made(2)
    is_over = threading.Event()

    def write() -> None:
        number = 0
        while not is_over.is_set():
            publish(ring, number)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        held: list[Published] = []
        newest = -1
        for _ in range(3000):
            taken = ring.take()
            if taken is None:
                continue
            held = [*held, taken][-2:]
            assert taken.number >= newest and all(is_whole(one) for one in held)
            newest = taken.number
    finally:
        is_over.set()
        writer.join()


def test_what_is_the_newest_no_longer_is_not_held() -> None:
    ring = made(2)
    publish(ring, 0)
    overtaken = ring.newest
    publish(ring, 1)
    assert overtaken is not None and not ring.hold(overtaken)
    taken = ring.take()
    assert taken is not None and taken.number == 1 and ring.may_be_written(overtaken.kept_T3)


@given(st.integers(1, 3), st.integers(0, 6))
def test_what_is_held_no_longer_is_told(num_held: int, num_more: int) -> None:
    ring = made(num_held)
    publish(ring, 0)
    first = ring.take()
    assert first is not None
    copied = first.kept_T3.clone()
    for number in range(1, num_more + 1):
        publish(ring, number)
        assert ring.may_be_written(first.kept_T3) == (number > num_held), "publishing takes nothing from who holds it"
        ring.take()
        assert ring.may_be_written(first.kept_T3) == (number >= num_held)
    assert not ring.may_be_written(copied)
    ring.make_room(NUM_TOKENS + 1, torch.zeros(1, 3))
    assert not ring.may_be_written(first.kept_T3), "its buffers were given up, and are written no more"


def test_room_is_made_once_and_more_only_for_more() -> None:
    ring = made(1)
    first, num_bytes = publish(ring, 0), ring.num_bytes
    taken = ring.take()
    ring.make_room(NUM_TOKENS - 1, torch.zeros(1, 3))
    assert ring.num_bytes == num_bytes and ring.num_places == NUM_TOKENS
    ring.make_room(NUM_TOKENS + 1, torch.zeros(1, 3))
    assert ring.num_places == NUM_TOKENS + 1
    publish(ring, 1)
    assert taken is not None and taken.slot is first and is_whole(taken), "what was taken keeps its own"


def test_a_ring_that_holds_nothing_is_refused() -> None:
    for given_held in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="num_held is how many takes a perception outlives, 1 or more; got"):
            SlotRing(given_held)  # type: ignore[arg-type]

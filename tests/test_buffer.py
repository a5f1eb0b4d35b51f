"""The hand-over between two threads: policies are exact, the books balance, nobody is left waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.stream import Frame, FrameBuffer
from millpond.stream.buffer import POLICIES
from millpond.stream.frame import carry_gap

LIMIT_S = 2.0


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def ends(thread: threading.Thread) -> bool:
    thread.join(LIMIT_S)
    return not thread.is_alive()


@pytest.mark.parametrize(("policy", "left"), [("drop_oldest", [3, 4, 5]), ("newest_only", [5]), ("block", [1, 2, 3])])
def test_what_a_full_buffer_keeps(policy: str, left: list[int]) -> None:
    buffer: FrameBuffer[int] = FrameBuffer(3, policy)
    for item in (1, 2, 3) if policy == "block" else (1, 2, 3, 4, 5):
        assert buffer.put(item)
    buffer.finish()
    assert list(buffer) == left
    assert buffer.num_dropped == buffer.num_in - len(left)
    buffer.check()


@pytest.mark.parametrize(("policy", "left"), [("drop_oldest", [3.0, 0, 0]), ("newest_only", [3.0])])
def test_a_gap_outlives_the_frame_that_told_of_it(policy: str, left: list[float]) -> None:
    pixels = np.zeros((1, 1, 3), np.uint8)
    buffer: FrameBuffer[Frame] = FrameBuffer(3, policy, carry=carry_gap)
    for number, gap_s in enumerate([0, 1.0, 2.0, 0, 0]):
        buffer.put(Frame(pixels, float(number), index=number, gap_s=gap_s))
    buffer.finish()
    taken = list(buffer)
    assert [frame.gap_s for frame in taken] == left
    assert [frame.index for frame in taken] == ([2, 3, 4] if policy == "drop_oldest" else [4])
    buffer.check()


ACTIONS = st.lists(st.sampled_from(["put", "put", "get", "close", "finish"]), max_size=60)


@given(policy=st.sampled_from(POLICIES), capacity=st.integers(1, 5), actions=ACTIONS)
def test_the_books_balance(policy: str, capacity: int, actions: list[str]) -> None:
    buffer: FrameBuffer[int] = FrameBuffer(capacity, policy)
    shadow: list[int] = []
    number, is_closed, is_finished = 0, False, False
    for action in actions:
        if action == "put" and not is_finished:
            if policy == "block" and len(shadow) == buffer.capacity and not is_closed:
                continue  # would wait
            assert buffer.put(number) is not is_closed
            if not is_closed:
                while len(shadow) >= buffer.capacity:
                    shadow.pop(0)
                shadow.append(number)
            number += 1
        elif action == "get":
            if shadow:
                assert buffer.get(0) == shadow.pop(0)
            elif is_closed or is_finished:
                assert buffer.get(0) is None
            else:
                with pytest.raises(TimeoutError, match="no frame came within 0 s"):
                    buffer.get(0)
        elif action == "close":
            buffer.close()
            is_closed, shadow = True, []
        elif action == "finish":
            buffer.finish()
            is_finished = True
        assert len(buffer) == len(shadow)
        buffer.check()


@pytest.mark.parametrize("policy", POLICIES)
def test_order_is_kept_between_threads(policy: str) -> None:
    buffer: FrameBuffer[int] = FrameBuffer(4, policy)

    def produce() -> None:
        for number in range(2000):
            buffer.put(number)
        buffer.finish()

    thread = in_thread(produce)
    seen = list(buffer)
    assert ends(thread)
    assert seen == sorted(set(seen)) and seen[-1] == 1999
    assert len(seen) + buffer.num_dropped == 2000
    if policy == "block":
        assert len(seen) == 2000
    buffer.check()


def test_a_consumer_that_stops_early_lets_the_producer_go() -> None:
    buffer: FrameBuffer[int] = FrameBuffer(1, "block")

    def produce() -> None:
        while buffer.put(1):
            pass

    thread = in_thread(produce)
    assert buffer.get() == 1
    buffer.close()
    assert ends(thread)
    buffer.check()


def test_a_consumer_that_raises_lets_the_producer_go() -> None:
    buffer: FrameBuffer[int] = FrameBuffer(1, "block")

    def produce() -> None:
        while buffer.put(1):
            pass

    thread = in_thread(produce)
    with pytest.raises(KeyError, match="mine"), buffer:
        for _ in buffer:
            raise KeyError("mine")
    assert ends(thread)


def test_a_producer_that_raises_tells_the_consumer_after_what_it_had() -> None:
    buffer: FrameBuffer[int] = FrameBuffer(4, "block")
    got: list[int] = []
    failures: list[str] = []

    def consume() -> None:
        try:
            got.extend(buffer)
        except ConnectionError as error:
            failures.append(str(error))

    thread = in_thread(consume)
    buffer.put(1)
    buffer.put(2)
    buffer.finish(ConnectionError("the camera is gone"))
    assert ends(thread)
    # `extend` keeps what came before the failure.
    assert got == [1, 2] and failures == ["the camera is gone"]
    with pytest.raises(ConnectionError, match="the camera is gone"):
        buffer.get()


def test_close_wakes_a_waiting_consumer() -> None:
    buffer: FrameBuffer[int] = FrameBuffer(1, "newest_only")
    thread = in_thread(lambda: list(buffer))
    buffer.close()
    buffer.close()
    assert ends(thread)


def test_after_finish_nothing_may_be_put() -> None:
    buffer: FrameBuffer[int] = FrameBuffer()
    buffer.finish()
    with pytest.raises(ValueError, match=r"put\(7\) after finish\(\)"):
        buffer.put(7)


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="no buffer policy named 'newest'; there are: block, drop_oldest, newest_only"):
        FrameBuffer(1, "newest")
    with pytest.raises(ValueError, match="got capacity=0"):
        FrameBuffer(0)

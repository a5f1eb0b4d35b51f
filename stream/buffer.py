"""FrameBuffer: a bounded hand-over between the thread that makes frames and the one that uses them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

POLICIES = ("block", "drop_oldest", "newest_only")


class FrameBuffer(Generic[T]):
    """Holds at most `capacity` items between one producer thread and one consumer thread.

    What happens to an item that finds the buffer full is the policy:
      block        the producer waits,
      drop_oldest  the oldest waiting item is dropped,
      newest_only  whatever waits is dropped, full or not: the consumer gets the newest there is.

        put ──▶ [oldest ... newest] ──▶ get          num_in == num_out + num_dropped + len(buffer), always

    The producer ends with `finish()`, or `finish(error)` when it failed; the consumer then gets what waits,
    and after it the end or the error. Either side may `close()` at any time: both wake at once, what waits
    counts as dropped.

    carry: what becomes of an item when the one before it, given first, is dropped; by default nothing. `carry_gap`
        keeps the gaps of frames.
    """

    def __init__(
        self, capacity: int = 4, policy: str = "newest_only", *, carry: Callable[[T, T], T] | None = None
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a frame buffer needs room for one frame at least; got capacity={capacity}")
        if policy not in POLICIES:
            raise ValueError(f"no buffer policy named {policy!r}; there are: {', '.join(POLICIES)}")
        self.capacity = 1 if policy == "newest_only" else capacity
        self.policy = policy
        self.num_in = 0
        self.num_out = 0
        self.num_dropped = 0
        self._carry = carry or _leave
        self._waiting: deque[T] = deque()
        self._error: BaseException | None = None
        self._is_finished = False
        self._is_closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Adds an item by the policy; False, and the item is not taken, once the buffer is closed."""
        with self._changed:
            if self._is_finished:
                raise ValueError(f"put({item!r}) after finish(); make a new buffer for a new stream")
            if self.policy == "block":
                self._changed.wait_for(lambda: self._is_closed or len(self._waiting) < self.capacity)
            if self._is_closed:
                return False
            while len(self._waiting) >= self.capacity:
                dropped = self._waiting.popleft()
                self.num_dropped += 1
                if self._waiting:
                    self._waiting[0] = self._carry(dropped, self._waiting[0])
                else:
                    item = self._carry(dropped, item)
            self._waiting.append(item)
            self.num_in += 1
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float | None = None) -> T | None:
        """The oldest waiting item; None at the end, when the producer has finished and nothing waits, or on
        `close()`.

        Raises:
            TimeoutError: nothing came within `timeout_s`.
            BaseException: whatever the producer gave to `finish`, once nothing waits.
        """
        with self._changed:
            deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
            while not (self._waiting or self._is_finished or self._is_closed):
                left_s = None if deadline_s is None else deadline_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    raise TimeoutError(f"no frame came within {timeout_s} s")
                self._changed.wait(left_s)
            if self._waiting:
                item = self._waiting.popleft()
                self.num_out += 1
                self._changed.notify_all()
                return item
            if self._error is not None and not self._is_closed:
                raise self._error
            return None

    def finish(self, error: BaseException | None = None) -> None:
        """Says that no more will come, and why if it was a failure; the first call counts."""
        with self._changed:
            if not self._is_finished:
                self._is_finished, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Drops what waits and wakes both sides; may be called again, and from any thread."""
        with self._changed:
            self._is_closed = True
            self.num_dropped += len(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()

    def check(self) -> None:
        """Recounts: raises AssertionError if an item was lost from the books."""
        with self._changed:
            assert self.num_in == self.num_out + self.num_dropped + len(self._waiting), vars(self)
            assert len(self._waiting) <= self.capacity, vars(self)

    def __len__(self) -> int:
        with self._changed:
            return len(self._waiting)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        item = self.get()
        if item is None:
            raise StopIteration
        return item

    def __enter__(self) -> FrameBuffer[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _leave(dropped: T, item: T) -> T:
    return item

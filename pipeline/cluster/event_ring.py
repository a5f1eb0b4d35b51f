"""EventRing: the newest events with their numbers, so that whoever asks again is told none twice."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Told(NamedTuple, Generic[T]):
    """Made by an EventRing, read by whoever listens.

    last: the number of the newest event, to ask from next time.
    num_lost: events after the one asked from that are not here any more: nobody asked for too long.
    """

    events: tuple[T, ...]
    last: int
    num_lost: int


class EventRing(Generic[T]):
    """Keeps the newest `capacity` events; they are numbered from 1. Any thread may put; coroutines wait."""

    def __init__(self, capacity: int = 1000) -> None:
        if capacity < 1:
            raise ValueError(f"a ring needs room for one event; got capacity={capacity}")
        self._events: deque[T] = deque(maxlen=capacity)
        self._last = 0
        self._lock = threading.Lock()
        self._wakes: list[Callable[[], None]] = []

    def put(self, event: T) -> None:
        """Adds an event; the oldest makes room."""
        with self._lock:
            self._events.append(event)
            self._last += 1
            wakes, self._wakes = self._wakes, []
        for wake in wakes:
            wake()

    def since(self, number: int) -> Told[T]:
        """The events after the one of this number; 0 for all."""
        with self._lock:
            num_new = max(0, self._last - max(0, number))
            kept = list(self._events)[max(0, len(self._events) - num_new) :]
            return Told(tuple(kept), self._last, num_new - len(kept))

    async def wait_since(self, number: int, wait_s: float) -> Told[T]:
        """The same, but waits up to `wait_s` for one to come."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(woken.set)

        with self._lock:
            must_wait = self._last <= number
            if must_wait:
                self._wakes.append(wake)
        if must_wait:
            try:
                await asyncio.wait_for(woken.wait(), wait_s)
            except TimeoutError:
                pass
            finally:
                with self._lock:
                    if wake in self._wakes:
                        self._wakes.remove(wake)
        return self.since(number)

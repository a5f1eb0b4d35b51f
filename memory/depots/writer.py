"""DepotWriter: the one thread that writes to a depot, so that a stream never waits for a disk or a server."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ...stream.redact import redact
from .base import Depot, DepotFull, DepotStats, Kind, Payload, check_address, parts_of
from .outage import Outage
from .patience import Patience

_log = logging.getLogger(__name__)

# What a waiting put or drop costs besides its payload: the object, its place in the queue, the closure.
_OP_BYTES = 512
# A record that still finds no room after so many tries (a minute or so) is given up: it may be larger than the
# depot can ever hold, and others wait behind it.
_MAX_TRIES_WHEN_FULL = 8
_CLOSE_S = 1.8


@dataclass(slots=True, eq=False)
class _Op:
    """A put, or a drop where `make` is None."""

    kind: Kind
    number: int
    make: Callable[[], Payload] | None
    held_bytes: int
    turn: int
    payload: Payload | None = None
    num_tries: int = 0


class DepotWriter:
    """A bounded queue of puts and drops, and the thread that carries them out in order.

        submit, drop ──▶ [oldest ... newest] ──▶ thread: make() ──▶ depot.put, then flush
                      │ at most queue_bytes,  ◀── back to the front where the depot fails
               get ◀──┘ newest per number

    A submission that finds the queue full waits for at most patience_s, and not at all while the depot is down or
    has not moved since the last wait. Then the oldest waiting pictures make room, or else it is dropped itself,
    and counted. A depot that fails is tried again after retry_s, doubling to max_retry_s; one warning says that
    it is down, one line that it is back. What `make` raises is counted and logged once. It is called in the
    writer's thread, and in the caller's of `get` while the record waits: it must give the same bytes each time.

    A record outlives the process once it is written, and loss of power once it is flushed. One thread submits and
    drops; any thread may get, flush or read stats. The depot stays the caller's to close, after this.

    queue_bytes: cap on what waits, as told by `num_bytes` of each submission.
    patience_s: longest wait of all submissions in a stretch of twice that: half a frame period.
    flush_every_s: longest time that something written stays unflushed.
    retry_s, max_retry_s: first and longest wait before a depot that failed is tried again.
    """

    def __init__(
        self,
        depot: Depot,
        *,
        queue_bytes: int = 64 * 2**20,
        patience_s: float = 0.02,
        flush_every_s: float = 1.0,
        retry_s: float = 0.5,
        max_retry_s: float = 30.0,
    ) -> None:
        if depot.read_only:
            raise ValueError(f"{depot!r} was opened with read_only=True; open it without to write to it")
        if queue_bytes < 1 or patience_s < 0 or flush_every_s <= 0:
            got = f"{queue_bytes}, {patience_s} and {flush_every_s}"
            raise ValueError(f"a writer wants queue_bytes >= 1, patience_s >= 0 and flush_every_s > 0; got {got}")
        self.depot, self.queue_bytes, self.flush_every_s = depot, queue_bytes, flush_every_s
        self._patience = Patience(patience_s)
        self._outage = Outage(retry_s, max_retry_s)
        self._waiting: OrderedDict[tuple[Kind, int], _Op] = OrderedDict()
        self._pictures: OrderedDict[int, _Op] = OrderedDict()  # those of _waiting that are puts of pictures
        self._picture_bytes = 0
        self._writing: _Op | None = None
        self._held_bytes = 0
        self._counts = dict.fromkeys(("submitted", "written", "dropped", "failed", "superseded"), 0)
        self._last_error = ""
        self._has_told = False  # of an error that is not the depot's
        self._is_stalled = self._is_dirty = self._is_closing = self._has_failed_closing = False
        self._flush_at_s = self._give_up_at_s = 0.0
        self._flush_wanted = self._flushed = self._turn = 0
        self._num_bytes: dict[Kind, int] = {}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="millpond depot writer", daemon=True)
        self._thread.start()

    def submit(self, kind: Kind, number: int, make: Callable[[], Payload], *, num_bytes: int) -> bool:
        """Queues a put; False where it was dropped. num_bytes: what it holds while it waits."""
        if num_bytes < 0:
            raise ValueError(f"a submission holds 0 bytes at least; got num_bytes={num_bytes}")
        return self._enqueue(kind, number, make, _OP_BYTES + num_bytes)

    def drop(self, kind: Kind, number: int) -> bool:
        """Queues a drop, also of what still waits; False where it found no room: the record then stays at rest."""
        return self._enqueue(kind, number, None, _OP_BYTES)

    def get(self, kind: Kind, number: int) -> bytes | None:
        """The payload put last, written or not; None where it is not here, is damaged, or the depot is down."""
        check_address(kind, number)
        with self._changed:
            op, writing = self._waiting.get((kind, number)), self._writing
            if op is None and writing is not None and (writing.kind, writing.number) == (kind, number):
                op = writing
        try:
            if op is None:
                return self.depot.get(kind, number)
            made = op.payload
            if made is None and op.make is not None:
                made = _made(op.make)
        except OSError:
            return None  # the thread will find out, and say so
        except Exception as error:
            if op is None:
                raise
            self._tell_once(op, error)
            return None
        return None if made is None else b"".join(parts_of(made))

    def numbers(self, kind: Kind) -> list[int]:
        """Numbers at rest and waiting, increasing. Asks the depot: for the start of a session, not for each frame."""
        with self._changed:
            here = [op for op in (self._writing, *self._waiting.values()) if op is not None and op.kind == kind]
        found = set(self.depot.numbers(kind))
        for op in here:
            (found.discard if op.make is None else found.add)(op.number)
        return sorted(found)

    def num_bytes(self, kind: Kind) -> int:
        """Bytes at rest, what waits not included; as they were last known while the depot does not say."""
        try:
            self._num_bytes[kind] = self.depot.num_bytes(kind)
        except OSError:
            pass
        return self._num_bytes.get(kind, 0)

    def flush(self, wait_s: float) -> bool:
        """Waits until all that was queued before is durable; False where that took longer than wait_s."""
        with self._changed:
            goal = self._turn
            self._flush_wanted = goal
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._flushed >= goal or not self._thread.is_alive(), wait_s)
            return self._flushed >= goal

    def close(self) -> None:
        """Writes and flushes what waits for as long as 1.8 s, drops the rest, ends the thread. May be called again."""
        with self._changed:
            if not self._is_closing:
                self._is_closing = True
                self._give_up_at_s = time.monotonic() + _CLOSE_S
                self._outage.try_now()
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)
        with self._changed:
            left = list(self._waiting.values())
            for op in left:
                self._take(op)
                self._let_go(op, "dropped")
            self._changed.notify_all()
        if left:
            _log.warning("%d records were not written: %s", len(left), self._last_error or "time was up")
        if self._thread.is_alive():
            _log.warning("%r has not answered for %.1f s; its thread is left behind", self.depot, _CLOSE_S)

    @property
    def stats(self) -> DepotStats:
        with self._changed:
            return DepotStats(
                **{f"num_{name}": count for name, count in self._counts.items()},
                num_waiting=len(self._waiting) + (self._writing is not None),
                waiting_bytes=self._held_bytes,
                is_down=self._outage.is_on,
                last_error=self._last_error,
            )

    def check(self) -> None:
        """Recounts the queue; RuntimeError where its books do not balance. The depot has its own check."""
        with self._changed:
            ops = [op for op in (*self._waiting.values(), self._writing) if op is not None]
            counted_bytes = sum(op.held_bytes for op in ops)
            num_ended = sum(count for name, count in self._counts.items() if name != "submitted")
            pictures = [op for op in self._waiting.values() if op.kind == "picture" and op.make is not None]
            if counted_bytes != self._held_bytes or counted_bytes > self.queue_bytes:
                raise RuntimeError(
                    f"the queue's books say {self._held_bytes} of {self.queue_bytes} bytes; it holds {counted_bytes}"
                )
            if num_ended + len(ops) != self._counts["submitted"]:
                raise RuntimeError(f"{self._counts} and {len(ops)} that wait do not add up")
            if pictures != list(self._pictures.values()) or self._picture_bytes != sum(p.held_bytes for p in pictures):
                raise RuntimeError(f"the books say {len(self._pictures)} pictures wait; there are {len(pictures)}")

    def __repr__(self) -> str:
        return f"DepotWriter({self.depot!r}, {len(self._waiting)} waiting{', down' if self._outage.is_on else ''})"

    def _enqueue(self, kind: Kind, number: int, make: Callable[[], Payload] | None, held_bytes: int) -> bool:
        check_address(kind, number)
        with self._changed:
            self._turn += 1
            self._counts["submitted"] += 1
            op = _Op(kind, number, make, held_bytes, self._turn)
            if not self._make_room(op):
                self._counts["dropped"] += 1
                return False
            before = self._waiting.get((kind, number))
            if before is None:
                self._put_back(op)
            else:
                self._replace(before, op)
                self._let_go(before, "superseded")
            self._held_bytes += held_bytes
            self._changed.notify_all()
            return True

    def _make_room(self, op: _Op) -> bool:
        """Waits, then lets the oldest pictures go, until op fits; False where it must not or cannot."""
        if op.held_bytes > self.queue_bytes:
            self._tell_once(op, ValueError(f"got {op.held_bytes} bytes for {self.queue_bytes}; raise queue_bytes"))
            return False

        def fits() -> bool:
            before = self._waiting.get((op.kind, op.number))  # op takes its place
            return self._held_bytes - (before.held_bytes if before else 0) + op.held_bytes <= self.queue_bytes

        def may_not_wait() -> bool:
            return self._is_closing or self._outage.is_on or self._is_stalled

        if not fits() and not may_not_wait():
            self._patience.wait_for(self._changed, lambda: fits() or may_not_wait())
            self._is_stalled = not fits()
        if self._is_closing:
            return False
        if not fits() and self._held_bytes - self._picture_bytes + op.held_bytes <= self.queue_bytes:
            while not fits():
                oldest = next(iter(self._pictures.values()))
                self._take(oldest)
                self._let_go(oldest, "dropped")
        return fits()

    def _put_back(self, op: _Op, *, first: bool = False) -> None:
        key = (op.kind, op.number)
        if first and self._waiting:
            op.turn = min(op.turn, next(iter(self._waiting.values())).turn)  # turns grow along the queue
        self._waiting[key] = op
        if op.kind == "picture" and op.make is not None:
            self._pictures[op.number] = op
            self._picture_bytes += op.held_bytes
            self._pictures.move_to_end(op.number, last=not first)
        self._waiting.move_to_end(key, last=not first)

    def _replace(self, before: _Op, op: _Op) -> None:
        """In the place of what it supersedes, so that what came later is not at rest before it."""
        if op.kind == "picture":  # those are independent of one another, and have a second queue to agree with
            self._take(before)
            self._put_back(op)
        else:
            op.turn = before.turn
            self._waiting[op.kind, op.number] = op

    def _take(self, op: _Op) -> None:
        """Out of the queue, but still held."""
        del self._waiting[op.kind, op.number]
        if op.kind == "picture" and op.make is not None:
            del self._pictures[op.number]
            self._picture_bytes -= op.held_bytes

    def _let_go(self, op: _Op, how: str) -> None:
        self._held_bytes -= op.held_bytes
        self._counts[how] += 1

    def _run(self) -> None:
        while True:
            with self._changed:
                op, is_over = self._wait_for_work()
                if op is not None:
                    self._take(op)
                    self._writing = op
                if is_over:
                    return
            if op is not None:
                self._write(op)
            if self._should_flush():
                self._flush()

    def _wait_for_work(self) -> tuple[_Op | None, bool]:
        """What to write next, if anything; and whether it is over."""
        while True:
            now_s = time.monotonic()
            if self._is_closing and (now_s >= self._give_up_at_s or self._has_failed_closing):
                return None, True
            if self._outage.wait_s > 0:
                self._changed.wait(self._outage.wait_s)
                continue
            if self._waiting:
                op = next(iter(self._waiting.values()))
                if self._outage.is_on:  # a full depot may take drops, and those make room
                    op = next((drop for drop in self._waiting.values() if drop.make is None), op)
                return op, False
            if self._should_flush():
                return None, False
            if self._is_closing:
                return None, True
            self._changed.wait(self._flush_at_s - now_s if self._is_dirty else None)

    def _write(self, op: _Op) -> None:
        try:
            if op.make is None:
                self.depot.drop(op.kind, op.number)
            else:
                if op.payload is None:
                    op.payload = _made(op.make)
                self.depot.put(op.kind, op.number, op.payload)
        except OSError as error:
            self._has_failed(op, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever a caller's `make` raises, the thread goes on
            self._tell_once(op, error)
            with self._changed:
                self._finish(op, "failed")
            return
        with self._changed:
            self._flush_at_s = self._flush_at_s if self._is_dirty else time.monotonic() + self.flush_every_s
            self._is_dirty = True
            self._finish(op, "written")
            # A drop that goes through says nothing of whether there is room again.
            if self._outage.is_on and op.make is not None:
                self._outage.end(repr(self.depot))

    def _should_flush(self) -> bool:
        with self._changed:
            if self._outage.wait_s > 0:
                return False
            first = next(iter(self._waiting.values()), None)
            if self._flush_wanted > self._flushed and (first is None or first.turn > self._flush_wanted):
                return True
            is_last = self._is_closing and first is None
            return self._is_dirty and (is_last or time.monotonic() >= self._flush_at_s)

    def _flush(self) -> None:
        try:
            if self._is_dirty:
                self.depot.flush()
        except OSError as error:
            self._has_failed(None, error)
            return
        with self._changed:
            self._is_dirty = False
            first = next(iter(self._waiting.values()), None)
            self._flushed = max(self._flushed, self._turn if first is None else first.turn - 1)
            if self._outage.is_on and not self._waiting:
                self._outage.end(repr(self.depot))
            self._changed.notify_all()

    def _finish(self, op: _Op, how: str) -> None:
        self._writing = None
        self._is_stalled = False
        self._let_go(op, how)
        self._changed.notify_all()

    def _has_failed(self, op: _Op | None, error: OSError) -> None:
        """The depot has: op waits on in its place, and so does the thread."""
        sentence = redact(str(error))
        with self._changed:
            if op is not None:
                op.num_tries += isinstance(error, DepotFull)
                if (op.kind, op.number) in self._waiting:
                    self._finish(op, "superseded")
                elif op.num_tries >= _MAX_TRIES_WHEN_FULL:
                    self._finish(op, "failed")
                else:
                    self._writing = None
                    self._put_back(op, first=True)
            self._last_error = sentence
            self._has_failed_closing = self._is_closing
            self._outage.fail(sentence)
            self._changed.notify_all()

    def _tell_once(self, op: _Op, error: Exception) -> None:
        sentence = redact(f"{op.kind} {op.number} cannot be archived: {type(error).__name__}: {error}")
        with self._changed:
            self._last_error = sentence
            is_news, self._has_told = not self._has_told, True
        if is_news:
            _log.warning("%s (said once; stats counts them)", sentence)


def _made(make: Callable[[], Payload]) -> Payload:
    """What make gives; its OSErrors are its own and not the depot's."""
    try:
        return make()
    except OSError as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error

"""RedisDepot: records on a Redis server, written by one process and read by any."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from .base import KINDS, Depot, DepotError, DepotFull, DepotTaken, Kind, Payload, check_address, parts_of
from .record import HEADER_BYTES, PUT, header_of
from .redis_keys import Found, Keys, fetch, members, resting_bytes, survey
from .redis_lease import COMMIT, LET_GO, RENEW, Lease
from .redis_link import RedisLink, answers

_log = logging.getLogger(__name__)

_PIECE_BYTES = 2**20  # each piece has the whole timeout to be taken
_STAGED_S = 60
_BATCH = 1000
_MAX_FAULTS = 32
_TRIES = 3  # a server that evicts at random may take what has just come
_STAGE = """
redis.call('del', KEYS[1])
redis.call('setrange', KEYS[1], ARGV[1], ARGV[2])
return redis.call('expire', KEYS[1], ARGV[3])
"""


class RedisDepot(Depot):
    """One session's records under `millpond:{session}:`; a sorted set per kind says which there are.

    Baseline: a key per record, expiring unless its writer renews it; a record is as durable as the server.
    Differs from the paper: None.
    What the server evicts is None and leaves the books; so does what is damaged. Every call answers, or raises
    DepotDown, within the timeout for each step; while the server is known to be away, at once. A value that is
    put is gathered beside its place and takes it whole. Never a secret in messages.
    url: redis://user:password@host:6379/0, rediss:// for TLS, unix:///path.
    session: keeps streams on one server apart; one process writes each, DepotTaken for a second.
    read_only: no lease is taken, and nothing is written.
    timeout_s: to connect, and for each answer, seconds, at most 0.5.
    expire_s: records last so long after their writer is gone, seconds, from 1.
    lease_s: a writer unheard of for so long may be followed by another (at once where it is seen to be dead);
        a thread keeps the lease while nothing is put.
    max_payload_bytes: of one record; what is longer is neither put nor fetched.
    max_records: of one kind.
    clock: seconds, monotonic; for the waits between attempts and for renewals.
    """

    is_shared = True

    def __init__(
        self,
        url: str,
        session: str = "stream",
        *,
        read_only: bool = False,
        timeout_s: float = 0.5,
        expire_s: float = 7 * 86400.0,
        lease_s: float = 10.0,
        max_payload_bytes: int = 64 * 2**20,
        max_records: int = 1_000_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, given, least in (
            ("expire_s", expire_s, 1.0),
            ("lease_s", lease_s, 0.1),
            ("max_payload_bytes", max_payload_bytes, 1),
            ("max_records", max_records, 1),
        ):
            if not least <= given < 2**40:
                raise ValueError(f"{name} is at least {least}; got {given}")
        self.read_only = read_only
        self._keys = Keys(session)
        self._expire_s = int(expire_s)
        self._max_payload_bytes, self._max_records = max_payload_bytes, max_records
        self._clock = clock
        self._link = RedisLink(url, timeout_s=timeout_s, clock=clock)
        self._faults: deque[str] = deque(maxlen=_MAX_FAULTS)
        self._is_closed = False
        self._lock = threading.RLock()  # one writing step at a time; the books change under it
        # A writer's books: bytes of each value. A reader keeps none and asks.
        self._sizes: dict[Kind, dict[int, int]] = {kind: {} for kind in KINDS}
        self._num_bytes: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self._known_failures = 0
        self._renewed_s = float("-inf")  # what is here from before may be near its end
        self._to_renew: Iterator[tuple[Kind, int]] = iter(())
        self._lease = Lease(self._link, self._keys, held_s=lease_s, expire_s=int(expire_s))
        self._closing = threading.Event()
        self._keeper = threading.Thread(
            target=_keep, args=(weakref.ref(self), self._closing, lease_s / 3), name="millpond redis lease", daemon=True
        )
        try:
            if read_only:
                self._link.call(lambda client: client.ping())
            else:
                self._lease.begin()
                for kind in KINDS:
                    self._reload(kind)
                self._keeper.start()
        except BaseException:
            self.close()
            raise

    @property
    def faults(self) -> tuple[str, ...]:  # type: ignore[override]
        """What was found damaged, the newest last; of many, the newest are kept."""
        return tuple(self._faults)

    def put(self, kind: Kind, number: int, payload: Payload) -> None:
        self._check_open(kind, number)
        self.check_writable()
        parts = parts_of(payload)
        parts.insert(0, memoryview(header_of(PUT, number, parts, salt=self._keys.salt(kind))))
        num_bytes = sum(part.nbytes for part in parts)
        if num_bytes > HEADER_BYTES + self._max_payload_bytes:
            raise ValueError(
                f"a record has at most {self._max_payload_bytes} bytes; got {num_bytes - HEADER_BYTES} for "
                f"{kind} {number}; raise max_payload_bytes or put less"
            )
        with self._lock:
            self._recover()
            sizes = self._sizes[kind]
            if number not in sizes and len(sizes) >= self._max_records:
                raise DepotFull(f"{self!r} has {len(sizes)} records of {kind}, the most it may; drop some first")
            num_records = self._commit(kind, number, parts, num_bytes)
            self._book(kind, number, num_bytes)
            if num_records != len(sizes):  # the server let go of the set itself, or somebody wrote to it
                self._restore(kind)

    def get(self, kind: Kind, number: int) -> bytes | None:
        self._check_open(kind, number)
        found = self._fetch(kind, number)
        if found.problem or (found.payload is None and number in self._sizes[kind]):
            with self._lock:
                found = self._fetch_or_let_go(kind, number, found)
        if found.problem:
            self._fault(f"{kind} {number} of session {self._keys.session!r} is damaged and skipped: {found.problem}")
        return found.payload

    def drop(self, kind: Kind, number: int) -> None:
        self._check_open(kind, number)
        self.check_writable()
        with self._lock:
            self._recover()
            self._let_go(kind, number)

    def numbers(self, kind: Kind) -> list[int]:
        """As the server has them now, for the writer and for readers; what it evicted may be among them."""
        self._check_open(kind)
        recorded = members(self._link, self._keys, kind, self._max_records).recorded
        if not recorded and not self.read_only:  # the server may have let go of the set itself, until the next flush
            return sorted(list(self._sizes[kind]))
        return sorted(recorded)

    def num_bytes(self, kind: Kind) -> int:
        """The server's memory for this kind: by the writer's books, or asked for where there are none."""
        self._check_open(kind)
        if not self.read_only:
            return self._num_bytes[kind]
        recorded = members(self._link, self._keys, kind, self._max_records).recorded
        return sum(map(resting_bytes, recorded.values()))

    def flush(self) -> None:
        """Renews the lease, and by and by every record's expiry; a set of numbers that the server has let go of is made
        again. What was put is with the server already."""
        self._check_open()
        self.check_writable()
        with self._lock:
            self._recover()
            self._keep_sets()
            self._renew_some()

    def close(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._closing.set()
            self._lease.end()  # every put is with the server already
            self._link.close()

    def check(self) -> None:
        """Recounts against the server. What it evicted leaves the books here; nothing else may be missing."""
        self._check_open()
        with self._lock:
            if not self.read_only:
                self._keep_sets()
            for kind in KINDS:
                found = survey(self._link, self._keys, kind, self._max_records)
                books = found.recorded if self.read_only else self._sizes[kind]
                for number, num_bytes in found.held.items():
                    if books.get(number) != num_bytes:
                        raise RuntimeError(
                            f"the books say {books.get(number, 0)} bytes for {kind} {number} of {self!r}; "
                            f"the server has {num_bytes}"
                        )
                if self.read_only:
                    continue
                for number in [number for number in self._sizes[kind] if number not in found.held]:
                    self._let_go(kind, number, only_if_gone=True)
                counted_bytes = sum(map(resting_bytes, self._sizes[kind].values()))
                if counted_bytes != self._num_bytes[kind]:
                    raise RuntimeError(
                        f"the books of {self!r} say {self._num_bytes[kind]} bytes of {kind}; "
                        f"its {len(self._sizes[kind])} records take {counted_bytes}"
                    )

    def __repr__(self) -> str:
        held = "read_only" if self.read_only else f"{sum(map(len, self._sizes.values()))} records"
        return f"RedisDepot({self._link.where}, session {self._keys.session!r:.40}, {held})"

    # Writing: under the lock, from here on.

    def _commit(self, kind: Kind, number: int, parts: list[memoryview], num_bytes: int) -> int:
        """Sends a value and puts it in its place, in one round trip; how many records there are then."""
        staged = self._lease.staged_key
        keys = [staged, self._keys.value(kind, number), self._keys.records(kind)]

        def ask(client: Any) -> list[Any]:
            pipe = client.pipeline(transaction=False)
            if num_bytes <= _PIECE_BYTES:
                pipe.set(staged, b"".join(parts), ex=_STAGED_S)
            else:
                # Its last byte first: the server then allocates once, and exactly.
                pipe.eval(_STAGE, 1, staged, num_bytes - 1, bytes(parts[-1][-1:]), _STAGED_S)
                offset = 0
                for part in parts:
                    for first in range(0, part.nbytes, _PIECE_BYTES):
                        piece = part[first : first + _PIECE_BYTES]
                        pipe.setrange(staged, offset, piece)
                        offset += piece.nbytes
            self._lease.add_to(pipe, COMMIT, keys, [number, num_bytes])
            return answers(pipe)

        for _ in range(_TRIES):
            reply = self._lease.read(self._link.call(ask)[-1])
            if reply.state == "ok":
                return reply.num_records
        raise DepotFull(f"{self._link.where} evicts {kind} {number} as soon as it comes; raise its maxmemory")

    def _let_go(self, kind: Kind, number: int, *, only_if_gone: bool = False) -> None:
        keys = [self._keys.value(kind, number), self._keys.records(kind)]
        if not self._lease.run(LET_GO, keys, [number, "gone" if only_if_gone else ""]).num_records:
            self._book(kind, number, None)

    def _fetch_or_let_go(self, kind: Kind, number: int, found: Found) -> Found:
        """Looks once more, as it may have been put just now; then what is damaged or gone leaves the books."""
        if self.read_only:
            return found
        found = self._fetch(kind, number)
        if found.payload is None:
            try:
                self._let_go(kind, number, only_if_gone=not found.problem)
            except DepotError:  # a question is answered all the same; the next check() or open finds it again
                _log.info("%s %d is gone or damaged, and could not be let go", kind, number)
        return found

    def _book(self, kind: Kind, number: int, num_bytes: int | None) -> None:
        """Writes into the books how large a value is; None: it is not there."""
        was = self._sizes[kind].pop(number, None)
        if was is not None:
            self._num_bytes[kind] -= resting_bytes(was)
        if num_bytes is not None:
            self._sizes[kind][number] = num_bytes
            self._num_bytes[kind] += resting_bytes(num_bytes)

    def _recover(self) -> None:
        """After a failure nobody knows what arrived: the lease and the books are made sure of."""
        if self._known_failures == self._link.num_failures:
            return
        num_failures = self._link.num_failures
        self._lease.next_turn()
        for kind in KINDS:
            self._restore(kind)
        self._known_failures = num_failures

    def _keep_sets(self) -> None:
        """Renews the lease, and makes again a set that the server has let go of while it kept the values."""
        self._lease.run(RENEW, [], [])
        keys = {kind: self._keys.records(kind) for kind in KINDS if self._sizes[kind]}
        are_there = self._link.call(lambda client: [client.exists(key) for key in keys.values()])
        for kind, is_there in zip(keys, are_there, strict=True):
            if not is_there:
                self._restore(kind)

    def _restore(self, kind: Kind) -> None:
        """Makes the server's set and the books agree, whichever of the two lost something."""
        sizes = list(self._sizes[kind].items())
        for first in range(0, len(sizes), _BATCH):
            self._record(kind, dict(sizes[first : first + _BATCH]))
        self._reload(kind)

    def _reload(self, kind: Kind) -> None:
        """Reads the books from the server, after taking out of its set what has no value."""
        found = survey(self._link, self._keys, kind, self._max_records)
        gone: list[bytes | str] = [*map(str, found.vanished), *found.strangers]
        key = self._keys.records(kind)
        for first in range(0, len(gone), _BATCH):
            self._unrecord(kind, gone[first : first + _BATCH])
        if found.strangers:
            self._fault(f"{len(found.strangers)} entries of {key!r} were no numbers of records, and are gone")
        wrong = {number: size for number, size in found.held.items() if found.recorded[number] != size}
        if wrong:
            self._record(kind, wrong)
        self._sizes[kind] = found.held
        self._num_bytes[kind] = sum(map(resting_bytes, found.held.values()))
        if found.held:
            self._link.call(lambda client: client.expire(key, self._expire_s))

    def _record(self, kind: Kind, sizes: dict[int, int]) -> None:
        """Puts numbers into the server's set."""
        scores = {str(number): num_bytes for number, num_bytes in sizes.items()}
        self._link.call(lambda client: client.zadd(self._keys.records(kind), scores))

    def _unrecord(self, kind: Kind, members: list[bytes | str]) -> None:
        self._link.call(lambda client: client.zrem(self._keys.records(kind), *members))

    def _renew_some(self) -> None:
        """Renews the expiry of some records; four rounds through all of them in the time that they last."""
        if self._clock() - self._renewed_s >= self._expire_s / 4:
            self._renewed_s = self._clock()
            self._to_renew = iter([(kind, number) for kind in KINDS for number in self._sizes[kind]])
            self._link.call(lambda client: [client.expire(self._keys.records(k), self._expire_s) for k in KINDS])
        some = [record for record, _ in zip(self._to_renew, range(_BATCH), strict=False)]
        if not some:
            return

        def ask(client: Any) -> list[Any]:
            pipe = client.pipeline(transaction=False)
            for kind, number in some:
                pipe.expire(self._keys.value(kind, number), self._expire_s)
            return answers(pipe)

        for (kind, number), is_there in zip(some, self._link.call(ask), strict=True):
            if not is_there and number in self._sizes[kind]:
                self._let_go(kind, number, only_if_gone=True)

    def _fetch(self, kind: Kind, number: int) -> Found:
        return fetch(self._link, self._keys, kind, number, self._max_payload_bytes)

    def _fault(self, sentence: str) -> None:
        if sentence not in self._faults:
            self._faults.append(sentence)
            _log.warning("%s", sentence)

    def _check_open(self, kind: str = "kv", number: int = 0) -> None:
        check_address(kind, number)
        if self._is_closed:
            raise ValueError(f"got a call after close() of {self!r}; open it again")


def _keep(depot: weakref.ref[RedisDepot], closing: threading.Event, every_s: float) -> None:
    """Keeps a depot's lease while nothing is put, until it is closed, forgotten or taken over."""
    while not closing.wait(every_s):
        held = depot()
        if held is None:
            return
        try:
            held.flush()
        except DepotTaken:
            return  # said by the lease
        except (DepotError, ValueError):  # away: whoever writes next will say so; or closed just now
            continue
        finally:
            del held

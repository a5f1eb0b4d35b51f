"""Depot: the contract of where records outlive the process, and the errors that it speaks in."""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["kv", "picture", "line", "state"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""kv: blocks at rest; picture: keyframes; line: text; state: what a session must know again."""

Bytes = bytes | bytearray | memoryview
Payload = Bytes | Sequence[Bytes]
"""What a record holds: one buffer, or several that are joined in order."""

MAX_NUMBER = 2**63 - 1
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class DepotError(OSError):
    """The depot cannot do this now: broken, unreachable, read-only at the system's will. It may be tried again."""


class DepotFull(DepotError):
    """No room is left for this record; what was there before stays readable."""


class DepotTaken(DepotError):
    """Another one is writing here; it must end first, or this one must open it read_only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DepotStats:
    """Made by DepotWriter, read by metrics, written by nobody: a snapshot.

    num_submitted = num_written + num_dropped + num_failed + num_superseded + num_waiting, drops included.

    num_submitted: puts and drops handed in.
    num_written: those that the depot has taken.
    num_dropped: those that found no room in the queue, or were still waiting at the end.
    num_failed: those whose payload could not be made, or that the depot refused for good.
    num_superseded: those that a later put or drop of the same number made needless while they waited.
    num_waiting: those in the queue, the one being written included; waiting_bytes is what they hold.
    is_down: the depot failed last time; it is tried again by and by.
    last_error: the last failure as a sentence, "" where there was none.
    """

    num_submitted: int
    num_written: int
    num_dropped: int
    num_failed: int
    num_superseded: int
    num_waiting: int
    waiting_bytes: int
    is_down: bool
    last_error: str


class Depot(ABC):
    """Records by kind and number, kept as they are given.

    Promises, checked for every row: `get` gives back what was `put` last, byte for byte, or None: never something
    else, and never an older payload of a number that was dropped; `drop` of what is not there does nothing;
    `numbers` is increasing; `num_bytes` is what the kind takes at rest, overhead and dead room included, and
    `check` recounts it; a failed `put` leaves what was there before readable. One thread puts, drops and flushes
    (DepotWriter's); `get`, `numbers` and `num_bytes` may be called by others at the same time.

    Durable means: safe from the death of the process once `put` or `drop` has returned, safe from loss of power
    once `flush` has. (A RAM depot is neither.)

    faults: sentences on what was found damaged and skipped when it was opened.
    is_shared: others may read here while this one writes.
    read_only: put, drop and flush are refused.
    """

    faults: tuple[str, ...] = ()
    is_shared: bool = False
    read_only: bool = False

    @abstractmethod
    def put(self, kind: Kind, number: int, payload: Payload) -> None:
        """Keeps a record in place of the one that has this number; DepotFull or DepotError where it cannot."""

    @abstractmethod
    def get(self, kind: Kind, number: int) -> bytes | None:
        """The payload, or None where it is not here (any more) or is damaged."""

    @abstractmethod
    def drop(self, kind: Kind, number: int) -> None:
        """Lets the record go; DepotError where that could not be written down."""

    @abstractmethod
    def numbers(self, kind: Kind) -> list[int]:
        """Numbers of the records that are here, increasing."""

    @abstractmethod
    def num_bytes(self, kind: Kind) -> int:
        """Bytes at rest for this kind."""

    @abstractmethod
    def flush(self) -> None:
        """Returns when what was put and dropped before is durable; DepotError where it may not be."""

    @abstractmethod
    def close(self) -> None:
        """Flushes and lets go; may be called again. Everything else raises ValueError afterwards."""

    @abstractmethod
    def check(self) -> None:
        """Recounts from scratch; RuntimeError with both numbers where the books do not balance."""

    def check_writable(self) -> None:
        """ValueError on a depot that was opened to be read."""
        if self.read_only:
            raise ValueError(f"{self!r} was opened with read_only=True; open it without to put or drop records")


def check_address(kind: str, number: int) -> None:
    """ValueError unless a record may have this kind and number."""
    if kind not in KINDS:
        raise ValueError(f"no kind of record named {kind!r}; there are: {', '.join(KINDS)}")
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"a record's number is an integer from 0 to {MAX_NUMBER}; got {number!r}")


def parts_of(payload: Payload) -> list[memoryview]:
    """The buffers of a payload as flat bytes, without a copy; ValueError where one is not contiguous."""
    whole = isinstance(payload, bytes | bytearray | memoryview)
    parts = [memoryview(part) for part in ((payload,) if whole else payload)]
    for part in parts:
        if not part.c_contiguous:
            raise ValueError(f"a payload's buffers are contiguous; got one with strides {part.strides}")
    return [part.cast("B") if part.ndim != 1 or part.format != "B" else part for part in parts if part.nbytes]


def as_depot_error(error: OSError, what: str) -> DepotError:
    """The error as ours, `what` being the beginning of the sentence: "cannot write ..."."""
    sentence = f"{what}: {error.strerror or error}"
    if error.errno in _NO_ROOM:
        return DepotFull(f"{sentence}; free some room or lower the budget")
    return DepotError(sentence)

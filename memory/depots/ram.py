"""RamDepot: records in this process, gone with it."""

from __future__ import annotations

import sys
import threading

from .base import KINDS, Depot, Kind, Payload, check_address, parts_of


class RamDepot(Depot):
    """A dictionary per kind: the depot of a session that need not outlive its process.

    Baseline: a dictionary.
    Differs from the paper: None.
    read_only: puts and drops are refused.
    """

    def __init__(self, *, read_only: bool = False) -> None:
        self.read_only = read_only
        self._records: dict[Kind, dict[int, bytes]] = {kind: {} for kind in KINDS}
        self._num_bytes: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self._is_closed = False
        self._lock = threading.Lock()

    def put(self, kind: Kind, number: int, payload: Payload) -> None:
        self._check_open(kind, number)
        self.check_writable()
        kept = b"".join(parts_of(payload))
        with self._lock:
            self._forget(kind, number)
            self._records[kind][number] = kept
            self._num_bytes[kind] += sys.getsizeof(kept)

    def get(self, kind: Kind, number: int) -> bytes | None:
        self._check_open(kind, number)
        return self._records[kind].get(number)

    def drop(self, kind: Kind, number: int) -> None:
        self._check_open(kind, number)
        self.check_writable()
        with self._lock:
            self._forget(kind, number)

    def numbers(self, kind: Kind) -> list[int]:
        self._check_open(kind)
        with self._lock:
            return sorted(self._records[kind])

    def num_bytes(self, kind: Kind) -> int:
        self._check_open(kind)
        return self._num_bytes[kind]

    def flush(self) -> None:
        self._check_open()
        self.check_writable()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            for records in self._records.values():
                records.clear()

    def check(self) -> None:
        self._check_open()
        with self._lock:
            for kind, records in self._records.items():
                counted_bytes = sum(sys.getsizeof(kept) for kept in records.values())
                if counted_bytes != self._num_bytes[kind]:
                    raise RuntimeError(
                        f"the RAM depot's books say {self._num_bytes[kind]} bytes of {kind}; "
                        f"its {len(records)} records hold {counted_bytes}"
                    )

    def __repr__(self) -> str:
        return f"RamDepot({sum(map(len, self._records.values()))} records)"

    def _forget(self, kind: Kind, number: int) -> None:
        gone = self._records[kind].pop(number, None)
        if gone is not None:
            self._num_bytes[kind] -= sys.getsizeof(gone)

    def _check_open(self, kind: str = "kv", number: int = 0) -> None:
        check_address(kind, number)
        if self._is_closed:
            raise ValueError("this RAM depot got closed, and what it held is gone; open a new one")

"""Shelf: the archive's room: which pictures stand in the store, how much they take, and which must leave."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Literal, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from ..stream import Span
from .depots import Payload
from .keyframe import Head, encode_head, encode_pixels
from .picture_index import Found, PictureIndex

# Shapes: H rows of pixels, W columns, 3 colours.

_MAX_UNMADE = 256
_MAX_COMING = 16  # pictures that room is kept for while they wait to be coded
_HASTE = 8  # several leave at once where the store is too full, since their room may come back late
_OVERHEAD_BYTES = 512  # of two records, besides vector and pixels


class Store(Protocol):
    """What an archive needs of a DepotWriter. To look only (restore, find, get), a Depot opened to be read will do."""

    def submit(self, kind: Literal["picture"], number: int, make: Callable[[], Payload], *, num_bytes: int) -> bool: ...
    def drop(self, kind: Literal["picture"], number: int) -> bool: ...
    def get(self, kind: Literal["picture"], number: int) -> bytes | None: ...
    def numbers(self, kind: Literal["picture"]) -> list[int]: ...
    def num_bytes(self, kind: Literal["picture"]) -> int: ...


class GoneEvent(NamedTuple):
    """An event whose last picture left the archive."""

    number: int
    span: Span


class Shelf:
    """Pictures in a store, under a cap; each is two records: 2n its head, 2n + 1 its pixels. Not thread-safe.

    How many bytes a picture takes is known when the store has it coded, and room that is given back may come late:
    a directory holds up to as many dead bytes as living ones before it tidies up. So some of the budget stays free,
    and where the store is too full all the same, pictures leave until three eighths are left, at which every
    depot has room again.

    store: where pictures are.
    index: what is known of them.
    budget_bytes, index_budget_bytes: the caps of the two.
    """

    def __init__(self, store: Store, index: PictureIndex, budget_bytes: int, index_budget_bytes: int) -> None:
        if 2 * index.chunk_bytes > index_budget_bytes:
            raise ValueError(
                f"an index of vectors of {index.num_channels} channels needs {2 * index.chunk_bytes} bytes; got "
                f"index_budget_bytes={index_budget_bytes}; raise it"
            )
        self.index = index
        self._store = store
        self._budget_bytes, self._index_budget_bytes = budget_bytes, index_budget_bytes
        self._made: deque[tuple[int, int]] = deque()  # numbers and bytes, from the thread that codes
        self._unmade: deque[int] = deque()  # handed in, but not coded yet as far as is known; increasing
        self._trash: list[int] = []  # records to be dropped
        self._gone: list[GoneEvent] = []
        self._largest_bytes = 0
        self.num_lost = 0

    def put(self, head: Head, picture_HW3: np.ndarray, quality: int, extra: Mapping[str, Tensor]) -> bool:
        """Hands a picture to the store, to be coded there; False where it is not taken."""
        number, made = head.number, self._made
        head_bytes = 2 * self.index.num_channels + _OVERHEAD_BYTES

        def make() -> list[bytes | memoryview]:
            pieces = encode_pixels(number, picture_HW3, quality, extra)
            made.append((number, head_bytes + sum(map(len, pieces))))
            return pieces

        self.index.add(Found(number, head.span, head.event), head.vector_D, is_first=head.is_first)
        self._unmade.append(number)
        raw_bytes = picture_HW3.nbytes + sum(tensor.nbytes for tensor in extra.values())
        is_taken = self._store.submit("picture", 2 * number, lambda: encode_head(head), num_bytes=head_bytes)
        is_taken = is_taken and self._store.submit("picture", 2 * number + 1, make, num_bytes=raw_bytes)
        if not is_taken:
            self._lose(number)
        return is_taken

    def take_in(self, head: Head, vector_D: Tensor | None, num_bytes: int) -> None:
        """Knows of a picture that is in the store already, of about as many bytes."""
        found = Found(head.number, head.span, head.event)
        self.index.add(found, vector_D, is_first=head.is_first, num_bytes=num_bytes)

    def tidy(self) -> list[GoneEvent]:
        """Takes note of what was coded and what was lost, lets go what is too much; events that left wholly."""
        self._hear()
        self.trim()
        trash, self._trash = self._trash, []
        # A drop that finds no room is tried again: a record that nobody knows of would stay for good.
        self._trash = [number for number in trash if not self._store.drop("picture", number)]
        gone, self._gone = self._gone, []
        return gone

    def trim(self) -> None:
        """Lets pictures go until the caps are kept; the store is told by `tidy`."""
        index = self.index
        coming_bytes = min(len(self._unmade), _MAX_COMING) * self._largest_bytes
        free_bytes = max(4 * self._largest_bytes, self._budget_bytes // 32) + coming_bytes
        free_bytes = min(free_bytes, self._budget_bytes // 2)
        room_bytes = self._budget_bytes - free_bytes
        while index.num_rows and index.picture_bytes > room_bytes:
            self._remove(self._victim())
        too_many_bytes = _HASTE * (self._store.num_bytes("picture") - room_bytes)
        while too_many_bytes > 0 and index.num_rows and index.picture_bytes > room_bytes * 3 // 8:
            before = index.picture_bytes
            self._remove(self._victim())
            too_many_bytes -= before - index.picture_bytes
        self.trim_index()

    def trim_index(self) -> None:
        """Forgets pictures until the index keeps its cap."""
        while self.index.num_bytes > self._index_budget_bytes:
            self._remove(self._victim())

    def discard(self, numbers: Iterable[int]) -> None:
        """Has records dropped that are of no use."""
        self._trash += numbers

    def keep_only(self, records: Set[int]) -> None:
        """Forgets pictures whose pixels are not among these records and that do not wait either."""
        waiting = set(self._unmade)
        for number in self.index.numbers:
            if 2 * number + 1 not in records and number not in waiting:
                self._lose(number)

    def check(self) -> None:
        """RuntimeError where the books do not balance or a cap is passed."""
        self.index.check()
        if self.index.num_bytes > self._index_budget_bytes:
            raise RuntimeError(f"the index takes {self.index.num_bytes} bytes, of {self._index_budget_bytes} at most")
        if len(self._unmade) > _MAX_UNMADE:
            raise RuntimeError(f"{len(self._unmade)} pictures are not coded yet, of {_MAX_UNMADE} at most")

    def _hear(self) -> None:
        """What the store has coded; and of what it should have coded before, what it has not got."""
        newest = -1
        while self._made:
            number, num_bytes = self._made.popleft()
            self._largest_bytes = max(self._largest_bytes, num_bytes)
            if number in self.index:
                self.index.set_picture_bytes(number, num_bytes)
                newest = max(newest, number)
        is_heard = {
            number for number in self._unmade if number not in self.index or self.index.picture_bytes_of(number)
        }
        self._unmade = deque(number for number in self._unmade if number not in is_heard)
        while self._unmade and (self._unmade[0] < newest or len(self._unmade) > _MAX_UNMADE):
            # Either it waits still, and is coded to answer this, or it was dropped.
            number = self._unmade.popleft()
            if self._store.get("picture", 2 * number + 1) is None:
                self._lose(number)

    def _lose(self, number: int) -> None:
        self.num_lost += 1
        if number in self._unmade:
            self._unmade.remove(number)
        found = self.index.find_row(number)
        if found is not None:
            self._remove(found)

    def _victim(self) -> Found:
        """The oldest of those that begin no event, but for the newest quarter; or else the oldest of all."""
        oldest, newest = self.index.ends
        thin = self.index.oldest(among_firsts=False)
        if thin is not None and thin.number - oldest.number <= (newest.number - oldest.number) * 3 // 4:
            return thin
        return oldest

    def _remove(self, found: Found) -> None:
        self.index.remove(found.number)
        self._trash += (2 * found.number, 2 * found.number + 1)
        if not self.index.has_event(found.event):
            # It lasted until the next one that is known began, where the clock did not go back.
            follower = self.index.first_after(found.number)
            end_s = found.span.end_s if follower is None else max(found.span.end_s, follower.span.start_s)
            self._gone.append(GoneEvent(found.event, Span(found.span.start_s, end_s)))

"""SegmentBooks: where each record of a log is, and which records its files are still needed for."""

from __future__ import annotations

import threading
from array import array
from typing import NamedTuple

from .record import HEADER_BYTES
from .segment_file import FILE_HEADER_BYTES


class Place(NamedTuple):
    """A record: its file's index, where in it, and how long its payload is."""

    index: int
    offset: int
    payload_bytes: int


class Segment:
    """A file of records; living_bytes: its records that are still needed, its own header not counted."""

    def __init__(self, path: str, index: int, salt: int) -> None:
        self.path, self.index, self.salt = path, index, salt
        self.num_bytes = FILE_HEADER_BYTES
        self.living_bytes = 0
        self.puts = array("q")  # the numbers that it has puts of, dead or living

    @property
    def dead_bytes(self) -> int:
        return self.num_bytes - FILE_HEADER_BYTES - self.living_bytes


class SegmentBooks:
    """Told of records in the order in which they were written.

        00000003.seg            00000007.seg            00000009.seg
        [put 1][put 2]          [drop 1][put 2]         [put 5]
         dead   dead             needed while 3 exists

    A drop is a record, too. It is needed, and counted as living, for as long as another file has a put of its
    number: else deleting this file would bring the put back. `lock` guards it all; several threads may read.
    """

    def __init__(self) -> None:
        self.segments: dict[int, Segment] = {}
        self.living: dict[int, Place] = {}
        self.drops: dict[int, int] = {}  # number -> segment of the drop that is needed
        self.lock = threading.RLock()
        self._holders: dict[int, tuple[int, ...]] = {}  # number -> segments with puts of it

    def put(self, number: int, place: Place) -> None:
        """A put was written at `place`."""
        segment = self.segments[place.index]
        self._forget(number)
        self.living[number] = place
        segment.living_bytes += HEADER_BYTES + place.payload_bytes
        segment.puts.append(number)
        holders = self._holders.get(number, ())
        if place.index not in holders:
            self._holders[number] = (*holders, place.index)

    def drop(self, number: int, segment: Segment) -> None:
        """A drop was written into this segment, or a put that is damaged by now."""
        self._forget(number)
        if any(index != segment.index for index in self._holders.get(number, ())):
            self.drops[number] = segment.index
            segment.living_bytes += HEADER_BYTES

    def remove(self, segment: Segment) -> None:
        """A file is gone, and what it alone held with it; drops that were needed because of it are dead."""
        for number in set(segment.puts):
            place = self.living.get(number)
            if place is not None and place.index == segment.index:
                self._forget(number)
        for number in self.drops_in(segment):
            self._forget(number)
        del self.segments[segment.index]
        for number in set(segment.puts):
            holders = tuple(index for index in self._holders[number] if index != segment.index)
            if holders:
                self._holders[number] = holders
            else:
                del self._holders[number]
            drop = self.drops.get(number)
            if drop is not None and all(index == drop for index in holders):
                self._forget(number)

    def puts_in(self, segment: Segment) -> list[tuple[int, Place]]:
        """The living records of a file, by number."""
        found = ((number, self.living.get(number)) for number in sorted(set(segment.puts)))
        return [(number, place) for number, place in found if place is not None and place.index == segment.index]

    def drops_in(self, segment: Segment) -> list[int]:
        """Numbers whose needed drop is in this file."""
        return [number for number, index in self.drops.items() if index == segment.index]

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(segment.num_bytes for segment in self.segments.values())

    def compare(self, other: SegmentBooks, name: str) -> None:
        """RuntimeError where the other books say something else."""
        for what, here, there in (
            ("records", self.living, other.living),
            ("needed drops", self.drops, other.drops),
            ("files", self._bytes_by_index(), other._bytes_by_index()),
        ):
            if here != there:
                different = sorted(set(here.items()) ^ set(there.items()))[:4]
                raise RuntimeError(
                    f"the books of {name} say {len(here)} {what}, what is there says {len(there)}; "
                    f"they differ in {different}"
                )

    def _bytes_by_index(self) -> dict[int, tuple[int, int]]:
        return {index: (segment.num_bytes, segment.living_bytes) for index, segment in self.segments.items()}

    def _forget(self, number: int) -> None:
        """What the number was before, a record or a drop, is dead."""
        place = self.living.pop(number, None)
        if place is not None:
            self.segments[place.index].living_bytes -= HEADER_BYTES + place.payload_bytes
        index = self.drops.pop(number, None)
        if index is not None:
            self.segments[index].living_bytes -= HEADER_BYTES

"""LostPictures: notices H.264 pictures that were lost whole, which a decoder covers up without a word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import av

# Where a unit of an Annex B stream begins; and what is put in so that nothing else looks like that.
_START, _STUFFING = re.compile(b"\x00\x00\x01"), re.compile(b"\x00\x00\x03")
_SLICE, _KEY_SLICE, _PARAMETERS = 1, 5, 7  # kinds of units
_HEAD_BYTES = 4096  # of a packet: what comes before its first slice is short
# Profiles whose parameters say how colours are coded.
_PROFILES_WITH_COLOURS = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 144, 244})


class _Count(NamedTuple):
    """How a stream counts its pictures: `num_bits` wide, after `num_skipped_bits` for planes; gaps may be meant."""

    num_bits: int
    num_plane_bits: int
    may_skip: bool


class LostPictures:
    """Follows the count (`frame_num`) that every H.264 picture carries, over the packets of one connection in their
    order. What other codecs lose is left to their decoders.

    Pictures that no other is predicted from do not count, and may be lost unnoticed: nothing is made up for them.
    """

    def __init__(self, codec: str, extradata: bytes | None = None) -> None:
        self._is_followed = codec == "h264"
        self._count: _Count | None = None
        self._last: int | None = None  # of the newest picture that others are predicted from
        if extradata:
            self._read_parameters(extradata)

    def notice(self, packet: av.Packet) -> bool:
        """Whether pictures are missing between the packet before and this one. Call it once for each, in order."""
        return self._is_followed and self._follow(bytes(memoryview(packet)[:_HEAD_BYTES]))

    def _follow(self, head: bytes) -> bool:
        self._read_parameters(head)
        for unit in _units(head):
            kind, is_reference = unit[0] & 31, bool(unit[0] & 0x60)
            if kind not in (_SLICE, _KEY_SLICE):
                continue
            number, last = self._number(unit), self._last
            if number is None or self._count is None:
                self._last = None
                return False
            following = None if last is None else (last + 1) % (1 << self._count.num_bits)
            is_lost = kind == _SLICE and last is not None and number not in (last, following)
            if is_reference:
                self._last = number
            elif is_lost:
                self._last = (number - 1) % (1 << self._count.num_bits)
            return is_lost and not self._count.may_skip
        return False

    def _number(self, unit: bytes) -> int | None:
        """The count in a slice's header; None where it cannot be read."""
        if self._count is None:
            return None
        try:
            bits = _Bits(unit[1:40])
            bits.skip_numbers(3)  # its place, its kind, its parameters
            bits.take(self._count.num_plane_bits)
            return bits.take(self._count.num_bits)
        except IndexError:
            return None

    def _read_parameters(self, data: bytes) -> None:
        for unit in _units(data):
            if unit[0] & 31 == _PARAMETERS:
                try:
                    self._count = _count_of(_Bits(unit[1:]))
                except IndexError:
                    self._count = None


def _units(data: bytes) -> list[bytes]:
    starts = [match.end() for match in _START.finditer(data)]
    ends = [*(start - 3 for start in starts[1:]), len(data)]
    return [data[start:end] for start, end in zip(starts, ends, strict=False) if end > start]


def _count_of(bits: _Bits) -> _Count:
    """Reads a sequence parameter set as far as it tells how pictures are counted."""
    profile = bits.take(8)
    bits.take(16)
    bits.skip_numbers(1)
    num_plane_bits = 0
    if profile in _PROFILES_WITH_COLOURS:
        chroma = bits.number()
        num_plane_bits = 2 if chroma == 3 and bits.take(1) else 0
        bits.skip_numbers(2)
        bits.take(1)
        if bits.take(1):
            for place in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    bits.skip_scaling_list(16 if place < 6 else 64)
    num_bits = 4 + min(bits.number(), 12)
    order = bits.number()
    if order == 0:
        bits.skip_numbers(1)
    elif order == 1:
        bits.take(1)
        bits.skip_numbers(2)
        bits.skip_numbers(min(bits.number(), 255))
    bits.skip_numbers(1)
    return _Count(num_bits, num_plane_bits, bool(bits.take(1)))


class _Bits:
    """Reads bits from the front. Raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = _STUFFING.sub(b"\x00\x00", data)
        self._at = 0

    def take(self, num_bits: int) -> int:
        value = 0
        for _ in range(num_bits):
            value = value << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value

    def number(self) -> int:
        """An Exp-Golomb number, without a sign."""
        num_zeros = 0
        while not self.take(1):
            num_zeros += 1
        return (1 << num_zeros) - 1 + self.take(num_zeros)

    def skip_numbers(self, num: int) -> None:
        for _ in range(num):
            self.number()

    def skip_scaling_list(self, num_entries: int) -> None:
        last = following = 8
        for _ in range(num_entries):
            if following:
                code = self.number()
                following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
            last = following or last

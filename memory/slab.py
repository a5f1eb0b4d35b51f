"""Slab: strings of bytes in pages of a few large tensors, so that keeping one more allocates nothing."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

# Shapes: B bytes of a chunk.

_END = -1  # after the last page of a chain
_PLACE_BITS = 22  # a page's number: number of its chunk, then its place there
_MAX_PLACES = (1 << _PLACE_BITS) - 1  # so that the last page of a chunk is not followed by the first of the next
_PLACE = (1 << _PLACE_BITS) - 1
_LINK_BYTES = 2 * array("i").itemsize
_GROWTH = 48  # a chunk is at least this part of all before it, so there are 48 ln(pages) of them at most
_SPARE = 8  # no more than this part of the pages is free for long, beside room for one string

_MIN_PAGE_BYTES = 192
_PAGES_PER_STRING = 64  # in the first one, if it is long: one of another length then wastes less than a page of it


class Moved(NamedTuple):
    """The first page of a string is now another one."""

    tag: int
    first: int


def page_bytes_for(num_bytes: int) -> int:
    """Bytes of a page that suits strings of this length: the first one in a slab decides."""
    num_pages = min(max(num_bytes // (2 * _MIN_PAGE_BYTES), 1), _PAGES_PER_STRING)
    return max(_MIN_PAGE_BYTES, 8 * -(-num_bytes // (8 * num_pages)))


class _Chunk:
    """Pages side by side, and their links: to the next page of a chain, and to the one before."""

    def __init__(self, number: int, num_pages: int, page_bytes: int, device: torch.device) -> None:
        self.bytes_B = torch.empty(num_pages * page_bytes, dtype=torch.uint8, device=device)
        first = number << _PLACE_BITS
        self.after = array("i", range(first + 1, first + num_pages + 1))
        self.after[-1] = _END
        self.before = array("i", bytes(4 * num_pages))
        self.free = first  # begins the chain of pages that nobody uses
        self.num_free = self.num_pages = num_pages


class Slab:
    """Strings of bytes, each in a chain of pages wherever there are free ones. Not thread-safe.

        chunk 0 [a0 a1 a2 b0 b1 -- --]   chunk 1 [c0 c1 c2 b2]     b: page 3 -> page 4 -> page 3 of chunk 1
                                                                   the first page points back at the string's tag

    Growing moves nothing: another chunk comes, a 48th of what is there or as much as is needed. When strings go,
    pages are moved out of chunks and the chunks given back, unless what is then free would be less than
    a 48th, or than the last string took: it would only come back. At most an eighth stays free beyond that.
    An emptied slab holds nothing.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._chunks: list[_Chunk | None] = []
        self._page_bytes = 0  # not decided
        self._num_pages = self._num_free = self._last_pages = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of all pages and links, used and free."""
        return self._num_pages * (self._page_bytes + _LINK_BYTES)

    def num_bytes_with(self, *lengths_bytes: int) -> int:
        """What `num_bytes` will be after these strings, put one after the other."""
        page_bytes = self._page_bytes or page_bytes_for(next(iter(lengths_bytes), 0))
        num_pages, num_free = self._num_pages, self._num_free
        for length_bytes in lengths_bytes:
            needed = _pages(length_bytes, page_bytes)
            grown = _growth(num_pages, num_free, needed)
            num_pages, num_free = num_pages + grown, num_free + grown - needed
        return num_pages * (page_bytes + _LINK_BYTES)

    def num_bytes_alone(self, length_bytes: int) -> int:
        """What `num_bytes` would be with this string and nothing else."""
        page_bytes = page_bytes_for(length_bytes)
        return _pages(length_bytes, page_bytes) * (page_bytes + _LINK_BYTES)

    def num_strings_to_drop(self, lengths_bytes: Iterable[int], length_bytes: int) -> int:
        """How many of these strings, that are here, must go until one of `length_bytes` fits without growing."""
        missing = _pages(length_bytes, self._page_bytes) - self._num_free
        num_gone = 0
        for gone_bytes in lengths_bytes:
            if missing <= 0:
                break
            missing -= _pages(gone_bytes, self._page_bytes)
            num_gone += 1
        return num_gone

    def put(self, pieces: Sequence[Tensor], tag: int) -> int:
        """Copies the pieces in, as one string; its first page, by which it is found.

        Args:
            pieces: rows of uint8, on any device.
            tag: what `tidy` calls the string by, not negative.
        """
        length_bytes = sum(len(piece) for piece in pieces)
        page_bytes = self._page_bytes or page_bytes_for(length_bytes)
        needed = _pages(length_bytes, page_bytes)
        if grown := _growth(self._num_pages, self._num_free, needed):
            self._grow(grown, page_bytes)
        pages = self._take(needed)
        self._link(pages, tag)
        self._last_pages = needed
        _pour(pieces, self._stretches(pages))
        return pages[0]

    def read(self, first: int, into: Sequence[Tensor]) -> None:
        """Fills rows of uint8, on any device, one after the other, with the string."""
        _pour(self._stretches(self._chain(first)), into)

    def drop(self, first: int) -> None:
        """Frees the pages of a string; `tidy` gives them back."""
        pages = self._chain(first)
        for page in reversed(pages):  # so that they are taken in the same order, side by side as they were
            chunk = self._chunk(page)
            chunk.after[page & _PLACE] = chunk.free
            chunk.free = page
            chunk.num_free += 1
        self._num_free += len(pages)
        if self._num_free == self._num_pages:
            self._clear()

    def tidy(self) -> list[Moved]:
        """Gives back chunks that are not needed; the strings whose first page is another one now."""
        moved: list[Moved] = []
        while (room := self._num_free - max(self._last_pages, self._num_pages // _GROWTH)) > 0:
            number = self._emptiest(room)
            if number is None and room > self._num_pages // _SPARE:
                number = self._make_way(room)
            if number is None:
                break
            moved += self._give_back(number)
        return moved

    def retag(self, first: int, tag: int) -> None:
        """From now on `tidy` calls the string so."""
        self._chunk(first).before[first & _PLACE] = ~tag

    def check(self, strings: Iterable[tuple[int, int, int]]) -> None:
        """Recounts; RuntimeError with the numbers where the books do not balance.

        Args:
            strings: all that are here: tag, first page, length in bytes.
        """
        chunks = [chunk for chunk in self._chunks if chunk is not None]
        counted_bytes = sum(
            chunk.bytes_B.untyped_storage().nbytes() + _LINK_BYTES * len(chunk.after) for chunk in chunks
        )
        if counted_bytes != self.num_bytes:
            raise RuntimeError(f"the slab's books say {self.num_bytes} bytes; it holds {counted_bytes}")
        free = list(chain.from_iterable(self._chain(chunk.free) for chunk in chunks))
        if len(free) != self._num_free or len(free) != sum(chunk.num_free for chunk in chunks):
            raise RuntimeError(f"the slab's books say {self._num_free} free pages; it has {len(free)}")
        seen = set(free)
        num_seen = len(free)
        for tag, first, length_bytes in strings:
            pages = self._chain(first)
            if len(pages) != _pages(length_bytes, self._page_bytes):
                raise RuntimeError(f"a string of {length_bytes} bytes is in {len(pages)} pages of {self._page_bytes}")
            before = [~tag, *pages[:-1]]
            if [self._chunk(page).before[page & _PLACE] for page in pages] != before:
                raise RuntimeError(f"the {len(pages)} pages of string {tag} do not point back at each other")
            seen.update(pages)
            num_seen += len(pages)
        if not len(seen) == num_seen == self._num_pages:
            raise RuntimeError(
                f"the slab has {self._num_pages} pages; {num_seen} are in chains, {len(seen)} of them once"
            )

    def _clear(self) -> None:
        self._chunks = []
        self._page_bytes = 0
        self._num_pages = self._num_free = self._last_pages = 0

    def _chunk(self, page: int) -> _Chunk:
        chunk = self._chunks[page >> _PLACE_BITS]
        if chunk is None:
            raise RuntimeError(f"page {page} of the slab is in a chunk that was given back")
        return chunk

    def _chain(self, page: int) -> list[int]:
        pages = []
        while page != _END:
            pages.append(page)
            page = self._chunk(page).after[page & _PLACE]
            if len(pages) > self._num_pages:
                raise RuntimeError(f"a chain of the slab's {self._num_pages} pages runs in a circle")
        return pages

    def _stretches(self, pages: Sequence[int]) -> Iterator[Tensor]:
        """Their bytes, those of neighbours in one piece."""
        begin = 0
        for at in range(1, len(pages) + 1):
            if at == len(pages) or pages[at] != pages[at - 1] + 1:
                place = pages[begin] & _PLACE
                bytes_B = self._chunk(pages[begin]).bytes_B
                yield bytes_B[place * self._page_bytes : (place + at - begin) * self._page_bytes]
                begin = at

    def _take(self, needed: int) -> list[int]:
        """Pages that are free, and now are not."""
        pages: list[int] = []
        for chunk in self._chunks:
            if chunk is not None and chunk.num_free:
                taken = min(needed - len(pages), chunk.num_free)
                for _ in range(taken):
                    pages.append(chunk.free)
                    chunk.free = chunk.after[chunk.free & _PLACE]
                chunk.num_free -= taken
                if len(pages) == needed:
                    break
        self._num_free -= needed
        return pages

    def _link(self, pages: Sequence[int], tag: int) -> None:
        for page, following in pairwise(pages):
            self._chunk(page).after[page & _PLACE] = following
            self._chunk(following).before[following & _PLACE] = page
        self._chunk(pages[-1]).after[pages[-1] & _PLACE] = _END
        self.retag(pages[0], tag)

    def _emptiest(self, at_most_pages: int) -> int | None:
        """Number of the chunk of so many pages or fewer that is cheapest to empty; None where all are larger."""
        used = [
            (chunk.num_pages - chunk.num_free, number)
            for number, chunk in enumerate(self._chunks)
            if chunk is not None and chunk.num_pages <= at_most_pages
        ]
        return min(used)[1] if used else None

    def _make_way(self, room: int) -> int | None:
        """The emptiest chunk of any length, after one has come that is shorter by `room`; None where none can come."""
        number = self._emptiest(self._num_pages)
        if number is not None:
            try:
                self._grow(self._chunk(number << _PLACE_BITS).num_pages - room, self._page_bytes)
            except (MemoryError, RuntimeError):  # as torch says it
                return None
        return number

    def _grow(self, num_pages: int, page_bytes: int) -> None:
        number = next((n for n, chunk in enumerate(self._chunks) if chunk is None), len(self._chunks))
        chunk = _Chunk(number, num_pages, page_bytes, self.device)  # may run out of memory: nothing has changed yet
        if number == len(self._chunks):
            self._chunks.append(chunk)
        self._chunks[number] = chunk
        self._page_bytes = page_bytes
        self._num_pages += num_pages
        self._num_free += num_pages

    def _give_back(self, number: int) -> list[Moved]:
        leaving = self._chunk(number << _PLACE_BITS)
        first = number << _PLACE_BITS
        free = set(self._chain(leaving.free))
        pages = [page for page in range(first, first + leaving.num_pages) if page not in free]
        self._num_free -= leaving.num_free
        leaving.num_free = 0  # none are taken there
        new_pages = self._take(len(pages))
        _pour(self._stretches(pages), self._stretches(new_pages))
        moved: list[Moved] = []
        for page, new_page in zip(pages, new_pages, strict=True):
            after, before = leaving.after[page & _PLACE], leaving.before[page & _PLACE]
            chunk, place = self._chunk(new_page), new_page & _PLACE
            chunk.after[place], chunk.before[place] = after, before
            if before < 0:
                moved.append(Moved(~before, new_page))
            else:
                self._chunk(before).after[before & _PLACE] = new_page
            if after != _END:
                self._chunk(after).before[after & _PLACE] = new_page
        self._num_pages -= leaving.num_pages
        self._chunks[number] = None
        while self._chunks and self._chunks[-1] is None:
            self._chunks.pop()
        return moved


def _pages(length_bytes: int, page_bytes: int) -> int:
    return max(1, -(-length_bytes // page_bytes))


def _growth(num_pages: int, num_free: int, needed: int) -> int:
    """Pages of the chunk that has to come; 0 where there is room."""
    if needed <= num_free:
        return 0
    if needed - num_free > _MAX_PLACES:
        raise ValueError(
            f"got a block of {needed} pages; at most {_MAX_PLACES} come at once, as the first block decided on the page"
        )
    return min(max(needed - num_free, num_pages // _GROWTH), _MAX_PLACES)


def _pour(sources: Iterable[Tensor], targets: Iterable[Tensor]) -> None:
    """Copies bytes from the ones to the others, wherever the cuts are, until either ends."""
    rest = iter(sources)
    source: Tensor | None = None
    for target in targets:
        while len(target):
            while source is None or not len(source):
                source = next(rest, None)
                if source is None:
                    return
            num_bytes = min(len(source), len(target))
            target[:num_bytes].copy_(source[:num_bytes])
            source, target = source[num_bytes:], target[num_bytes:]

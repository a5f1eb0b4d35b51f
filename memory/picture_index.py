"""PictureIndex: when every archived picture was seen, what it is like, and which fit a question."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..stream import Span
from .events import unit

# Shapes: N rows, D channels of a picture's vector.

_CHUNK_ROWS = 256
_ROW = np.dtype(
    [
        ("number", np.int64),
        ("start_s", np.float64),
        ("end_s", np.float64),
        ("event", np.int64),
        ("num_bytes", np.int64),
        ("is_first", np.bool_),
        ("is_here", np.bool_),
        ("has_vector", np.bool_),
    ]
)
_EPS = 1e-4  # halves are not exact: a shorter rest than this is no direction


class Found(NamedTuple):
    """A picture of the archive. score: how well it fits, -1 to 1, larger is better; 0 where nothing was asked."""

    number: int
    span: Span
    event: int
    score: float = 0.0


class _Chunk:
    """Rows in order of number; the first `num_used` are taken, `num_here` of those are still here."""

    def __init__(self, num_channels: int) -> None:
        self.rows_N = np.zeros(_CHUNK_ROWS, _ROW)
        self.vectors_ND = torch.zeros(_CHUNK_ROWS, num_channels, dtype=torch.float16)
        self.num_used = self.num_here = 0

    @property
    def num_bytes(self) -> int:
        return int(self.rows_N.nbytes) + self.vectors_ND.nbytes


class PictureIndex:
    """Times, events and unit vectors (float16) of pictures, in chunks of 256 rows. Not thread-safe.

        [256 rows][256 rows] ... [256 rows, filling]      rows leave where they are; sparse neighbours are joined

    num_channels: length of all vectors.
    """

    def __init__(self, num_channels: int) -> None:
        if num_channels < 1:
            raise ValueError(f"vectors have at least one channel; got {num_channels}")
        self.num_channels = num_channels
        self._chunks: list[_Chunk] = []
        self._num_rows = 0
        self._picture_bytes = 0

    @property
    def num_rows(self) -> int:
        return self._num_rows

    @property
    def num_bytes(self) -> int:
        """Bytes of the index itself, room for rows to come included."""
        return len(self._chunks) * self.chunk_bytes

    @property
    def chunk_bytes(self) -> int:
        """By how much it grows."""
        return _CHUNK_ROWS * (_ROW.itemsize + 2 * self.num_channels)

    @property
    def picture_bytes(self) -> int:
        """Bytes of the pictures at rest, as far as they were told."""
        return self._picture_bytes

    @property
    def numbers(self) -> list[int]:
        """Increasing."""
        return [int(number) for chunk in self._chunks for number in _here(chunk)["number"]]

    def __contains__(self, number: int) -> bool:
        return self._find(number) is not None

    def add(self, found: Found, vector_D: Tensor | None, *, is_first: bool, num_bytes: int = 0) -> None:
        """Takes in a picture whose number is larger than all before; its vector is a unit vector, or none."""
        if self._chunks and found.number <= self._chunks[-1].rows_N["number"][self._chunks[-1].num_used - 1]:
            raise ValueError(f"pictures come in order of number; got {found.number} late")
        if not self._chunks or self._chunks[-1].num_used == _CHUNK_ROWS:
            self._chunks.append(_Chunk(self.num_channels))
        chunk = self._chunks[-1]
        if vector_D is not None:
            chunk.vectors_ND[chunk.num_used] = vector_D
        start_s, end_s = found.span.start_s, found.span.end_s
        has_vector = vector_D is not None
        row = (found.number, start_s, end_s, found.event, num_bytes, is_first, True, has_vector)
        chunk.rows_N[chunk.num_used] = row
        chunk.num_used += 1
        chunk.num_here += 1
        self._num_rows += 1
        self._picture_bytes += num_bytes

    def picture_bytes_of(self, number: int) -> int:
        """Bytes of the picture at rest, 0 while not told; KeyError where it is not here."""
        return int(self._row(number)["num_bytes"])

    def set_picture_bytes(self, number: int, num_bytes: int) -> None:
        """Tells how large a picture is at rest; KeyError where it is not here."""
        row = self._row(number)
        self._picture_bytes += num_bytes - int(row["num_bytes"])
        row["num_bytes"] = num_bytes

    def remove(self, number: int) -> None:
        """Forgets the picture; KeyError where it is not here."""
        row = self._row(number)
        self._picture_bytes -= int(row["num_bytes"])
        row["is_here"] = False
        at = self._chunk_of(number)
        self._chunks[at].num_here -= 1
        self._num_rows -= 1
        self._tidy(at)

    def find_row(self, number: int) -> Found | None:
        """The picture of this number."""
        row = self._find(number)
        return None if row is None else _found(row)

    def vector(self, number: int) -> Tensor | None:
        """The picture's unit vector, float32; None where it has none of this kind."""
        row = self._row(number)
        if not row["has_vector"]:
            return None
        chunk = self._chunks[self._chunk_of(number)]
        return chunk.vectors_ND[int(np.searchsorted(chunk.rows_N["number"][: chunk.num_used], number))].float()

    @property
    def num_vectors(self) -> int:
        """How many pictures have a vector of this kind."""
        return sum(int((rows["is_here"] & rows["has_vector"]).sum()) for rows in self._all())

    def without_vectors(self, num_channels: int) -> PictureIndex:
        """The same pictures, in an index for vectors of another length."""
        index = PictureIndex(num_channels)
        for rows in self._all():
            for row in rows:
                index.add(_found(row), None, is_first=bool(row["is_first"]), num_bytes=int(row["num_bytes"]))
        return index

    def oldest(self, *, among_firsts: bool) -> Found | None:
        """The oldest picture that begins its event, or the oldest that does not."""
        for chunk in self._chunks:
            rows = _here(chunk)
            hits = np.flatnonzero(rows["is_first"] == among_firsts)
            if len(hits):
                return _found(rows[hits[0]])
        return None

    @property
    def ends(self) -> tuple[Found, Found]:
        """The oldest and the newest picture; ValueError where there are none."""
        if not self._chunks:
            raise ValueError("an empty index has no oldest picture; ask num_rows first")
        return _found(_here(self._chunks[0])[0]), _found(_here(self._chunks[-1])[-1])

    def has_event(self, event: int) -> bool:
        """Whether a picture of this event is here."""
        return any(bool((rows["event"] == event).any()) for rows in self._all())

    def first_after(self, number: int) -> Found | None:
        """The next picture that begins an event."""
        for chunk in self._chunks[max(0, self._chunk_of(number)) :]:
            rows = _here(chunk)
            hits = np.flatnonzero(rows["is_first"] & (rows["number"] > number))
            if len(hits):
                return _found(rows[hits[0]])
        return None

    def between(self, span: Span) -> list[Found]:
        """Pictures that overlap the span, in order of time."""
        found = [_found(row) for rows in self._all() for row in rows[_overlapping(rows, span)]]
        return sorted(found, key=lambda f: (f.span, f.number))

    def nearest(self, time_s: float) -> Found | None:
        """The picture nearest in time; the newest of several."""
        best, best_s = None, float("inf")
        for rows in self._all():
            if len(rows):
                away_s = np.maximum(np.maximum(rows["start_s"] - time_s, time_s - rows["end_s"]), 0.0)
                at = len(rows) - 1 - int(np.argmin(away_s[::-1]))
                if away_s[at] <= best_s:
                    best, best_s = _found(rows[at]), float(away_s[at])
        return best

    def best(self, query_D: Tensor, num_pictures: int, span: Span | None = None) -> list[Found]:
        """Pictures that fit the query best, best first, the older first of equals.

        Centred cosine: what all pictures have in common is taken out of them, and its direction out of the query,
        so that a query of text, which has another mean, is not pulled to what is common to pictures.
        """
        mean_D, num_vectors = self._mean()
        if num_vectors == 0 or num_pictures < 1:
            return []
        query_D = unit(query_D)
        common_D = mean_D / mean_D.norm().clamp_min(_EPS)
        query_D = query_D - (query_D @ common_D) * common_D
        query_D = query_D / query_D.norm().clamp_min(_EPS)
        found: list[Found] = []
        for chunk in self._chunks:
            rows = chunk.rows_N[: chunk.num_used]
            wanted = rows["is_here"] & rows["has_vector"]
            if span is not None:
                wanted &= _overlapping(rows, span)
            if wanted.any():
                rest_ND = chunk.vectors_ND[: chunk.num_used].float() - mean_D
                # Not a matrix product: that would depend, in its last bits, on how rows lie in chunks.
                scores_N = ((rest_ND * query_D).sum(1) / rest_ND.norm(dim=1).clamp_min(_EPS)).numpy()
                at = np.flatnonzero(wanted)
                at = at[np.argsort(-scores_N[at], kind="stable")[:num_pictures]]
                found += [_found(rows[i])._replace(score=round(float(scores_N[i]), 6)) for i in at]
        return sorted(found, key=lambda f: (-f.score, f.number))[:num_pictures]

    def check(self) -> None:
        """Recounts from scratch; RuntimeError where the books do not balance."""
        counted = [int(chunk.rows_N["is_here"][: chunk.num_used].sum()) for chunk in self._chunks]
        if counted != [chunk.num_here for chunk in self._chunks] or sum(counted) != self._num_rows:
            raise RuntimeError(f"the books say {self._num_rows} pictures; the chunks hold {counted}")
        counted_bytes = sum(int(rows["num_bytes"].sum()) for rows in self._all())
        if counted_bytes != self._picture_bytes:
            raise RuntimeError(f"the books say {self._picture_bytes} bytes of pictures; the rows say {counted_bytes}")
        if sum(chunk.num_bytes for chunk in self._chunks) != self.num_bytes:
            raise RuntimeError(f"the index says it takes {self.num_bytes} bytes; its chunks take others")
        numbers = self.numbers
        if any(a >= b for a, b in pairwise(numbers)):
            raise RuntimeError(f"pictures are out of order: {numbers[:20]} ...")

    def _all(self) -> Iterator[np.ndarray]:
        return (_here(chunk) for chunk in self._chunks)

    def _mean(self) -> tuple[Tensor, int]:
        """Of all unit vectors; in double, so that the order of adding does not show."""
        total_D, num_vectors = torch.zeros(self.num_channels, dtype=torch.float64), 0
        for chunk in self._chunks:
            rows = chunk.rows_N[: chunk.num_used]
            at = torch.from_numpy(np.flatnonzero(rows["is_here"] & rows["has_vector"]))
            total_D += chunk.vectors_ND[at].sum(0, dtype=torch.float64)
            num_vectors += len(at)
        return (total_D / max(1, num_vectors)).float(), num_vectors

    def _chunk_of(self, number: int) -> int:
        """Where the number would be; -1 before all."""
        return bisect_right(self._chunks, number, key=lambda chunk: int(chunk.rows_N["number"][0])) - 1

    def _find(self, number: int) -> np.void | None:
        at = self._chunk_of(number)
        if at < 0:
            return None
        rows = self._chunks[at].rows_N[: self._chunks[at].num_used]
        i = int(np.searchsorted(rows["number"], number))
        return rows[i] if i < len(rows) and rows["number"][i] == number and rows["is_here"][i] else None

    def _row(self, number: int) -> np.void:
        row = self._find(number)
        if row is None:
            raise KeyError(f"picture {number} is not in this index")
        return row

    def _tidy(self, at: int) -> None:
        """Gives an empty chunk back, and joins a sparse one with a sparse neighbour."""
        if self._chunks[at].num_here == 0:
            del self._chunks[at]
            return
        for first in (at - 1, at):
            pair = self._chunks[max(0, first) : first + 2]
            # Not the last one, which still fills; and well below a chunk, lest the next removal joins again.
            full = [chunk for chunk in pair if chunk.num_used == _CHUNK_ROWS or chunk is not self._chunks[-1]]
            if len(full) == 2 and sum(chunk.num_here for chunk in pair) <= _CHUNK_ROWS * 3 // 4:
                joined = _Chunk(self.num_channels)
                for chunk in pair:
                    here = chunk.rows_N["is_here"][: chunk.num_used]
                    to = slice(joined.num_used, joined.num_used + chunk.num_here)
                    joined.rows_N[to] = chunk.rows_N[: chunk.num_used][here]
                    joined.vectors_ND[to] = chunk.vectors_ND[torch.from_numpy(np.flatnonzero(here))]
                    joined.num_used = joined.num_here = to.stop
                self._chunks[first : first + 2] = [joined]
                return


def _here(chunk: _Chunk) -> np.ndarray:
    rows = chunk.rows_N[: chunk.num_used]
    return rows[rows["is_here"]]


def _found(row: np.void) -> Found:
    return Found(int(row["number"]), Span(float(row["start_s"]), float(row["end_s"])), int(row["event"]))


def _overlapping(rows: np.ndarray, span: Span) -> np.ndarray:
    """The twin of Span.overlaps, for many."""
    a, b = rows["start_s"], rows["end_s"]
    touch = (a <= span.end_s) & (span.start_s <= b)
    if span.start_s == span.end_s:
        return touch
    return touch & ((a == b) | ((a < span.end_s) & (span.start_s < b)))

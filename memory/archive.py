"""Archive: keyframes of the whole stream as JPEG, by event, in a store that does not grow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..stream import Span
from ..stream.jpeg import check_picture
from .events import Event, EventCutter, unit
from .keyframe import Head, Keyframe, decode_head, decode_pixels, picture_bytes
from .owned import owned
from .picture_index import Found, PictureIndex
from .shelf import GoneEvent, Shelf, Store
from .wire import WireError

# Shapes: H rows of pixels, W columns, 3 colours, D channels of a picture's vector.

_log = logging.getLogger(__name__)

_MIN_BUDGET_BYTES = 2**16
_MAX_PIXELS = 2**25
_HOST = torch.device("cpu")


class Seen(NamedTuple):
    """What came of a frame. kept: the keyframe that the frame before became; gone: events whose last picture left."""

    kept: int | None
    closed: Event | None
    gone: tuple[GoneEvent, ...]


class Restored(NamedTuple):
    """What an archive found in its store. num_skipped: damaged records, and pictures without their other half."""

    num_keyframes: int
    num_skipped: int


class _Held(NamedTuple):
    picture_HW3: np.ndarray
    span: Span
    vector_D: Tensor
    extra: dict[str, Tensor]

    @property
    def num_bytes(self) -> int:
        return int(self.picture_HW3.nbytes) + sum(tensor.nbytes for tensor in self.extra.values())


class Archive:
    """Keyframes: the first frame of every event, and those unlike the last keyframe. Not thread-safe; one per stream.

        see -> [one frame held until its event is known] -> store: record 2n head, 2n + 1 pixels | index in RAM

    JPEG is coded where the store calls for it: with a DepotWriter, in its thread. Over the cap the oldest pictures
    go, those that do not begin an event first: the past is thinned to one picture an event, then dropped. A directory
    that it is kept in must have segments of budget_bytes at most, or it cannot give room back in time.

    budget_bytes: what the store may hold of kind "picture", its overhead and dead room included; at least 64 KiB.
    index_budget_bytes: what the index in RAM may take.
    keyframe_similarity: a picture less alike to the last keyframe is one itself; cosine, -1 to 1.
    jpeg_quality: 1 to 95.
    vectors: names what makes the vectors; of kept pictures with other vectors only times are used.
    min_blocks, max_blocks: frames of an event, see EventCutter.
    """

    def __init__(
        self,
        store: Store,
        *,
        budget_bytes: int = 2**30,
        index_budget_bytes: int = 64 * 2**20,
        keyframe_similarity: float = 0.9,
        jpeg_quality: int = 85,
        vectors: str = "",
        min_blocks: int = 4,
        max_blocks: int = 64,
    ) -> None:
        if budget_bytes < _MIN_BUDGET_BYTES:
            raise ValueError(f"an archive needs at least {_MIN_BUDGET_BYTES} bytes; got {budget_bytes}")
        if not -1 <= keyframe_similarity <= 1:
            raise ValueError(f"keyframe_similarity is a cosine from -1 to 1; got {keyframe_similarity}")
        if not 1 <= jpeg_quality <= 95:
            raise ValueError(f"jpeg_quality goes from 1 to 95; got {jpeg_quality}")
        if len(vectors) > 128:
            raise ValueError(f"the vectors' name has at most 128 letters; got {len(vectors)}")
        self._store = store
        self._budget_bytes, self._index_budget_bytes = budget_bytes, index_budget_bytes
        self._similarity, self._quality, self._vectors = keyframe_similarity, jpeg_quality, vectors
        self._blocks = (min_blocks, max_blocks)
        self._cutter = EventCutter(min_blocks=min_blocks, max_blocks=max_blocks)
        self._shelf: Shelf | None = None  # from the first vector on
        self._held: _Held | None = None
        self._last_D: Tensor | None = None  # of the last keyframe
        self._last_event: int | None = None
        self._next = 0
        self._useless: list[int] = []  # damaged records found, to be dropped when this archive writes

    @property
    def num_keyframes(self) -> int:
        return 0 if self._shelf is None else self._shelf.index.num_rows

    @property
    def num_bytes(self) -> int:
        """Bytes at rest in the store."""
        return self._store.num_bytes("picture")

    @property
    def index_bytes(self) -> int:
        """Bytes in RAM: the index, and the frame that is held."""
        held_bytes = 0 if self._held is None else self._held.num_bytes
        return held_bytes + (0 if self._shelf is None else self._shelf.index.num_bytes)

    @property
    def num_lost(self) -> int:
        """Pictures that the store did not take or does not have any more."""
        return 0 if self._shelf is None else self._shelf.num_lost

    def see(
        self, picture_HW3: np.ndarray, span: Span, vector_D: Tensor, extra: Mapping[str, Tensor] | None = None
    ) -> Seen:
        """Takes the next frame, and decides whether the one before it becomes a keyframe.

        Args:
            picture_HW3: uint8 RGB; kept as it is where it is read-only, copied where it is not.
            span: the stream time that it shows.
            vector_D: what it is like; of one length for the whole stream.
            extra: tensors to be kept with it.
        """
        check_picture(picture_HW3)
        vector_D = unit(vector_D, span)
        shelf = self._shelf_for(vector_D.shape[0])
        closed = self._cutter.see(span, vector_D)
        kept = self._settle(shelf)
        if picture_HW3.flags.writeable:
            picture_HW3 = picture_HW3.copy()
        self._held = _Held(picture_HW3, span, vector_D, {n: owned(t, _HOST) for n, t in (extra or {}).items()})
        shelf.discard(self._useless)
        self._useless = []
        return Seen(kept, closed, tuple(shelf.tidy()))

    def close(self) -> Seen:
        """Decides on the frame that is held, and ends the event; what is seen now begins another."""
        if self._shelf is None:
            return Seen(None, None, ())
        closed = self._cutter.close()
        kept = self._settle(self._shelf)
        return Seen(kept, closed, tuple(self._shelf.tidy()))

    def find(self, query_D: Tensor, num_keyframes: int, span: Span | None = None) -> list[Found]:
        """Keyframes that fit the query best (centred cosine), best first; of those that overlap `span`, or of all."""
        query_D = unit(query_D)
        if num_keyframes < 0:
            raise ValueError(f"num_keyframes must not be negative; got {num_keyframes}")
        if self._shelf is None:
            return []
        if self._is_foreign:
            return []
        if query_D.shape[0] != self._shelf.index.num_channels:
            raise ValueError(f"queries have {self._shelf.index.num_channels} channels here; got {query_D.shape[0]}")
        return self._shelf.index.best(query_D, num_keyframes, span)

    def between(self, span: Span) -> list[Found]:
        """Keyframes that overlap the span, in order of time."""
        return [] if self._shelf is None else self._shelf.index.between(span)

    def nearest(self, time_s: float) -> Found | None:
        """The keyframe nearest in time."""
        return None if self._shelf is None else self._shelf.index.nearest(time_s)

    def get(self, number: int) -> Keyframe | None:
        """The keyframe with its picture; None where it is not here (any more), or damaged."""
        found = None if self._shelf is None else self._shelf.index.find_row(number)
        data = None if found is None else self._store.get("picture", 2 * number + 1)
        if found is None or data is None or self._shelf is None:
            return None
        try:
            pixels = decode_pixels(data, number, _MAX_PIXELS)
        except ValueError as error:
            _log.warning("picture %d cannot be used: %s", number, error)
            return None
        vector_D = self._shelf.index.vector(number)
        return Keyframe(number, found.span, found.event, pixels.picture_HW3, vector_D, pixels.extra)

    def jpeg(self, number: int) -> bytes | None:
        """The keyframe's picture as it is kept; None where it is not here (any more), or damaged."""
        data = self._store.get("picture", 2 * number + 1) if self._shelf and number in self._shelf.index else None
        try:
            return None if data is None else picture_bytes(data, number)
        except ValueError as error:
            _log.warning("picture %d cannot be used: %s", number, error)
            return None

    def restore(self, num_channels: int | None = None) -> Restored:
        """Takes in what the store holds and this archive does not know yet; to be called again where others write.

        Args:
            num_channels: length of the vectors to come; by default that of the newest kept ones.
        """
        there = self._store.numbers("picture")
        records = set(there)
        heads: list[Head] = []
        useless: list[int] = []
        news = sorted({record // 2 for record in there if record // 2 >= self._next})
        if news and 2 * news[-1] + 1 not in records and self._read_head(news[-1]) is not None:
            news.pop()  # only its head is there: the rest is on its way, or another comes in its place
        for number in news:
            head = self._read_head(number) if {2 * number, 2 * number + 1} <= records else None
            if head is None:
                useless += (2 * number, 2 * number + 1)
            else:
                heads.append(head)
        self._next = max([self._next, *(number + 1 for number in news)])
        self._useless += useless
        if self._shelf is not None:
            self._shelf.keep_only(records)
        if heads:
            lengths = [head.vector_D.shape[0] for head in heads if head.vectors == self._vectors]
            shelf = self._shelf_for(num_channels or (lengths or [heads[-1].vector_D.shape[0]])[-1])
            mean_bytes = self.num_bytes * 2 // max(1, len(records))
            for head in heads:
                is_ours = head.vectors == self._vectors and head.vector_D.shape[0] == shelf.index.num_channels
                shelf.take_in(head, head.vector_D if is_ours else None, mean_bytes)
                shelf.trim_index()
            self._begin_after(max(head.event for head in heads))
        return Restored(len(heads), len(useless) // 2)

    def check(self) -> None:
        """Recounts; RuntimeError where the books do not balance or a cap is passed."""
        if self._shelf is not None:
            self._shelf.check()
        if self.num_bytes > self._budget_bytes:
            raise RuntimeError(f"the archive takes {self.num_bytes} bytes, of {self._budget_bytes} at most")

    def __repr__(self) -> str:
        return f"Archive({self.num_keyframes} keyframes in {self.num_bytes} of {self._budget_bytes} bytes)"

    @property
    def _is_foreign(self) -> bool:
        """Whether all pictures are of another model: only their times are of use."""
        return self._shelf is not None and self.num_keyframes > 0 and not self._shelf.index.num_vectors

    def _shelf_for(self, num_channels: int) -> Shelf:
        if self._shelf is None:
            index = PictureIndex(num_channels)
            self._shelf = Shelf(self._store, index, self._budget_bytes, self._index_budget_bytes)
        if num_channels != self._shelf.index.num_channels and self._is_foreign:
            self._shelf.index = self._shelf.index.without_vectors(num_channels)
        if num_channels != self._shelf.index.num_channels:
            raise ValueError(
                f"vectors of one archive have one length; got {num_channels} after {self._shelf.index.num_channels}"
            )
        return self._shelf

    def _settle(self, shelf: Shelf) -> int | None:
        """Archives the frame that is held, where it is a keyframe: its event is known now."""
        held, self._held = self._held, None
        event = self._cutter.settled
        if held is None or event is None:
            return None
        is_first = event != self._last_event
        if not is_first and self._last_D is not None and float(held.vector_D @ self._last_D) >= self._similarity:
            return None
        head = Head(self._next, held.span, event, is_first, self._vectors, held.vector_D)
        self._next += 1
        if not shelf.put(head, held.picture_HW3, self._quality, held.extra):
            return None
        self._last_D, self._last_event = held.vector_D, event
        return head.number

    def _read_head(self, number: int) -> Head | None:
        data = self._store.get("picture", 2 * number)
        if data is None:
            return None
        try:
            head = decode_head(data)
            if head.number != number:
                raise WireError(f"record {2 * number} is the head of picture {number}; got that of {head.number}")
        except WireError as error:
            _log.warning("the head of picture %d cannot be used: %s", number, error)
            return None
        return head

    def _begin_after(self, event: int) -> None:
        """What is seen from now on is of events after this one, unless it is so already."""
        if self._held is None and (self._last_event is None or self._last_event <= event):
            min_blocks, max_blocks = self._blocks
            self._cutter = EventCutter(min_blocks=min_blocks, max_blocks=max_blocks, number=event + 1)

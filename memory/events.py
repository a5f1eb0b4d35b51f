"""Events: a stream cut where what is seen changes most."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..stream import Span

# Shapes: D channels of a block's vector.

_HORIZON = 64  # steps that the running mean of distances looks back over, about


class Event(NamedTuple):
    """A stretch of stream that belongs together; later events have larger numbers."""

    number: int
    span: Span
    num_blocks: int


class EventCutter:
    """Cuts one stream into events at minima of the similarity of consecutive vectors. Not thread-safe.

    A block begins an event where it is less like the one before it than both its neighbours are like theirs, and
    clearly less than was usual lately. That its follower must be known makes the cut one block late. A clock that
    goes back begins an event at once, and so does a block that would be one too many. Holds two vectors and a few
    numbers, whatever the stream's length.

    Made in the manner of StreamForest's cuts (minima of similarity) and StreamKV's limits (cosine below 0.99, 4 to
    64 blocks); the running mean is ours, so that one setting serves vectors of any spread.

    Args:
        min_blocks: an event that is closed at a minimum has as many blocks; 1 or more.
        max_blocks: no event has more; at least min_blocks.
        similarity: more alike than this is never a cut; cosine, -1 to 1.
        depth: times the usual distance (1 - cosine) that a cut's must reach; 0 or more.
        number: of the first event.
    """

    def __init__(
        self,
        *,
        min_blocks: int = 4,
        max_blocks: int = 64,
        similarity: float = 0.99,
        depth: float = 2.0,
        number: int = 0,
    ) -> None:
        if not 1 <= min_blocks <= max_blocks:
            raise ValueError(f"an event has 1 <= min_blocks <= max_blocks blocks; got {min_blocks} and {max_blocks}")
        if not -1 <= similarity <= 1:
            raise ValueError(f"similarity is a cosine from -1 to 1; got {similarity}")
        if not 0 <= depth < math.inf:
            raise ValueError(f"depth must be finite and not negative; got {depth}")
        if number < 0:
            raise ValueError(f"events are numbered from 0; got {number}")
        self._min_blocks, self._max_blocks = min_blocks, max_blocks
        self._min_distance, self._depth = 1 - similarity, depth
        self._number = number
        self._settled: int | None = None
        self._usual = 0.0  # running mean of distances
        self._num_distances = 0
        # blocks of the open event | the newest block, of which it is not known yet whether it begins the next one
        self._open: Event | None = None
        self._newest: Span | None = None
        self._newest_D: Tensor | None = None
        self._distance = 0.0  # of the newest block from the one before
        self._distance_before = 0.0  # of that one from its own
        self._may_cut = False  # the newest block's distance was far above what was usual

    @property
    def settled(self) -> int | None:
        """The event that the block before the newest belongs to (after `close`: the newest); at first None."""
        return self._settled

    def see(self, span: Span, vector_D: Tensor) -> Event | None:
        """Takes the next block; the event that is now known to have ended before the block before this one, or None.

        At a clock that goes back and at max_blocks the closed event ends right before this block instead.
        """
        vector_D = unit(vector_D, span)
        if self._newest is None or self._newest_D is None:
            self._newest, self._newest_D = span, vector_D
            return None
        if vector_D.shape != self._newest_D.shape:
            raise ValueError(
                f"vectors of one stream have one length; got {vector_D.shape[0]} at {span} after "
                f"{self._newest_D.shape[0]}"
            )
        distance = 1 - float(vector_D @ self._newest_D)
        closed = None
        goes_back = span.start_s < self._newest.start_s
        is_minimum = self._distance >= self._distance_before and self._distance > distance
        if self._may_cut and is_minimum and not goes_back:
            closed = self._close()
        self._extend(self._newest)
        if goes_back or self._num_open >= self._max_blocks:
            closed = self._close()
        self._may_cut = (
            distance > max(self._min_distance, self._depth * self._usual) and self._num_open >= self._min_blocks
        )
        self._num_distances = min(self._num_distances + 1, _HORIZON)
        self._usual += (distance - self._usual) / self._num_distances
        self._distance_before, self._distance = self._distance, distance
        self._newest, self._newest_D = span, vector_D
        return closed

    def close(self) -> Event | None:
        """The open event, ended with the newest block, or None before the first; what comes now begins another."""
        if self._newest is not None:
            self._extend(self._newest)
            self._newest = self._newest_D = None
            self._may_cut = False
        return self._close()

    @property
    def _num_open(self) -> int:
        return 0 if self._open is None else self._open.num_blocks

    def _extend(self, span: Span) -> None:
        self._settled = self._number
        if self._open is None:
            self._open = Event(self._number, span, 1)
        else:
            whole = Span(self._open.span.start_s, max(self._open.span.end_s, span.end_s, self._open.span.start_s))
            self._open = Event(self._number, whole, self._open.num_blocks + 1)

    def _close(self) -> Event | None:
        closed, self._open = self._open, None
        if closed is not None:
            self._number += 1
        return closed


def unit(vector_D: Tensor, span: Span | None = None) -> Tensor:
    """The vector as float32 on the host, of length 1; zeros stay zeros. ValueError where it is no finite vector."""
    where = "" if span is None else f" at {span}"
    if vector_D.ndim != 1 or vector_D.shape[0] < 1:
        raise ValueError(f"a vector has one dimension; got shape {tuple(vector_D.shape)}{where}")
    vector_D = vector_D.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(vector_D).all()):
        raise ValueError(f"a vector has finite numbers; got NaN or infinity{where}")
    # Scaled by the largest first, so that squares of large and of tiny numbers neither overflow nor vanish.
    vector_D = vector_D / vector_D.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return vector_D / vector_D.norm().clamp_min(1e-12)

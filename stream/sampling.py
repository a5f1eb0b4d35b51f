"""Samplers: which frames are due, by time alone, so that one that is not due is never converted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .frame import Frame
from .table import Table


class SamplerRun(ABC):
    """One stream's state of a sampler; not thread-safe, one per stream."""

    @abstractmethod
    def take(self, pts_s: float) -> bool:
        """Whether the frame at this time is due. Call it once for each frame, in order: it moves the run
        on."""


class Sampler(ABC):
    """A recipe that says which frames are due. `start()` gives the state for one stream.

    Promises, checked for every row of SAMPLERS: the first frame is due; the same times give the same choice
    after every `start()`; frames are chosen, not changed.
    """

    @abstractmethod
    def start(self) -> SamplerRun:
        """A fresh run for one stream."""

    def filter(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The frames that are due, of one stream. A gap before one that is not is told by the next that is."""
        run = self.start()
        gap_s = 0.0
        for frame in frames:
            gap_s += frame.gap_s
            if run.take(frame.pts_s):
                yield frame if frame.gap_s == gap_s else replace(frame, gap_s=gap_s)
                gap_s = 0.0


SAMPLERS: Table[Sampler] = Table(
    "sampler",
    __package__ or "",
    {"every": "sampling:EveryFrame", "rate": "sampling:RateSampler", "stride": "sampling:StrideSampler"},
)


@dataclass(frozen=True, slots=True)
class EveryFrame(Sampler):
    """Baseline: every frame is due."""

    def start(self) -> SamplerRun:
        return _Every()


class _Every(SamplerRun):
    def take(self, pts_s: float) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class StrideSampler(Sampler):
    """Every `stride`-th frame is due, whatever the times say.

    stride: 1 or more; 1 is every frame.
    """

    stride: int

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ValueError(f"a stride must be 1 or more; got stride={self.stride}")

    def start(self) -> SamplerRun:
        return _Stride(self.stride)


class _Stride(SamplerRun):
    def __init__(self, stride: int) -> None:
        self._stride = stride
        self._num_seen = 0

    def take(self, pts_s: float) -> bool:
        self._num_seen += 1
        return (self._num_seen - 1) % self._stride == 0


# Containers that keep milliseconds round a time by up to half of one: without this a 30 fps file sampled at
# 30 Hz would lose every frame whose time was rounded down. An eighth of the period bounds it for high rates.
_ROUNDING_S = 0.0006


@dataclass(frozen=True, slots=True)
class RateSampler(Sampler):
    """The first frame at or after each point of the grid `first time + k / rate_hz` is due.

    The grid stands still, so the rate never drifts, and frame times may be as uneven as they like. A gap in
    the stream gives one frame, not one for each grid point missed.

    rate_hz: frames per second, above 0. A stream slower than this gives all its frames.
    """

    rate_hz: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise ValueError(f"a sampling rate must be finite and above 0 Hz; got rate_hz={self.rate_hz}")

    def start(self) -> SamplerRun:
        return _Rate(self.rate_hz)


class _Rate(SamplerRun):
    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._early = min(_ROUNDING_S * rate_hz, 0.125)  # in periods
        self._first_s: float | None = None
        self._last_point = -1

    def take(self, pts_s: float) -> bool:
        if self._first_s is None:
            self._first_s = pts_s
        point = math.floor((pts_s - self._first_s) * self._rate_hz + self._early)
        if point <= self._last_point:
            return False
        self._last_point = point
        return True

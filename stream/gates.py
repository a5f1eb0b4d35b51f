"""Gates: which due frames are news, each with the reason."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from .frame import Frame
from .table import Table

# Shapes: H rows and W columns of pixels or cells, 3 colours.


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate thinks of one frame. Made by a gate, read by sessions and metrics.

    keep: whether the frame is news.
    reason: one word, for counting: first, size, change, gap, all, still.
    score: how much changed, on the gate's own scale; 0 where nothing was compared.
    """

    keep: bool
    reason: str
    score: float = 0.0


class GateRun(ABC):
    """One stream's state of a gate; not thread-safe, one per stream."""

    @abstractmethod
    def judge(self, frame: Frame) -> Verdict:
        """Judges the next frame of the stream, and remembers it if it is kept."""


class Gate(ABC):
    """A recipe that says which frames are news. `start()` gives the state for one stream.

    Promises, checked for every row of GATES: the first frame is kept; a frame is not written; the same frames
    give the same verdicts after every `start()`; a dropped frame never becomes what later frames are compared
    with, so that slow change adds up until it is seen.
    """

    @abstractmethod
    def start(self) -> GateRun:
        """A fresh run for one stream."""


GATES: Table[Gate] = Table("gate", __package__ or "", {"difference": "gates:DifferenceGate", "none": "gates:NoGate"})


@dataclass(frozen=True, slots=True)
class NoGate(Gate):
    """Baseline: every frame is news."""

    def start(self) -> GateRun:
        return _Open()


class _Open(GateRun):
    def judge(self, frame: Frame) -> Verdict:
        return Verdict(True, "all")


@dataclass(frozen=True, slots=True)
class DifferenceGate(Gate):
    """A frame is news when some part of it looks different from the last frame kept.

    Brightness is averaged over cells, a hundred or so across the longer side, which takes the noise of a
    sensor out. The score is the mean absolute difference of 4 x 4 cells, taken where it is largest: an object
    that fills a thousandth of the picture counts as much as one that fills it.

    threshold: levels of 255 that a part must change by; 0 keeps all but exact repeats.
    max_gap_s: a frame is kept at the latest this long after the last, changed or not; infinite for never.
    """

    threshold: float = 8.0
    max_gap_s: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 255:
            raise ValueError(f"a difference threshold is in levels of 0 to 255; got threshold={self.threshold}")
        if not self.max_gap_s > 0:
            raise ValueError(f"the longest gap must be above 0 seconds; got max_gap_s={self.max_gap_s}")

    def start(self) -> GateRun:
        return _Difference(self)


_NUM_CELLS = 96  # along the longer side, at most
_TILE = 4  # cells


class _Difference(GateRun):
    def __init__(self, recipe: DifferenceGate) -> None:
        self._recipe = recipe
        self._kept_HW: np.ndarray | None = None
        self._kept_size = (0, 0)
        self._kept_s = -math.inf

    def judge(self, frame: Frame) -> Verdict:
        cells_HW = luma_cells(frame.rgb_HW3)
        verdict = self._compare(frame, cells_HW)
        if verdict.keep:
            self._kept_HW, self._kept_size, self._kept_s = cells_HW, (frame.width, frame.height), frame.pts_s
        return verdict

    def _compare(self, frame: Frame, cells_HW: np.ndarray) -> Verdict:
        if self._kept_HW is None:
            return Verdict(True, "first")
        if self._kept_size != (frame.width, frame.height):
            return Verdict(True, "size")
        score = tile_difference(cells_HW, self._kept_HW)
        if score > self._recipe.threshold:
            return Verdict(True, "change", score)
        # The nanosecond is for the rounding of times that are sums.
        if frame.pts_s - self._kept_s >= self._recipe.max_gap_s - 1e-9:
            return Verdict(True, "gap", score)
        return Verdict(False, "still", score)


def luma_cells(rgb_HW3: np.ndarray) -> np.ndarray:
    """Mean brightness of square cells, 0 to 255, float32; the picture's edge that fills no whole cell is left
    out."""
    height, width = rgb_HW3.shape[:2]
    side = max(1, math.ceil(max(height, width) / _NUM_CELLS))
    side = min(side, height, width)
    rows, columns = height // side, width // side
    step = max(1, side // 4)  # a few pixels of each row and column of a cell are enough for its mean
    picked = rgb_HW3[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)[:, ::step, :, ::step]
    sums = picked.sum(axis=(1, 3), dtype=np.uint32).astype(np.float32)
    num_picked = picked.shape[1] * picked.shape[3]
    return sums @ (np.array([0.299, 0.587, 0.114], np.float32) / num_picked)


def tile_difference(a_HW: np.ndarray, b_HW: np.ndarray) -> float:
    """The largest mean absolute difference of any tile of cells."""
    difference_HW = np.abs(a_HW - b_HW)
    # Half-tile steps in both directions, so that an object on a tile's border is whole in some tile.
    row_sums = _window_sums(difference_HW, axis=0)
    sums = _window_sums(row_sums, axis=1)
    num_cells = min(_TILE, a_HW.shape[0]) * min(_TILE, a_HW.shape[1])
    return float(sums.max()) / num_cells


def _window_sums(values: np.ndarray, axis: int) -> np.ndarray:
    """Sums over windows of `_TILE` along one axis, at every second place; of all of it where it is
    shorter."""
    size = values.shape[axis]
    if size <= _TILE:
        return values.sum(axis=axis, keepdims=True)
    starts = np.unique(np.append(np.arange(0, size - _TILE, _TILE // 2), size - _TILE))
    return sum(np.take(values, starts + offset, axis=axis) for offset in range(_TILE))  # type: ignore[return-value]

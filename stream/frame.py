"""The two values that every part of Millpond speaks in: a span of time, and a frame with its time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .motion import MotionField

# Shapes: H rows of pixels, W columns, 3 colours.


def time_words(time_s: float) -> str:
    """Seconds as they are written in prompts: one decimal, left out where it is zero. 12 -> "12", 0.5 -> "0.5"."""
    return f"{time_s:.1f}".removesuffix(".0")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A half-open stretch of stream time, [start_s, end_s).

    Made by everybody, read by everybody. A single moment has `end_s == start_s`.
    """

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start_s) and math.isfinite(self.end_s)) or self.end_s < self.start_s:
            raise ValueError(
                f"a span must end at or after its start, both finite; got start_s={self.start_s}, end_s={self.end_s}"
            )

    def overlaps(self, other: Span) -> bool:
        """Whether the two share an instant; a moment (empty span) counts as the instant of its start."""
        if self.start_s == self.end_s or other.start_s == other.end_s:
            return self.start_s <= other.end_s and other.start_s <= self.end_s
        return self.start_s < other.end_s and other.start_s < self.end_s

    def __repr__(self) -> str:
        return f"Span({self.start_s:.3f}..{self.end_s:.3f} s)"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture and the time at which it is shown.

    Made by a source, read by samplers, gates and encoders, written by nobody: the array is made read-only.

    rgb_HW3: uint8, RGB, height by width by 3.
    pts_s: presentation time in seconds from the start of the stream; never decreases within one source.
    stream_id: names the stream that the frame belongs to.
    index: number of the frame in its stream, counting those that were dropped.
    wall_s: Unix time of the capture in seconds where the source knows it, else None.
    motion: how far blocks moved since the frame before, where the source was asked for it and the codec tells.
    gap_s: seconds before this frame in which nothing could be seen: the peer was away. Above 0 on the first frame
        after that only.
    """

    rgb_HW3: np.ndarray
    pts_s: float
    stream_id: str = "stream"
    index: int = 0
    wall_s: float | None = None
    motion: MotionField | None = None
    gap_s: float = 0.0

    def __post_init__(self) -> None:
        rgb = self.rgb_HW3
        if not isinstance(rgb, np.ndarray) or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            got = f"{rgb.dtype} array of shape {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
            raise ValueError(f"a frame needs a uint8 RGB array of shape (height, width, 3); got {got}")
        if rgb.shape[0] < 1 or rgb.shape[1] < 1:
            raise ValueError(f"a frame needs at least one pixel; got shape {rgb.shape}")
        if not math.isfinite(self.pts_s):
            raise ValueError(f"a frame needs a finite time in seconds; got pts_s={self.pts_s}")
        if not (math.isfinite(self.gap_s) and self.gap_s >= 0):
            raise ValueError(f"a gap is a finite number of seconds, 0 or more; got gap_s={self.gap_s}")
        if self.motion is not None and (self.motion.height, self.motion.width) != rgb.shape[:2]:
            raise ValueError(
                f"a frame of {rgb.shape[1]}x{rgb.shape[0]} pixels needs motion of as many; got"
                f" {self.motion.width}x{self.motion.height}"
            )
        if rgb.flags.writeable:
            view = rgb.view()
            view.flags.writeable = False
            object.__setattr__(self, "rgb_HW3", view)

    @property
    def height(self) -> int:
        return int(self.rgb_HW3.shape[0])

    @property
    def width(self) -> int:
        return int(self.rgb_HW3.shape[1])

    def __repr__(self) -> str:
        return f"Frame({self.width}x{self.height} at {self.pts_s:.3f} s)"


def carry_gap(dropped: Frame, frame: Frame) -> Frame:
    """The frame that follows one that is dropped, with the gap that was before that one."""
    return replace(frame, gap_s=frame.gap_s + dropped.gap_s) if dropped.gap_s else frame

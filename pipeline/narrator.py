"""Narrator: when to speak. When enough changed, or enough time passed, and not too often."""

from __future__ import annotations

import numpy as np

from ..stream import Frame
from ..stream.gates import luma_cells, tile_difference
from .config import NarrationConfig

# Shapes: H rows and W columns of cells.

# A cell whose brightness moved by more levels, of 0 to 255, has changed; as patches have, for reuse.
_CHANGED_LEVELS = 6.0


class Narrator:
    """One session's sense of when a narration is due. Holds two small pictures, whatever the stream's length.

    Change is measured as `DifferenceGate` measures it, against the picture at the time of the last narration, so that
    slow change adds up until it is seen.
    """

    def __init__(self, config: NarrationConfig) -> None:
        self._config = config
        self._said_at_s: float | None = None
        self._began_s: float | None = None
        self._said_HW: np.ndarray | None = None
        self._now_HW: np.ndarray | None = None
        self.change_share = 0.0
        """Share of the picture that changed from the frame before the newest to it, 0 to 1."""

    @property
    def since_s(self) -> float | None:
        """Time of the newest frame that the last narration knew of; None before the first."""
        return self._said_at_s

    def see(self, frame: Frame) -> None:
        """Takes note of a frame."""
        if self._began_s is None:
            self._began_s = frame.pts_s
        before_HW, self._now_HW = self._now_HW, luma_cells(frame.rgb_HW3)
        if before_HW is None or before_HW.shape != self._now_HW.shape:
            self.change_share = 1.0
        else:
            self.change_share = float((np.abs(self._now_HW - before_HW) > _CHANGED_LEVELS).mean())

    def is_due(self, now_s: float) -> bool:
        """Whether a narration is due at this stream time."""
        since_s = self._said_at_s if self._said_at_s is not None else self._began_s
        if since_s is None:
            return False
        passed_s = now_s - since_s
        if passed_s >= self._config.max_gap_s:
            return True
        return passed_s >= self._config.min_gap_s and self._has_changed()

    def said(self, now_s: float) -> None:
        """A narration, or a decision that there is nothing to say, was made at this stream time."""
        self._said_at_s = now_s
        self._said_HW = self._now_HW

    def _has_changed(self) -> bool:
        if self._said_HW is None or self._now_HW is None or self._said_HW.shape != self._now_HW.shape:
            return True
        return tile_difference(self._now_HW, self._said_HW) > self._config.change_levels

"""Qwen2.5-VL's tower: patches window by window, most layers attend within these."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ...stream import Frame
from ..tokens import FrameTokens
from .base import Layout, Prepared
from .qwen import QwenTower

if TYPE_CHECKING:
    from ..families.qwen_vl import QwenVL

# Shapes: T patches of a picture in the tower's own order, S some of them, U units, C channels of the tower, H heads,
# D channels per head, O channels of the language model, E DeepStack taps.


class _Run(NamedTuple):
    """Windows of one length that follow one another: where the first starts, their length, how many."""

    start: int
    length: int
    num_windows: int

    @property
    def stop(self) -> int:
        return self.start + self.length * self.num_windows


class Qwen25Tower(QwenTower):
    """Pixels come block by block; everything after the patch embedding is in the order of the windows."""

    def __init__(self, family: QwenVL) -> None:
        super().__init__(family)
        self._full_layers = frozenset(int(layer) for layer in self._visual.fullatt_block_indexes)
        self._to_windows = lru_cache(maxsize=16)(self._make_to_windows)
        self._to_raster = lru_cache(maxsize=16)(self._make_to_raster)

    @property
    def full_layers(self) -> tuple[int, ...]:
        # A checkpoint may have windows in every layer: then these are all there is.
        return tuple(sorted(self._full_layers)) or super().full_layers

    def _make_to_windows(self, grid_hw: tuple[int, int]) -> Tensor:
        """Which patch, in the order of the pixels, comes at each place in the tower's."""
        units = self._family.tower_inputs((grid_hw,))["window_index"]
        size = self._join**2
        return (units[:, None] * size + torch.arange(size, device=units.device)).flatten()

    def _make_to_raster(self, grid_hw: tuple[int, int]) -> Tensor:
        return torch.argsort(self._family.tower_inputs((grid_hw,))["window_index"])

    @torch.no_grad()
    def _make_layout(self, grid_hw: tuple[int, int]) -> Layout:
        layout = super()._make_layout(grid_hw)
        assert layout.cos_TD is not None and layout.sin_TD is not None
        order_T = self._to_windows(grid_hw)
        bounds = self._family.tower_inputs((grid_hw,))["cu_window_seqlens"].cpu().to(torch.int64)
        lengths = bounds.diff()
        return replace(
            layout,
            raster_T=layout.raster_T[order_T.cpu()],
            cos_TD=layout.cos_TD[order_T],
            sin_TD=layout.sin_TD[order_T],
            window_T=torch.arange(len(lengths)).repeat_interleave(lengths).to(self.device),
            window_lengths=tuple(lengths.tolist()),
        )

    def embed(self, prepared: Prepared, index_S: Tensor | None = None) -> Tensor:
        order_T = self._to_windows(prepared.layout.grid_hw)
        if index_S is None:
            return self._visual.patch_embed(prepared.pixels)[order_T]
        return self._embed_rows(prepared.pixels[order_T[index_S]])

    def attend(
        self, layer: int, layout: Layout, q_SHD: Tensor, k_THD: Tensor, v_THD: Tensor, index_S: Tensor | None
    ) -> Tensor:
        if layer in self._full_layers:
            return super().attend(layer, layout, q_SHD, k_THD, v_THD, index_S)
        runs, window_T = _runs(layout.window_lengths), layout.window_T
        if index_S is None:
            return self._attend_windows(runs, q_SHD, k_THD, v_THD).flatten(1)
        # Which windows hold no query, only a CPU can say without a wait.
        if window_T is not None and window_T.device.type == "cpu":
            runs = _runs_of(layout.window_lengths, frozenset(window_T[index_S].tolist()))
        # Whole windows, with zeros for the queries that are not given: a mask over all keys would be more work
        # as soon as there are more queries than a window has patches.
        q_THD = torch.zeros_like(k_THD).index_copy_(0, index_S, q_SHD)
        return self._attend_windows(runs, q_THD, k_THD, v_THD)[index_S].flatten(1)

    def _attend_windows(self, runs: Sequence[_Run], q_THD: Tensor, k_THD: Tensor, v_THD: Tensor) -> Tensor:
        """Rows of windows that are in no run are left as they happen to be."""
        o_THD = torch.empty_like(v_THD)
        for run in runs:
            rows, split = slice(run.start, run.stop), (run.num_windows, run.length)
            batch = [x[rows].view(*split, self.num_heads, self.head_dim) for x in (q_THD, k_THD, v_THD)]
            o_THD[rows] = self._attend(*batch).flatten(0, 1)
        return o_THD

    def assemble(self, y_UO: Tensor, deep_EUO: Tensor | None, layout: Layout, frames: Sequence[Frame]) -> FrameTokens:
        self.check_block(frames)
        return self._tokens(y_UO[self._to_raster(layout.grid_hw)], None, layout, frames)


@lru_cache(maxsize=16)
def _runs(lengths: tuple[int, ...]) -> tuple[_Run, ...]:
    return _runs_of(lengths, range(len(lengths)))


def _runs_of(lengths: tuple[int, ...], wanted: Container[int]) -> tuple[_Run, ...]:
    """The wanted windows in runs that go through attention in one piece."""
    runs: list[_Run] = []
    start = 0
    for window, length in enumerate(lengths):
        if window in wanted:
            if runs and runs[-1].length == length and runs[-1].stop == start:
                runs[-1] = runs[-1]._replace(num_windows=runs[-1].num_windows + 1)
            else:
                runs.append(_Run(start, length, 1))
        start += length
    return tuple(runs)

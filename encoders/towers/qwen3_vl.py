"""Qwen3-VL's tower: position embeddings interpolated from a table, and features tapped after early layers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .base import Layout, Prepared
from .qwen import QwenTower

if TYPE_CHECKING:
    from ..families.qwen_vl import QwenVL

# Shapes: S some patches, P patches of a unit, V some units, C channels of the tower, K corners interpolated between.


class Qwen3Tower(QwenTower):
    """Each tap joins a unit's patches by a merger of its own, which normalises after joining."""

    def __init__(self, family: QwenVL) -> None:
        super().__init__(family)
        tapped = [int(layer) for layer in self._visual.deepstack_visual_indexes]
        self.taps = tuple(sorted(tapped))
        self._mergers = [self._visual.deepstack_merger_list[tapped.index(layer)] for layer in self.taps]

    @torch.no_grad()
    def _make_layout(self, grid_hw: tuple[int, int]) -> Layout:
        inputs = self._family.tower_inputs((grid_hw,))
        corners_TKC = self._visual.pos_embed(inputs["interp_indices"])
        position_TC = (corners_TKC * inputs["interp_weights"][:, :, None]).sum(1).to(self.dtype)
        return replace(super()._make_layout(grid_hw), position_TC=position_TC)

    def embed(self, prepared: Prepared, index_S: Tensor | None = None) -> Tensor:
        position_TC = prepared.layout.position_TC
        assert position_TC is not None
        return super().embed(prepared, index_S) + (position_TC if index_S is None else position_TC[index_S])

    def tap(self, number: int, x_VPC: Tensor) -> Tensor:
        if not 0 <= number < len(self.taps):
            return super().tap(number, x_VPC)
        return self._mergers[number](x_VPC.reshape(-1, self.num_channels))

"""Qwen3-VL: interpolated position embedding and DeepStack taps in the tower, time in text before a block."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)

from ..pixel_config import HALVES
from ..towers.qwen3_vl import Qwen3Tower
from .qwen_vl import Patches, QwenVL, Seen, grid_thw


class Qwen3VL(QwenVL):
    """Features of early layers of the tower are added after the first layers of the language model.

    Paper: Qwen3-VL Technical Report (2511.21631)
    """

    family: ClassVar[str] = "qwen3_vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl",)
    size_is_per_frame: ClassVar[bool] = False
    pixel_defaults: ClassVar = {
        **HALVES,
        "size": {"shortest_edge": 128 * 32 * 32, "longest_edge": 768 * 32 * 32},
    }

    @cached_property
    def tower(self) -> Qwen3Tower:
        return Qwen3Tower(self)

    def _make_tower_inputs(self, grids: tuple[tuple[int, int], ...]) -> dict[str, Tensor]:
        grid, tower, device = grid_thw(grids), self.visual, self.spec.device
        indices, weights = get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=self._merge,
        )
        return {
            "cu_seqlens": get_vision_cu_seqlens(grid),
            "position_ids": get_vision_position_ids(grid, self._merge).to(device),
            "interp_indices": indices.to(device),
            "interp_weights": weights.to(device),
        }

    def _tower(self, batch: Patches) -> Seen:
        seen = self._run_tower(batch)
        taps = seen.deepstack_features
        return Seen(seen.pooler_output, torch.stack(list(taps)) if taps else None)

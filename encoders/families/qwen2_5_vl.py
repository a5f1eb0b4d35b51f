"""Qwen2.5-VL: a tower whose attention is windowed in most layers, frames at their own size."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from torch import Tensor
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

from ..pixel_config import OPENAI_CLIP
from ..towers.qwen2_5_vl import Qwen25Tower
from .qwen_vl import QwenVL, grid_thw


class Qwen25VL(QwenVL):
    """Windows in most layers of the tower, whole pictures in a few.

    Paper: Qwen2.5-VL Technical Report (2502.13923)
    """

    family: ClassVar[str] = "qwen2_5_vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    pixel_defaults: ClassVar = {
        **OPENAI_CLIP,
        "size": {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28},
    }

    @cached_property
    def tower(self) -> Qwen25Tower:
        return Qwen25Tower(self)

    def _make_tower_inputs(self, grids: tuple[tuple[int, int], ...]) -> dict[str, Tensor]:
        grid = grid_thw(grids)
        window_index, cu_window_seqlens = get_vision_window_index(
            grid, self._merge, self.visual.window_size, self._patch
        )
        return {
            "cu_seqlens": get_vision_cu_seqlens(grid),
            "position_ids": get_vision_position_ids(grid, self._merge).to(self.spec.device),
            "window_index": window_index.to(self.spec.device),
            "cu_window_seqlens": cu_window_seqlens,
        }

"""Qwen2-VL: full attention in the tower, frames at their own size."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from torch import Tensor
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids

from ..pixel_config import OPENAI_CLIP
from ..towers.qwen import QwenTower
from .qwen_vl import QwenVL, grid_thw


class Qwen2VL(QwenVL):
    """Full attention over each picture in every layer of the tower.

    Paper: Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution (2409.12191)
    """

    family: ClassVar[str] = "qwen2_vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    pixel_defaults: ClassVar = {
        **OPENAI_CLIP,
        "size": {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28},
    }

    @cached_property
    def tower(self) -> QwenTower:
        return QwenTower(self)

    def _make_tower_inputs(self, grids: tuple[tuple[int, int], ...]) -> dict[str, Tensor]:
        grid = grid_thw(grids)
        return {
            "cu_seqlens": get_vision_cu_seqlens(grid),
            "position_ids": get_vision_position_ids(grid, self._merge).to(self.spec.device),
        }

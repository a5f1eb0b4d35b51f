"""Qwen2-VL's tower, and what its successors share with it: rotary embedding, neighbours joined two by two."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...stream import Frame
from ..tokens import FrameTokens
from .base import Layout, Prepared, Tower

if TYPE_CHECKING:
    from ..families.qwen_vl import QwenVL

# Shapes: T patches of a picture in the tower's own order, S some of them, U units, P patches of a unit, V some units,
# C channels of the tower, H heads, D channels per head, N numbers of a patch's pixels, O channels of the language
# model, E DeepStack taps.


class QwenTower(Tower):
    """Qwen2-VL's: patches block by block of 2 x 2, full attention in every layer. Later ones replace what differs."""

    def __init__(self, family: QwenVL) -> None:
        self._family = family
        self._visual: Any = family.visual
        self._projection = self._visual.patch_embed.proj
        self._blocks: list[Any] = list(self._visual.blocks)
        self._join = int(self._visual.spatial_merge_size)
        attention, weight = self._blocks[0].attn, self._projection.weight
        self._scale = float(attention.scaling)
        self.num_layers = len(self._blocks)
        self.num_channels = int(weight.shape[0])
        self.num_heads = int(attention.num_heads)
        self.out_channels = int(family.text_model.config.hidden_size)
        self.dtype, self.device = weight.dtype, weight.device
        self.frames_per_block = family.frames_per_block
        self.patches_side_px = int(weight.shape[-1])
        self._layout = lru_cache(maxsize=16)(self._make_layout)

    def layout(self, height: int, width: int) -> Layout:
        rows, columns = self._family.frame_size(height, width)
        return self._layout((rows // self.patches_side_px, columns // self.patches_side_px))

    @torch.no_grad()
    def _make_layout(self, grid_hw: tuple[int, int]) -> Layout:
        place_T2 = self._family.tower_inputs((grid_hw,))["position_ids"]
        cos_TD, sin_TD = self._visual.rotary_pos_emb(place_T2, place_T2)
        rows_T, columns_T = place_T2.cpu().unbind(1)
        return Layout(
            grid_hw=grid_hw,
            covered_hw=(1.0, 1.0),
            raster_T=rows_T * grid_hw[1] + columns_T,
            units_UP=torch.arange(len(place_T2)).view(-1, self._join**2),
            cos_TD=cos_TD.float(),
            sin_TD=sin_TD.float(),
        )

    def prepare(self, frames: Sequence[Frame]) -> Prepared:
        self.check_block(frames)
        patches = self._family.pixels(frames)
        return Prepared(patches.patches_PC.to(self.dtype), self._layout(patches.grids[0]))

    def embed(self, prepared: Prepared, index_S: Tensor | None = None) -> Tensor:
        if index_S is None:
            return self._visual.patch_embed(prepared.pixels)
        return self._embed_rows(prepared.pixels[index_S])

    def _embed_rows(self, pixels_SN: Tensor) -> Tensor:
        return F.linear(pixels_SN, self._projection.weight.flatten(1), self._projection.bias)

    def norm1(self, layer: int, x_SC: Tensor) -> Tensor:
        return self._blocks[layer].norm1(x_SC)

    def qkv(self, layer: int, a_SC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_SC, k_SC, v_SC = self._blocks[layer].attn.qkv(a_SC).chunk(3, dim=1)
        # Queries and keys are rotated next, to memory of their own; values are not, and may be kept.
        return q_SC, k_SC, v_SC.contiguous()

    def key(self, layer: int, a_SC: Tensor) -> Tensor:
        return self._third(layer, a_SC, 1)

    def query_value(self, layer: int, a_SC: Tensor) -> tuple[Tensor, Tensor]:
        return self._third(layer, a_SC, 0), self._third(layer, a_SC, 2)

    def _third(self, layer: int, a_SC: Tensor, third: int) -> Tensor:
        fused = self._blocks[layer].attn.qkv
        cut = slice(third * self.num_channels, (third + 1) * self.num_channels)
        return F.linear(a_SC, fused.weight[cut], fused.bias[cut])

    def rotate(self, layout: Layout, q_or_k_SC: Tensor, index_S: Tensor | None) -> Tensor:
        cos_TD, sin_TD = layout.cos_TD, layout.sin_TD
        assert cos_TD is not None and sin_TD is not None
        if index_S is not None:
            cos_TD, sin_TD = cos_TD[index_S], sin_TD[index_S]
        cos_S1D, sin_S1D = cos_TD[:, None], sin_TD[:, None]
        x_SHD = q_or_k_SC.view(-1, self.num_heads, self.head_dim).float()
        half = self.head_dim // 2
        turned_SHD = x_SHD * cos_S1D
        turned_SHD[..., :half] -= x_SHD[..., half:] * sin_S1D[..., :half]
        turned_SHD[..., half:] += x_SHD[..., :half] * sin_S1D[..., half:]
        return turned_SHD.to(q_or_k_SC.dtype)

    def attend(
        self, layer: int, layout: Layout, q_SHD: Tensor, k_THD: Tensor, v_THD: Tensor, index_S: Tensor | None
    ) -> Tensor:
        return self._attend(q_SHD[None], k_THD[None], v_THD[None])[0].flatten(1)

    def _attend(self, q_BSHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor) -> Tensor:
        heads_first = [x.transpose(1, 2) for x in (q_BSHD, k_BTHD, v_BTHD)]
        return F.scaled_dot_product_attention(*heads_first, scale=self._scale).transpose(1, 2)

    def project(self, layer: int, o_SC: Tensor) -> Tensor:
        return self._blocks[layer].attn.proj(o_SC)

    def mlp(self, layer: int, x_SC: Tensor) -> Tensor:
        block = self._blocks[layer]
        return block.mlp(block.norm2(x_SC))

    def head(self, x_VPC: Tensor) -> Tensor:
        return self._visual.merger(x_VPC.reshape(-1, self.num_channels))

    def assemble(self, y_UO: Tensor, deep_EUO: Tensor | None, layout: Layout, frames: Sequence[Frame]) -> FrameTokens:
        self.check_block(frames)
        # a copy: what is given may be a reuser's own
        deep_ETD = None if deep_EUO is None else deep_EUO.clone()
        return self._tokens(y_UO.clone(), deep_ETD, layout, frames)

    def _tokens(self, x_TD: Tensor, deep_ETD: Tensor | None, layout: Layout, frames: Sequence[Frame]) -> FrameTokens:
        rows, columns = layout.grid_hw
        return self._family.block_tokens(x_TD, deep_ETD, (rows // self._join, columns // self._join), frames)

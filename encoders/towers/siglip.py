"""SigLIP's tower: one square picture, a learned position for each patch, full attention in every layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...stream import Frame
from ..families.square import one_moment
from ..tokens import FrameTokens
from .base import Layout, Prepared, Tower

if TYPE_CHECKING:
    from ..families.llava_onevision import LlavaOnevision

# Shapes: T patches of a picture in raster order, S some of them, U units, P patches of a unit, V some units,
# C channels of the tower, H heads, D channels per head, O channels of the language model; 1 picture, 3 colours,
# of H rows and W columns.


class SquareTower(Tower):
    """What towers with SigLIP's layers share. A family adds its pixels, position embeddings, units and head.

    side_px: height and width of the pictures that it reads.
    """

    frames_per_block = 1

    def __init__(self, vision: Any, *, num_layers: int, side_px: int, out_channels: int) -> None:
        weight = vision.embeddings.patch_embedding.weight
        self._patch_embedding: Any = vision.embeddings.patch_embedding
        self._layers: list[Any] = list(vision.encoder.layers[:num_layers])
        self._scale = float(vision.encoder.layers[0].self_attn.scale)
        self._side_px = side_px
        self.num_layers = num_layers
        self.num_channels = int(weight.shape[0])
        self.num_heads = int(vision.encoder.layers[0].self_attn.num_heads)
        self.out_channels = out_channels
        self.dtype, self.device = weight.dtype, weight.device
        self.patches_side_px = int(weight.shape[-1])
        self._layout = lru_cache(maxsize=1)(self._make_layout)

    def layout(self, height: int, width: int) -> Layout:
        return self._layout()

    def _make_layout(self) -> Layout:
        raise NotImplementedError

    def _square(self, position_TC: Tensor, units_UP: Tensor) -> Layout:
        side = self._side_px // self.patches_side_px
        covered = side * self.patches_side_px / self._side_px
        return Layout(
            grid_hw=(side, side),
            covered_hw=(covered, covered),
            raster_T=torch.arange(side * side),
            units_UP=units_UP,
            position_TC=position_TC.detach(),
        )

    def embed(self, prepared: Prepared, index_S: Tensor | None = None) -> Tensor:
        pixels_13HW, layout = prepared
        position_TC = layout.position_TC
        assert position_TC is not None
        if index_S is None:
            x_TC = self._patch_embedding(pixels_13HW)[0].flatten(1).transpose(0, 1)
            return (x_TC + position_TC).contiguous()
        side, weight = self.patches_side_px, self._patch_embedding.weight
        # to (rows, columns, 3, patch rows, patch columns), without a copy
        patches = pixels_13HW[0].unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4)
        columns = layout.grid_hw[1]
        chosen = patches[torch.div(index_S, columns, rounding_mode="floor"), index_S % columns]
        return F.linear(chosen.flatten(1), weight.flatten(1), self._patch_embedding.bias) + position_TC[index_S]

    def norm1(self, layer: int, x_SC: Tensor) -> Tensor:
        return self._layers[layer].layer_norm1(x_SC)

    def qkv(self, layer: int, a_SC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attention = self._layers[layer].self_attn
        return attention.q_proj(a_SC), attention.k_proj(a_SC), attention.v_proj(a_SC)

    def key(self, layer: int, a_SC: Tensor) -> Tensor:
        return self._layers[layer].self_attn.k_proj(a_SC)

    def query_value(self, layer: int, a_SC: Tensor) -> tuple[Tensor, Tensor]:
        attention = self._layers[layer].self_attn
        return attention.q_proj(a_SC), attention.v_proj(a_SC)

    def rotate(self, layout: Layout, q_or_k_SC: Tensor, index_S: Tensor | None) -> Tensor:
        return q_or_k_SC.view(-1, self.num_heads, self.head_dim)

    def attend(
        self, layer: int, layout: Layout, q_SHD: Tensor, k_THD: Tensor, v_THD: Tensor, index_S: Tensor | None
    ) -> Tensor:
        heads_first = [x.transpose(0, 1)[None] for x in (q_SHD, k_THD, v_THD)]
        o_1HSD = F.scaled_dot_product_attention(*heads_first, scale=self._scale)
        return o_1HSD[0].transpose(0, 1).reshape(-1, self.num_channels)

    def project(self, layer: int, o_SC: Tensor) -> Tensor:
        return self._layers[layer].self_attn.out_proj(o_SC)

    def mlp(self, layer: int, x_SC: Tensor) -> Tensor:
        block = self._layers[layer]
        return block.mlp(block.layer_norm2(x_SC))


class SiglipTower(SquareTower):
    """LLaVA-OneVision's: features before the last norm, each projected by itself, then pooled to a quarter."""

    def __init__(self, family: LlavaOnevision) -> None:
        self._family = family
        model = family.model.model
        # what hidden_states[n] holds: the patches after n layers
        layer, depth = family.model.config.vision_feature_layer, len(model.vision_tower.encoder.layers)
        super().__init__(
            model.vision_tower,
            num_layers=layer if layer >= 0 else depth + 1 + layer,
            side_px=int(model.vision_tower.config.image_size),
            out_channels=int(model.multi_modal_projector.linear_2.weight.shape[0]),
        )

    @classmethod
    def of(cls, family: LlavaOnevision) -> SiglipTower | None:
        """The family's tower, or None where its features are not one layer's of every patch, or not SigLIP's."""
        config = family.model.config
        plain = isinstance(config.vision_feature_layer, int) and config.vision_feature_select_strategy == "full"
        is_siglip = config.vision_config.model_type == "siglip_vision_model"
        return cls(family) if plain and is_siglip else None

    def prepare(self, frames: Sequence[Frame]) -> Prepared:
        self.check_block(frames)
        pixels_13HW = self._family.pixels(frames).pixels_N13HW[:, 0]
        return Prepared(pixels_13HW.to(self.dtype), self._layout())

    def _make_layout(self) -> Layout:
        embedding = self._family.model.model.vision_tower.embeddings.position_embedding.weight
        return self._square(embedding, torch.arange(embedding.shape[0])[:, None])

    def head(self, x_VPC: Tensor) -> Tensor:
        return self._family.model.model.multi_modal_projector(x_VPC[:, 0])

    def assemble(self, y_UO: Tensor, deep_EUO: Tensor | None, layout: Layout, frames: Sequence[Frame]) -> FrameTokens:
        self.check_block(frames)
        model = self._family.model.model
        pooled_1TO = model.apply_pooling(y_UO[None])
        x_1TO = torch.cat((pooled_1TO, model.image_newline[None, None]), dim=1)
        return one_moment(frames, x_1TO, self._family.pooled_hw)[0]

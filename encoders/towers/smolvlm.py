"""SmolVLM's tower: SigLIP's layers, one more norm, and neighbouring patches joined into one token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...stream import Frame
from ..families.square import one_moment
from ..tokens import FrameTokens
from .base import Layout, Prepared
from .siglip import SquareTower

if TYPE_CHECKING:
    from ..families.smolvlm import SmolVLM

# Shapes: T patches of a picture in raster order, U units, P patches of a unit, V some units, C channels of the tower,
# O channels of the language model, E DeepStack taps; N pictures, 3 colours, of H rows and W columns.


class SmolVLMTower(SquareTower):
    """Patches in raster order; a unit is a block of scale x scale of them, row by row."""

    def __init__(self, family: SmolVLM) -> None:
        self._family = family
        model = family.model.model
        self._join = int(model.connector.scale_factor)
        super().__init__(
            model.vision_model,
            num_layers=len(model.vision_model.encoder.layers),
            side_px=family.side_px,
            out_channels=int(model.connector.modality_projection.proj.weight.shape[0]),
        )

    def prepare(self, frames: Sequence[Frame]) -> Prepared:
        self.check_block(frames)
        return Prepared(self._family.pixels(frames).pixels_N3HW.to(self.dtype), self._layout())

    def _make_layout(self) -> Layout:
        side, join = self._side_px // self.patches_side_px, self._join
        blocks = torch.arange(side * side).view(side // join, join, side // join, join)
        units_UP = blocks.transpose(1, 2).reshape(-1, join * join)
        embedding = self._family.model.model.vision_model.embeddings.position_embedding.weight
        return self._square(embedding[self._places(side)], units_UP)

    def _places(self, side: int) -> Tensor:
        """Where each patch of a picture of `side` x `side` stands in the table of learned positions."""
        table = self._family.model.model.vision_model.embeddings.num_patches_per_side
        # In float32 and in this order, as the tower rounds them.
        bounds = torch.arange(1 / table, 1.0, 1 / table, device=self.device)
        step = 1.0 / torch.tensor(side, device=self.device)
        at = torch.clamp(torch.arange(side, device=self.device, dtype=torch.float32) * step, max=1.0 - 1e-6)
        along = torch.bucketize(at, bounds, right=True)
        return (along[:, None] * table + along).flatten()

    def head(self, x_VPC: Tensor) -> Tensor:
        model = self._family.model.model
        return model.connector.modality_projection(model.vision_model.post_layernorm(x_VPC).flatten(1))

    def assemble(self, y_UO: Tensor, deep_EUO: Tensor | None, layout: Layout, frames: Sequence[Frame]) -> FrameTokens:
        self.check_block(frames)
        rows, columns = layout.grid_hw
        return one_moment(frames, y_UO[None], (rows // self._join, columns // self._join))[0]

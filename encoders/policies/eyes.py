"""PI0Eyes: pi0's vision half as reusers and feeds take it, so that a picture costs what is new in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...memory import KVSpec
from ...stream import Frame
from ..families.square import one_moment, square_pixels
from ..model import ModelSpec
from ..pixel_config import HALVES, PixelConfig
from ..pixels import resize, to_device
from ..tokens import FrameTokens
from ..towers.base import Layout, Prepared
from ..towers.siglip import SquareTower

if TYPE_CHECKING:
    from .pi0 import PI0Policy

# Shapes: N frames, 3 colours, H rows, W columns, T patches of a picture, V some units, P patches of a unit, C channels
# of the tower, U units, O channels of the language model, E DeepStack taps; in `stacked` and `scattered` C cameras,
# P tokens of one, K tokens that are there, D as O.

_GREY = 128  # what pi0's processor fills up with is 0 between -1 and 1: half a level from this


class PI0Tower(SquareTower):
    """SigLIP with all its layers and its last norm, each patch projected by itself: a token for every patch."""

    def __init__(self, eyes: PI0Eyes, model: Any) -> None:
        vlm = model.model.vlm
        super().__init__(
            vlm.vision_tower,
            num_layers=len(vlm.vision_tower.encoder.layers),
            side_px=int(vlm.config.vision_config.image_size),
            out_channels=int(vlm.multi_modal_projector.linear.weight.shape[0]),
        )
        self._eyes, self._vlm = eyes, vlm

    def prepare(self, frames: Sequence[Frame]) -> Prepared:
        self.check_block(frames)
        return Prepared(self._eyes.pixels(frames), self._layout())

    def _make_layout(self) -> Layout:
        embedding = self._vlm.vision_tower.embeddings.position_embedding.weight
        return self._square(embedding, torch.arange(embedding.shape[0])[:, None])

    def head(self, x_VPC: Tensor) -> Tensor:
        seen: Tensor = self._vlm.multi_modal_projector(self._vlm.vision_tower.post_layernorm(x_VPC[:, 0]))
        return seen

    def assemble(self, y_UO: Tensor, deep_EUO: Tensor | None, layout: Layout, frames: Sequence[Frame]) -> FrameTokens:
        self.check_block(frames)
        return one_moment(frames, y_UO[None], layout.grid_hw)[0]


class PI0Eyes:
    """What a reuser asks of a model (`spec`, `see`, `tower`), over a policy's vision half. Not thread-safe.

    Frames must be square, or what has changed would be looked for in the wrong patches: `square` makes them so.
    """

    def __init__(self, policy: PI0Policy) -> None:
        model = policy.model
        config, words = model.config, model.model.vlm.config.text_config
        self._policy = policy
        self.side_px = int(config.vlm_config.vision_config.image_size)
        # As pi0's processor: resized to fit, cubic; levels to -1 to 1.
        self._pixel_config = PixelConfig.read({"size": self.side_px, "resample": 3}, HALVES)
        self.spec = ModelSpec(
            name=str(config.name_or_path or "pi0"),
            family="pi0",
            kv=KVSpec(words.num_hidden_layers, words.num_key_value_heads, words.head_dim, policy.dtype),
            device=policy.device,
            dtype=policy.dtype,
            frames_per_block=1,
            vocab_size=int(words.vocab_size),
            max_positions=int(words.max_position_embeddings),
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        )
        self.tower = PI0Tower(self, model)

    def square(self, frame: Frame) -> Frame:
        """The frame as the policy sees it: shrunk or grown to fit a square, at its top left, the rest grey."""
        side = self.side_px
        scale = min(side / frame.height, side / frame.width)
        height, width = (min(side, max(1, int(edge * scale))) for edge in (frame.height, frame.width))
        rgb_13HW = resize(to_device([frame], torch.device("cpu")), height, width, self._pixel_config.filter)
        rgb_HW3: np.ndarray = np.full((side, side, 3), _GREY, np.uint8)
        rgb_HW3[:height, :width] = rgb_13HW[0].permute(1, 2, 0).numpy()
        return replace(frame, rgb_HW3=rgb_HW3, motion=None)

    def pixels(self, frames: Sequence[Frame]) -> Tensor:
        """Square frames as the tower reads them: N3HW. Raises ValueError for others."""
        for frame in frames:
            if frame.height != frame.width:
                raise ValueError(
                    f"pi0's tower takes square frames; got {frame.width}x{frame.height} pixels; "
                    "hand it PI0Eyes.square(frame)"
                )
        size = self.side_px, self.side_px
        return square_pixels(frames, lambda *_: [size], self._pixel_config, self.spec.device).to(self.spec.dtype)

    def see(self, frames: Sequence[Frame]) -> list[FrameTokens]:
        """All frames through the whole tower, one FrameTokens each."""
        if not frames:
            return []
        return one_moment(frames, self._policy.see(self.pixels(frames)), self.tower.layout(0, 0).grid_hw)


def stacked(tokens: Sequence[FrameTokens]) -> Tensor:
    """The whole grids of several cameras as an Observation takes them: x_CPD. Raises ValueError for pruned ones."""
    if not tokens:
        raise ValueError("a policy needs the tokens of one camera at least; got none")
    for one in tokens:
        if one.num_tokens != one.grid_hw[0] * one.grid_hw[1]:
            raise ValueError(f"a policy's prompt has a place for every token; got {one!r}; take no compressor")
    return torch.stack([one.x_TD for one in tokens])


class Scattered(NamedTuple):
    """Some tokens at their places in whole grids, zeros elsewhere: an Observation's x_CPD and present_CP."""

    x_CPD: Tensor
    present_CP: Tensor


def scattered(x_KD: Tensor, kept_K3: Tensor, num_cameras: int, grid_hw: tuple[int, int]) -> Scattered:
    """A feed's few tokens as an Observation takes them.

    kept_K3: int64, each token's camera, row and column, as `Perception.kept`. Raises ValueError where one is outside.
    """
    height, width = grid_hw
    ends = torch.tensor([num_cameras, height, width], device=kept_K3.device)
    if tuple(kept_K3.shape) != (x_KD.shape[0], 3) or bool(((kept_K3 < 0) | (kept_K3 >= ends)).any()):
        raise ValueError(
            f"kept_K3 must be camera, row and column of each of {x_KD.shape[0]} tokens, under {num_cameras}, {height} "
            f"and {width}; got {tuple(kept_K3.shape)}, up to {kept_K3.amax(0).tolist() if kept_K3.numel() else 'none'}"
        )
    camera_K, row_K, column_K = kept_K3.to(x_KD.device).unbind(1)
    place_K = row_K * width + column_K
    x_CPD = x_KD.new_zeros(num_cameras, height * width, x_KD.shape[1])
    x_CPD[camera_K, place_K] = x_KD
    present_CP = torch.zeros(num_cameras, height * width, dtype=torch.bool, device=x_KD.device)
    present_CP[camera_K, place_K] = True
    return Scattered(x_CPD, present_CP)

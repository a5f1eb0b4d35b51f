"""LLaVA-OneVision: square frames, pooled to a quarter of the tower's tokens, closed by a newline token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...stream import Frame, Span, time_words
from ..pixel_config import OPENAI_CLIP, PixelConfig, processor_settings
from ..tokens import FrameTokens
from ..towers.siglip import SiglipTower
from .base_hf import FrameText, HFVideoLLM
from .square import one_moment, square_pixels

# Shapes: N frames, 1 frame of a video, 3 colours, H rows, W columns.


class Videos(NamedTuple):
    """What the tower reads: each frame as a video of one frame, normalised."""

    pixels_N13HW: Tensor

    def as_inputs(self) -> dict[str, Tensor]:
        """The same under transformers' own argument names."""
        return {"pixel_values_videos": self.pixels_N13HW}


class LlavaOnevision(HFVideoLLM):
    """Each frame is read as a video of one frame: its time in text, its pooled tokens, the model's newline.

    Paper: LLaVA-OneVision: Easy Visual Task Transfer (2408.03326)
    """

    family: ClassVar[str] = "llava_onevision"
    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)
    video_placeholder: ClassVar[str] = "<video>"

    def __init__(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        vision = model.config.vision_config
        defaults = {**OPENAI_CLIP, "size": {"height": 384, "width": 384}}
        self._pixel_config = PixelConfig.read(processor_settings(self.settings), defaults)
        self._side = self._pixel_config.square_side(self.family)
        if self._side != vision.image_size:
            raise ValueError(
                f"the checkpoint's processor makes frames of {self._side} pixels and its tower reads "
                f"{vision.image_size}; they must agree"
            )
        pooled = math.ceil(vision.image_size // vision.patch_size / 2)
        self._grid_hw = pooled, pooled

    def pixels(self, frames: Sequence[Frame]) -> Videos:
        """The frames as the tower reads them, each as a video of its own."""
        size = self._side, self._side
        pixels_N3HW = square_pixels(frames, lambda *_: [size], self._pixel_config, self.spec.device)
        return Videos(pixels_N3HW.unsqueeze(1))

    @torch.inference_mode()
    def see(self, frames: Sequence[Frame]) -> list[FrameTokens]:
        if not frames:
            return []
        pixels_N13HW = self.pixels(frames).pixels_N13HW.to(self.model.model.vision_tower.dtype)
        seen = self.model.get_video_features(pixel_values_videos=pixels_N13HW, return_dict=True)
        return one_moment(frames, seen.pooler_output, self._grid_hw)

    @cached_property
    def tower(self) -> SiglipTower | None:
        return SiglipTower.of(self)

    @property
    def pooled_hw(self) -> tuple[int, int]:
        """Rows and columns of a frame's tokens."""
        return self._grid_hw

    def frame_text(self, span: Span) -> FrameText:
        return FrameText(self.encode(f"{time_words(span.start_s)} s"), ())

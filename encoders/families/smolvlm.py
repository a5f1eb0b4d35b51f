"""SmolVLM and SmolVLM2: square frames that are not split, neighbouring tokens joined, time in text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE, DEFAULT_MEDIA_OUTTRO

from ...stream import Frame, Span
from ..pixel_config import HALVES, PixelConfig, processor_settings, read_size
from ..pixels import longest_edge_size
from ..tokens import FrameTokens
from ..towers.smolvlm import SmolVLMTower
from .base_hf import FrameText, HFVideoLLM
from .square import one_moment, square_pixels

# Shapes: N frames, 3 colours, H rows, W columns.

_MAX_SIDE_PX = 4096  # of the processor: nothing is resized to more
# The processor's own says how many frames of how long a video follow, which nobody knows of a stream.
_INTRO = "You are provided the following series of frames from a video.\n"


class Pictures(NamedTuple):
    """What the tower reads: one picture a frame, normalised."""

    pixels_N3HW: Tensor

    def as_inputs(self) -> dict[str, Tensor]:
        """The same under transformers' own argument names: the pictures of one prompt."""
        return {"pixel_values": self.pixels_N3HW.unsqueeze(0)}


class SmolVLM(HFVideoLLM):
    """Each frame is read as `Frame from MM:SS:` and its tokens between the family's own marks.

    Paper: SmolVLM: Redefining small and efficient multimodal models (2504.05299)
    """

    family: ClassVar[str] = "smolvlm"
    model_types: ClassVar[tuple[str, ...]] = ("smolvlm",)
    video_placeholder: ClassVar[str] = "<video>"

    def __init__(self, model: PreTrainedModel, tokenizer: Any, chat_template: str, **kwargs: Any) -> None:
        # Its processor takes this template whenever there is a video, whichever the checkpoint brings.
        super().__init__(model, tokenizer, DEFAULT_CHAT_TEMPLATE, **kwargs)
        chosen = processor_settings(self.settings)
        self._pixel_config = PixelConfig.read(chosen, {**HALVES, "resample": 1, "size": {"longest_edge": 4 * 364}})
        self._longest_edge = min(_longest_edge(chosen, self._pixel_config), _MAX_SIDE_PX)
        largest = read_size("max_image_size", chosen.get("max_image_size") or {"longest_edge": 364})
        self._side = largest.get("longest_edge", 0)
        step = model.config.vision_config.patch_size * model.config.scale_factor
        if not step <= self._side <= _MAX_SIDE_PX or self._side % step:
            raise ValueError(
                f"the checkpoint's processor makes frames of {self._side} pixels; wanted a multiple "
                f"of {step} up to {_MAX_SIDE_PX}"
            )
        self._grid_hw = self._side // step, self._side // step
        self._mark = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
        self._global = getattr(tokenizer, "global_image_token", "<global-img>")

    def split_prompt(self, rendered: str) -> tuple[str, str]:
        before, after = super().split_prompt(rendered)
        return before + _INTRO, DEFAULT_MEDIA_OUTTRO + after

    def frame_text(self, span: Span) -> FrameText:
        minutes, seconds = divmod(int(span.start_s), 60)
        before = f"\nFrame from {minutes:02d}:{seconds:02d}:{self._mark}{self._global}"
        return FrameText(self.encode(before), self.encode(self._mark))

    def pixels(self, frames: Sequence[Frame]) -> Pictures:
        """The frames as the tower reads them."""
        return Pictures(square_pixels(frames, self._sizes, self._pixel_config, self.spec.device))

    @torch.inference_mode()
    def see(self, frames: Sequence[Frame]) -> list[FrameTokens]:
        if not frames:
            return []
        tower = self.model.model.vision_model
        # By itself, not through get_image_features: that drops a picture whose every value is zero.
        seen = tower(pixel_values=self.pixels(frames).pixels_N3HW.to(tower.dtype), return_dict=True)
        return one_moment(frames, self.model.model.connector(seen.last_hidden_state), self._grid_hw)

    @cached_property
    def tower(self) -> SmolVLMTower:
        return SmolVLMTower(self)

    @property
    def side_px(self) -> int:
        """Height and width of the pictures that the tower reads."""
        return self._side

    def _sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        return [longest_edge_size(height, width, self._longest_edge), (self._side, self._side)]


def _longest_edge(settings: dict[str, Any], config: PixelConfig) -> int:
    """`size` where the processor's file gives it, else that of `video_sampling`, as in transformers."""
    sampling = settings.get("video_sampling")
    size = dict(config.edges_px)
    if settings.get("size") is None and isinstance(sampling, dict) and sampling.get("video_size") is not None:
        size = read_size("video_sampling.video_size", sampling["video_size"])
    if "longest_edge" not in size:
        raise ValueError(f"the checkpoint's processor has size={size}; wanted a longest_edge")
    return size["longest_edge"]

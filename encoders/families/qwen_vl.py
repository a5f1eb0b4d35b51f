"""What the Qwen-VL families share: blocks of two frames, sizes that follow the picture, time in text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...stream import Frame, Span
from ..pixel_config import PixelConfig, processor_settings, whole
from ..pixels import normalize, patchify, resize, smart_size, to_device
from ..tokens import FrameTokens
from .base_hf import FrameText, HFVideoLLM

# Shapes: P patches of all blocks, C numbers of a patch, T merged tokens, D channels, E DeepStack taps.

_MAX_FRAME_TOKENS = 768  # VIDEO_MAX_TOKEN_NUM of qwen-vl-utils, the processors' reference for videos


class Patches(NamedTuple):
    """What the tower reads: the patches of all blocks one after the other, and each block's grid."""

    patches_PC: Tensor
    grids: tuple[tuple[int, int], ...]

    def as_inputs(self) -> dict[str, Tensor]:
        """The same under transformers' own argument names: each block as a video of its own."""
        return {"pixel_values_videos": self.patches_PC, "video_grid_thw": grid_thw(self.grids)}


def grid_thw(grids: Sequence[tuple[int, int]]) -> Tensor:
    """Grids of patches as transformers writes them, one moment each, on the CPU."""
    return torch.tensor([(1, *grid) for grid in grids])


class Seen(NamedTuple):
    """What the tower gave: visual tokens of all blocks, and DeepStack's taps or None."""

    x_TD: Tensor
    deep_ETD: Tensor | None = None


class QwenVL(HFVideoLLM):
    """Qwen-VL: each block is a video of two frames of its own (one grid in time), introduced by its time.

    A block is read as `<12.5 seconds><|vision_start|>`, its tokens, `<|vision_end|>`: Qwen3-VL's own layout,
    which the earlier ones read as plain text around a video. A frame takes at most 768 tokens, what the
    reference implementation allows a video frame, whatever the checkpoint's files say; less where they do or
    `max_side_px` does.
    """

    video_placeholder: ClassVar[str] = "<|vision_start|><|video_pad|><|vision_end|>"
    rope_axes: ClassVar[int] = 3
    frames_per_block: ClassVar[int] = 2
    pixel_defaults: ClassVar[Mapping[str, Any]]
    # Qwen3-VL counts `size` over the frames of a video, and grows pictures smaller than a patch.
    size_is_per_frame: ClassVar[bool] = True

    def __init__(self, model: PreTrainedModel, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        vision = model.config.vision_config
        self._patch, self._merge = int(vision.patch_size), int(vision.spatial_merge_size)
        chosen = processor_settings(self.settings)
        wanted = {
            "patch_size": self._patch,
            "merge_size": self._merge,
            "temporal_patch_size": int(vision.temporal_patch_size),
        }
        if wanted["temporal_patch_size"] != self.frames_per_block:
            raise ValueError(
                f"{self.family} joins {self.frames_per_block} frames in time; the checkpoint's config says "
                f"temporal_patch_size={wanted['temporal_patch_size']}"
            )
        for key, value in wanted.items():
            if chosen.get(key) is not None and chosen[key] != value:
                raise ValueError(
                    f"the checkpoint's processor says {key}={str(chosen[key])[:40]} and its config {value}; "
                    "they must agree"
                )
        self._pixel_config = PixelConfig.read(chosen, self.pixel_defaults)
        self._min_pixels, self._max_pixels = self._read_budget(chosen)
        self._tower_inputs = lru_cache(maxsize=16)(self._make_tower_inputs)

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """The size, in pixels, at which a frame of height x width is seen."""
        factor, max_pixels = self._patch * self._merge, self._max_pixels
        side = max(height, width)
        if self.max_side_px is not None and side > self.max_side_px:
            bound = max(factor, self.max_side_px // factor * factor)
            height, width = max(1, height * bound // side), max(1, width * bound // side)
        return smart_size(
            height,
            width,
            factor=factor,
            min_pixels=self._min_pixels if self.max_side_px is None else min(self._min_pixels, height * width),
            max_pixels=max_pixels,
            grow_to_factor=not self.size_is_per_frame,
        )

    def pixels(self, frames: Sequence[Frame]) -> Patches:
        """The frames as patches; the two frames of a block take the size of its first."""
        num, step = len(frames), self.frames_per_block
        blocks = [frames[i : i + step] for i in range(0, num, step)]
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, block in enumerate(blocks):
            by_size.setdefault(self.frame_size(block[0].height, block[0].width), []).append(index)
        patches: list[Tensor | None] = [None] * len(blocks)
        for (height, width), indices in by_size.items():
            pixels = self._normalized([f for i in indices for f in blocks[i]], height, width)
            missing = -len(pixels) % step
            if missing:
                pixels = torch.cat([pixels, pixels[-1:].expand(missing, -1, -1, -1)])
            pixels = pixels.view(len(indices), step, *pixels.shape[1:])
            for index, patches_PC in zip(indices, patchify(pixels, self._patch, self._merge), strict=True):
                patches[index] = patches_PC
        sizes = {index: size for size, indices in by_size.items() for index in indices}
        grids = tuple((sizes[i][0] // self._patch, sizes[i][1] // self._patch) for i in range(len(blocks)))
        return Patches(torch.cat([p for p in patches if p is not None]), grids)

    @torch.inference_mode()
    def see(self, frames: Sequence[Frame]) -> list[FrameTokens]:
        if not frames:
            return []
        batch = self.pixels(frames)
        seen = self._tower(batch)
        tokens: list[FrameTokens] = []
        start = 0
        for index, (rows, columns) in enumerate(batch.grids):
            grid = rows // self._merge, columns // self._merge
            cut = slice(start, start + grid[0] * grid[1])
            start = cut.stop
            block = frames[index * self.frames_per_block : (index + 1) * self.frames_per_block]
            # copies: views would keep the tokens of the whole call alive
            deep_ETD = None if seen.deep_ETD is None else seen.deep_ETD[:, cut].clone()
            tokens.append(self.block_tokens(seen.x_TD[cut].clone(), deep_ETD, grid, block))
        return tokens

    def block_tokens(
        self, x_TD: Tensor, deep_ETD: Tensor | None, grid_hw: tuple[int, int], block: Sequence[Frame]
    ) -> FrameTokens:
        """The tokens of one block, in raster order, with their places and their time."""
        return FrameTokens(
            x_TD=x_TD,
            kept_T=torch.arange(x_TD.shape[0]),
            grid_hw=grid_hw,
            pos_3T=_positions(grid_hw),
            advance=max(grid_hw),
            span=Span(block[0].pts_s, block[-1].pts_s),
            deep_ETD=deep_ETD,
        )

    def frame_text(self, span: Span) -> FrameText:
        time = f"<{(span.start_s + span.end_s) / 2:.1f} seconds>"
        return FrameText(self.encode(f"{time}<|vision_start|>"), self.encode("<|vision_end|>"))

    @property
    def visual(self) -> nn.Module:
        """The vision tower."""
        return self.model.model.visual

    @abstractmethod
    def _make_tower_inputs(self, grids: tuple[tuple[int, int], ...]) -> dict[str, Tensor]:
        """What the tower computes from the grids alone, by the names under which it takes it instead."""

    def tower_inputs(self, grids: tuple[tuple[int, int], ...]) -> dict[str, Tensor]:
        """What follows from the blocks' grids alone, cached; written by nobody."""
        return self._tower_inputs(grids)

    def _tower(self, batch: Patches) -> Seen:
        return Seen(self._run_tower(batch).pooler_output)

    def _run_tower(self, batch: Patches) -> Any:
        # The tower would make these anew for each call, block by block, and wait for the device in each
        # layer: the lengths stay on the CPU, where its layers read them.
        given = dict(self.tower_inputs(batch.grids))
        patches_PC = batch.patches_PC.to(self.visual.dtype)
        return self.visual(patches_PC, grid_thw=grid_thw(batch.grids), return_dict=True, **given)

    def _normalized(self, frames: Sequence[Frame], height: int, width: int) -> Tensor:
        config, device = self._pixel_config, self.spec.device
        shapes = {frame.rgb_HW3.shape for frame in frames}
        groups = [frames] if len(shapes) == 1 else [[frame] for frame in frames]
        resized = [resize(to_device(group, device), height, width, config.filter) for group in groups]
        return normalize(torch.cat(resized), config.scale, config.mean, config.std)

    def _read_budget(self, settings: Mapping[str, Any]) -> tuple[int, int]:
        """Bounds on the pixels of one frame, from the processor's `size` or the older min and max pixels."""
        sizes = dict(self.pixel_defaults["size"]) | dict(self._pixel_config.edges_px)
        for old, new in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
            if settings.get(old) is not None:
                sizes[new] = whole(old, settings[old])
        share = 1 if self.size_is_per_frame else self.frames_per_block
        token = (self._patch * self._merge) ** 2
        low = -(-sizes["shortest_edge"] // share)
        high = min(sizes["longest_edge"] // share, _MAX_FRAME_TOKENS * token)
        if not 1 <= low <= _MAX_FRAME_TOKENS * token:
            raise ValueError(
                f"the checkpoint's processor asks for at least {low} pixels a frame; wanted at most "
                f"{_MAX_FRAME_TOKENS * token} ({_MAX_FRAME_TOKENS} tokens)"
            )
        return low, max(high, low, token)


def _positions(grid_hw: tuple[int, int]) -> Tensor:
    """M-RoPE positions of one grid: time stands still, rows and columns count."""
    height, width = grid_hw
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    return torch.stack([torch.zeros_like(rows), rows, columns])

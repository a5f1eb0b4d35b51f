"""What families share whose towers take every frame at one square size, a block for each frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...stream import Frame, Span
from ..pixel_config import PixelConfig
from ..pixels import normalize, resize, to_device
from ..tokens import FrameTokens

# Shapes: N frames, 3 colours, H rows, W columns, T visual tokens of a frame, D channels.


def square_pixels(
    frames: Sequence[Frame],
    sizes: Callable[[int, int], Sequence[tuple[int, int]]],
    config: PixelConfig,
    device: torch.device,
) -> Tensor:
    """Frames of any sizes as one normalised batch N3HW.

    sizes: for a frame's height and width, the sizes to which it is resized, one after the other.
    """
    resized: list[Tensor] = []
    start = 0
    for stop in range(1, len(frames) + 1):
        # frames of one size that follow one another go through in one piece
        if stop < len(frames) and frames[stop].rgb_HW3.shape == frames[start].rgb_HW3.shape:
            continue
        rgb = to_device(frames[start:stop], device)
        for height, width in sizes(*rgb.shape[-2:]):
            rgb = resize(rgb, height, width, config.filter)
        resized.append(rgb)
        start = stop
    return normalize(torch.cat(resized), config.scale, config.mean, config.std)


def one_moment(frames: Sequence[Frame], x_NTD: Tensor, grid_hw: tuple[int, int]) -> list[FrameTokens]:
    """Each frame's visual tokens, at positions that count up, as those of text do."""
    num_tokens = x_NTD.shape[1]
    places = torch.arange(num_tokens)
    return [
        FrameTokens(
            # a copy: a view would keep the tokens of the whole call alive
            x_TD=x_TD.clone(),
            kept_T=places,
            grid_hw=grid_hw,
            pos_3T=places.expand(3, -1).contiguous(),
            advance=num_tokens,
            span=Span(frame.pts_s, frame.pts_s),
        )
        for frame, x_TD in zip(frames, x_NTD, strict=True)
    ]

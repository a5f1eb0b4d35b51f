"""Frames to the numbers that a vision tower reads: resized, normalised, cut into patches, on its device.

The reference is the PIL image processor of the same family. Resizing rounds to whole levels after each axis,
as Pillow does. On a CPU this is torch's own uint8 kernel: at most 2 levels of 255 off Pillow 13, on under 1.5
% of a film frame's values. On a GPU, and for Lanczos where torch has no such kernel yet, it is matrix
products with Pillow's own coefficients: at most 2 levels off, on under 0.02 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..stream import Frame

# Shapes: N pictures, 3 colours, H rows, W columns, B blocks, T frames of a block.

Filter = Literal["bilinear", "bicubic", "lanczos"]

_FIXED_POINT_BITS = 22  # Pillow's precision of 8-bit coefficients: 32 - 8 - 2
_TILE = 64  # outputs of one matrix product on a CPU: the weights are a band, and a full one is mostly zeros


def to_device(frames: Sequence[Frame], device: torch.device) -> Tensor:
    """The frames' pictures as one uint8 tensor N3HW on `device`; all must have one size."""
    stacked_NHW3 = np.stack([frame.rgb_HW3 for frame in frames])
    return torch.from_numpy(stacked_NHW3).to(device, non_blocking=True).permute(0, 3, 1, 2)


def resize(rgb_N3HW: Tensor, height: int, width: int, filter: Filter) -> Tensor:
    """uint8 pictures to uint8 pictures of `height` x `width`, antialiased, as `PIL.Image.resize` does."""
    if rgb_N3HW.dtype != torch.uint8:
        raise TypeError(f"resize takes uint8 pictures; got {rgb_N3HW.dtype}")
    if tuple(rgb_N3HW.shape[-2:]) == (height, width):
        return rgb_N3HW
    if rgb_N3HW.device.type == "cpu" and _has_kernel(filter):
        if _rows_first(rgb_N3HW, height, width):
            rgb_N3HW = _resize_by_kernel(rgb_N3HW, height, rgb_N3HW.shape[3], filter)
        return _resize_by_kernel(rgb_N3HW, height, width, filter)
    return resize_by_products(rgb_N3HW, height, width, filter)


def resize_by_products(rgb_N3HW: Tensor, height: int, width: int, filter: Filter) -> Tensor:
    """`resize` as one matrix product an axis: any filter on any device."""
    tile = _TILE if rgb_N3HW.device.type == "cpu" else max(height, width)
    levels = rgb_N3HW.to(torch.float32, memory_format=torch.contiguous_format)
    for axis in (2, 3) if _rows_first(rgb_N3HW, height, width) else (3, 2):
        size = height if axis == 2 else width
        if levels.shape[axis] != size:
            along = levels.transpose(axis, 3).contiguous()
            levels = _resample_last(along, size, filter, tile).transpose(axis, 3)
    return levels.to(torch.uint8)


def _resize_by_kernel(rgb_N3HW: Tensor, height: int, width: int, filter: Filter) -> Tensor:
    # Colours last, as frames come: torch 2.13 fails an assertion of its own on planes when only rows change.
    rgb_N3HW = rgb_N3HW.contiguous(memory_format=torch.channels_last)
    return F.interpolate(rgb_N3HW, size=(height, width), mode=filter, antialias=True)


def _rows_first(rgb_N3HW: Tensor, height: int, width: int) -> bool:
    """Pillow 13's order of the two passes: what the first one rounds and clips is part of the result."""
    lost_rows, lost_columns = rgb_N3HW.shape[2] - height, rgb_N3HW.shape[3] - width
    return lost_rows > 0 and lost_rows > 2 * lost_columns


def normalize(rgb_N3HW: Tensor, scale: float, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(levels * scale - mean) / std as float32, in one pass over the picture."""
    device = rgb_N3HW.device
    factor = torch.tensor([scale / s for s in std], dtype=torch.float32, device=device).view(1, 3, 1, 1)
    offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32, device=device)
    return torch.addcmul(offset.view(1, 3, 1, 1), rgb_N3HW.to(torch.float32), factor)


def patchify(pixels_BT3HW: Tensor, patch: int, merge: int) -> Tensor:
    """Blocks of T frames to (blocks, patches, numbers), `merge` x `merge` neighbours together."""
    num_blocks, num_frames, colours, height, width = pixels_BT3HW.shape
    rows, columns = height // (patch * merge), width // (patch * merge)
    split = pixels_BT3HW.reshape(num_blocks, num_frames, colours, rows, merge, patch, columns, merge, patch)
    # to (blocks, rows, columns, merge rows, merge columns, colours, frames, patch rows, patch columns)
    return split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(num_blocks, rows * columns * merge**2, -1)


def smart_size(
    height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int, grow_to_factor: bool = False
) -> tuple[int, int]:
    """The size near height x width whose sides divide by `factor` and whose area stays within the bounds.

    The Qwen-VL processors' `smart_resize`; with `grow_to_factor`, the one of Qwen3-VL, which first enlarges a
    picture that is smaller than one merged patch.
    """
    if grow_to_factor and (height < factor or width < factor):
        grow = max(factor / height, factor / width)
        height, width = int(height * grow), int(width * grow)
    if max(height, width) > 200 * min(height, width):
        raise ValueError(
            f"a frame must not be more than 200 times as long as wide for this model; got {width}x{height} pixels"
        )
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


def longest_edge_size(height: int, width: int, longest_edge: int) -> tuple[int, int]:
    """The size of that aspect whose longer side is `longest_edge` and whose other is even, as SmolVLM's."""
    aspect = width / height
    if width >= height:
        width, height = longest_edge, int(longest_edge / aspect)
        height += height % 2
    else:
        height, width = longest_edge, int(longest_edge * aspect)
        width += width % 2
    return max(height, 1), max(width, 1)


@cache
def _has_kernel(filter: Filter) -> bool:
    """Whether this torch resizes uint8 pictures by that filter itself."""
    try:
        _resize_by_kernel(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), 2, 2, filter)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return True


def _resample_last(levels: Tensor, num_out: int, filter: Filter, tile: int) -> Tensor:
    """Resamples the last axis of float32 levels to `num_out` values, rounded and clipped to whole levels."""
    flat = levels.reshape(-1, levels.shape[-1])
    out = torch.empty(flat.shape[0], num_out, dtype=torch.float32, device=levels.device)
    for start, first, last, weights in _bands(levels.shape[-1], num_out, filter, tile, levels.device):
        torch.mm(flat[:, first:last], weights, out=out[:, start : start + weights.shape[1]])
    return out.add_(0.5).floor_().clamp_(0, 255).view(*levels.shape[:-1], num_out)


@lru_cache(maxsize=32)
def _bands(
    size_in: int, size_out: int, filter: Filter, tile: int, device: torch.device
) -> tuple[tuple[int, int, int, Tensor], ...]:
    """The resampling matrix in pieces: (first output, first input, last input, weights inputs x outputs)."""
    matrix, first, last = _coefficients(size_in, size_out, filter)
    bands = []
    for start in range(0, size_out, tile):
        outputs = slice(start, min(start + tile, size_out))
        low, high = int(first[outputs].min()), int(last[outputs].max())
        weights = torch.from_numpy(np.ascontiguousarray(matrix[outputs, low:high].T)).to(device)
        bands.append((start, low, high, weights))
    return tuple(bands)


def _coefficients(size_in: int, size_out: int, filter: Filter) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pillow's coefficients (`precompute_coeffs` of its Resample.c) as a float32 matrix, outputs x inputs."""
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    support = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}[filter] * stretch
    center = (np.arange(size_out) + 0.5) * scale
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    last = np.minimum((center + support + 0.5).astype(np.int64), size_in)
    inputs = np.arange(size_in)
    inside = (inputs >= first[:, None]) & (inputs < last[:, None])
    weights = np.where(inside, _kernel((inputs - center[:, None] + 0.5) / stretch, filter), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    one = float(1 << _FIXED_POINT_BITS)
    fixed = np.trunc(weights * one + np.copysign(0.5, weights)) / one
    return fixed.astype(np.float32), first, last


def _kernel(x: np.ndarray, filter: Filter) -> np.ndarray:
    x = np.abs(x)
    if filter == "bilinear":
        return np.maximum(1.0 - x, 0.0)
    if filter == "lanczos":
        return np.where(x < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))

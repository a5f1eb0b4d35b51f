"""Sights of random frames, for the tests of compressors: tokens on a grid, and rows of attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from millpond.encoders import FrameTokens
from millpond.encoders.compressors import Compressor
from millpond.encoders.sight import Sight
from millpond.stream import Span

# Shapes: T tokens, D channels.

CHANNELS = 16


def rand(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shares(seed: int, *shape: int) -> Tensor:
    """Rows of attention: positive, each sums to 1, no ties to speak of."""
    return (2.0 * rand(seed, *shape)).softmax(-1)


def sight(x_TD: Tensor, grid_hw: tuple[int, int], at_s: float = 0.0, **evidence: Any) -> Sight:
    height, width = grid_hw
    places = torch.arange(height * width)
    pos_3T = torch.stack([torch.zeros_like(places), places // width, places % width])
    return Sight(FrameTokens(x_TD, places, grid_hw, pos_3T, max(grid_hw), Span(at_s, at_s)), **evidence)


def kept(compressor: Compressor, seen: Sight) -> list[int]:
    return compressor.start().compress(seen).kept_T.tolist()


def largest(score_T: Tensor, count: int) -> list[int]:
    return sorted(score_T.argsort(descending=True)[:count].tolist())

"""Random Sights, shaped as the families shape them, and short films of them: still, noisy, or with something moving."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from millpond.encoders import FrameTokens
from millpond.encoders.sight import Sight
from millpond.stream import Span

# Shapes: T tokens, D channels of the language model, E DeepStack taps, M words.

# What each family adds to plain tokens: a token after the grid, 3-D positions, DeepStack levels.
FAMILIES = ("smolvlm", "llava_onevision", "qwen2_5_vl", "qwen3_vl")
EVIDENCE = ("change_T", "cls_T", "received_RT", "features_TC", "text_MD", "action_T")


def tokens_of(
    family: str, x_TD: Tensor, grid_hw: tuple[int, int], at_s: float = 0.0, *, rng: torch.Generator
) -> FrameTokens:
    """These grid tokens as a family gives them: with its positions, its levels, and its own token at the end."""
    width, num_channels = grid_hw[1], x_TD.shape[1]
    if family == "llava_onevision":
        newline = torch.linspace(-1, 1, num_channels).to(x_TD.dtype)
        x_TD = torch.cat([x_TD, newline[None]])
    places = torch.arange(x_TD.shape[0])
    pos_3T, advance = places.expand(3, -1).contiguous(), x_TD.shape[0]
    if family.startswith("qwen"):
        pos_3T, advance = torch.stack([torch.zeros_like(places), places // width, places % width]), max(grid_hw)
    deep_ETD = None
    if family == "qwen3_vl":
        deep_ETD = torch.randn(3, *x_TD.shape, generator=rng).to(x_TD.dtype)
    span = Span(at_s, at_s + (0.25 if family.startswith("qwen") else 0.0))
    return FrameTokens(x_TD, places, grid_hw, pos_3T, advance, span, deep_ETD)


def sight_of(
    family: str = "smolvlm",
    grid_hw: tuple[int, int] = (4, 6),
    at_s: float = 0.0,
    *,
    seed: int = 0,
    x_TD: Tensor | None = None,
    change_T: Tensor | None = None,
    num_channels: int = 32,
    dtype: torch.dtype = torch.float32,
) -> Sight:
    """One Sight with all the evidence there is. Without change_T it is the first of its stream."""
    rng = torch.Generator().manual_seed(seed)
    num_places = grid_hw[0] * grid_hw[1]
    if x_TD is None:
        x_TD = torch.randn(num_places, num_channels, generator=rng)
    return Sight(
        tokens=tokens_of(family, x_TD.to(dtype), grid_hw, at_s, rng=rng),
        change_T=torch.full((num_places,), math.inf) if change_T is None else change_T,
        noise_levels=1.0,
        cls_T=torch.rand(num_places, generator=rng).softmax(0),
        received_RT=torch.rand(2, num_places, generator=rng).softmax(-1),
        features_TC=torch.randn(num_places, 24, generator=rng),
        text_MD=torch.randn(3, x_TD.shape[1], generator=torch.Generator().manual_seed(99)),
        action_T=torch.rand(num_places, generator=rng),
    )


def film(
    family: str = "smolvlm",
    num_blocks: int = 6,
    grid_hw: tuple[int, int] = (4, 6),
    *,
    seed: int = 0,
    noise: float = 0.0,
    is_moving: bool = True,
    dtype: torch.dtype = torch.float32,
    num_channels: int = 32,
    start_s: float = 0.0,
) -> list[Sight]:
    """Blocks at 2 per second of one background, over which, where it is moving, one thing goes place by place.

    noise: of each channel, beside a background of 1; the pixels' noise is as many levels.
    """
    rng = torch.Generator().manual_seed(seed)
    num_places = grid_hw[0] * grid_hw[1]
    background_TD = torch.randn(num_places, num_channels, generator=rng)
    thing_D = torch.randn(num_channels, generator=rng)
    blocks: list[Sight] = []
    for number in range(num_blocks):
        x_TD = background_TD + noise * torch.randn(background_TD.shape, generator=rng)
        change_T = noise * (0.8 + 0.4 * torch.rand(num_places, generator=rng)) if number else None
        if is_moving:
            x_TD[number % num_places] = thing_D
            if change_T is not None:
                change_T[[number % num_places, (number - 1) % num_places]] = 40.0
        # One seed for all blocks: what does not move has the same evidence in every block.
        seen = sight_of(family, grid_hw, start_s + number / 2, seed=seed + 1, x_TD=x_TD, change_T=change_T, dtype=dtype)
        blocks.append(replace(seen, noise_levels=noise))
    return blocks


def copied(sight: Sight) -> list[Tensor]:
    """Every tensor of a Sight, as it is now."""
    held = [getattr(sight, name) for name in EVIDENCE]
    held += [getattr(sight.tokens, name) for name in ("x_TD", "kept_T", "pos_3T", "deep_ETD")]
    return [tensor.clone() for tensor in held if tensor is not None]


def same_tokens(one: FrameTokens, other: FrameTokens) -> bool:
    """Bit for bit."""
    deep_is_same = (one.deep_ETD is None and other.deep_ETD is None) or (
        one.deep_ETD is not None and other.deep_ETD is not None and torch.equal(one.deep_ETD, other.deep_ETD)
    )
    return (
        torch.equal(one.x_TD, other.x_TD)
        and torch.equal(one.kept_T, other.kept_T)
        and torch.equal(one.pos_3T, other.pos_3T)
        and deep_is_same
        and (one.grid_hw, one.advance, one.span) == (other.grid_hw, other.advance, other.span)
    )

"""A frame's visual tokens at rest: one byte a channel, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..stream import Span
from .tokens import FrameTokens

# Shapes: T visual tokens, D channels of the language model, E extra taps (DeepStack).

_NAMES = ("x", "x_scale", "kept", "pos", "grid", "advance")


def rest_tokens(tokens: FrameTokens) -> dict[str, Tensor]:
    """Named tensors on the host. Each token is off by at most 1/254 of its own largest channel."""
    x_TD, x_scale_T = _to_int8(tokens.x_TD)
    rested = {
        "x": x_TD,
        "x_scale": x_scale_T,
        "kept": tokens.kept_T.cpu(),
        "pos": tokens.pos_3T.cpu(),
        "grid": torch.tensor(tokens.grid_hw),
        "advance": torch.tensor([tokens.advance]),
    }
    if tokens.deep_ETD is not None:
        rested["deep"], rested["deep_scale"] = _to_int8(tokens.deep_ETD)
    return rested


def wake_tokens(rested: Mapping[str, Tensor], span: Span, dtype: torch.dtype) -> FrameTokens:
    """The tokens again; ValueError for tensors that are not what `rest_tokens` makes."""
    names = (*_NAMES, "deep_scale") if "deep" in rested else _NAMES
    missing = [name for name in names if name not in rested]
    if missing:
        raise ValueError(f"tokens at rest need {', '.join(names)}; got none named {', '.join(missing)}; drop them")
    for name in ("kept", "pos", "grid", "advance"):
        if rested[name].dtype != torch.int64:
            raise ValueError(f"tokens at rest have {name} as int64; got {rested[name].dtype}; drop them")
    if rested["grid"].shape != (2,) or rested["advance"].shape != (1,):
        raise ValueError(
            f"tokens at rest have a grid of 2 numbers and 1 advance; got {tuple(rested['grid'].shape)} and "
            f"{tuple(rested['advance'].shape)}; drop them"
        )
    for name in ("kept", "pos", "grid", "advance"):
        if bool((rested[name] < 0).any()):
            raise ValueError(f"tokens at rest have no negative {name}; got {int(rested[name].min())}; drop them")
    height, width = rested["grid"].tolist()
    return FrameTokens(
        x_TD=_from_int8(rested["x"], rested["x_scale"], dtype),
        kept_T=rested["kept"],
        grid_hw=(height, width),
        pos_3T=rested["pos"],
        advance=int(rested["advance"]),
        span=span,
        deep_ETD=_from_int8(rested["deep"], rested["deep_scale"], dtype) if "deep" in rested else None,
    )


def _to_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().float().cpu()
    scale = (x.abs().amax(-1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (x / scale[..., None]).round_().to(torch.int8), scale


def _from_int8(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    if x.dtype != torch.int8 or scale.dtype != torch.float32 or scale.shape != x.shape[:-1]:
        raise ValueError(
            f"tokens at rest are int8 with a float32 scale each; got {x.dtype} {tuple(x.shape)} and {scale.dtype} "
            f"{tuple(scale.shape)}; drop them"
        )
    if not bool(scale.isfinite().all()):
        raise ValueError("tokens at rest have finite scales; got NaN or infinity; drop them")
    return (x.float() * scale[..., None]).to(dtype)

"""walk: all patches of a block through all layers of a tower. What reusers' short cuts are measured against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...stream import Frame
from ..tokens import FrameTokens
from .base import Prepared, Tower

# Shapes: T patches of a picture in the tower's own order, U units, P patches of a unit, C channels of the tower,
# H heads, D channels per head, O channels of the language model, E DeepStack taps.

OnLayer = Callable[[int, Tensor, Tensor, Tensor, Tensor], None]


class Walked(NamedTuple):
    """What came out: every unit's row for the language model, its DeepStack rows or None, and the patches behind them
    after the last layer."""

    y_UO: Tensor
    deep_EUO: Tensor | None
    x_TC: Tensor


@torch.inference_mode()
def walk(tower: Tower, prepared: Prepared, on_layer: OnLayer | None = None) -> Walked:
    """All patches of a block through all layers, as the family computes them.

    on_layer: called in each layer with its number, its input x_TC, its queries and keys (rotated), and values, all THD.
    """
    layout = prepared.layout
    units_UP = layout.units_UP.to(tower.device)
    deep: dict[int, Tensor] = {}
    x_TC = tower.embed(prepared)
    for layer in range(tower.num_layers):
        q_TC, k_TC, v_TC = tower.qkv(layer, tower.norm1(layer, x_TC))
        q_THD, k_THD = tower.rotate(layout, q_TC, None), tower.rotate(layout, k_TC, None)
        v_THD = v_TC.view(-1, tower.num_heads, tower.head_dim)
        if on_layer is not None:
            on_layer(layer, x_TC, q_THD, k_THD, v_THD)
        x_TC = x_TC + tower.project(layer, tower.attend(layer, layout, q_THD, k_THD, v_THD, None))
        x_TC = x_TC + tower.mlp(layer, x_TC)
        for number, tapped in enumerate(tower.taps):
            if tapped == layer:
                deep[number] = tower.tap(number, x_TC[units_UP])
    deep_EUO = torch.stack([deep[number] for number in range(len(tower.taps))]) if tower.taps else None
    return Walked(tower.head(x_TC[units_UP]), deep_EUO, x_TC)


def see_by_walking(tower: Tower, frames: Sequence[Frame]) -> FrameTokens:
    """One block of frames as the family's `see` gives it, made by the tower's parts."""
    prepared = tower.prepare(frames)
    walked = walk(tower, prepared)
    return tower.assemble(walked.y_UO, walked.deep_EUO, prepared.layout, frames)

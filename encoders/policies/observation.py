"""Observation and Chunk: what a policy is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Shapes: 1 robot, T tokens of the prefix, C cameras, P visual tokens of a camera, D channels of the language model,
# 3 colours, H rows and W columns of pixels, S numbers of a state, A action steps, J numbers of an action, N = C * P.


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One moment as a policy reads it. Made by the caller from a feed, read by `PI0Policy.read`, written by nobody.

    ids_1T: int64, the prompt's token ids, with a placeholder for each visual token, cameras in order.
    state_1S: the robot's state, normalised and padded as the checkpoint wants it.
    x_CPD: visual tokens in the language model's space: `PI0Policy.see`, or a feed's.
    mask_1T: int64 or bool, false where the prompt is padding; None where nothing is. As in transformers, positions
        count from 0 with a mask and from 1 without.
    pixels_C3HW: what the tower read, for savings that compare pictures.
    fresh_CP: bool, visual tokens that must be computed anew and kept: a gripper's, a hand's. None: none must.
    present_CP: bool, visual tokens that are there at all, where a feed gave fewer: those that are not take no work, and
        leave their places empty. None: all are.
    is_cut: whether a camera shows another scene than in the observation before: what was learnt of that is void.
    """

    ids_1T: Tensor
    state_1S: Tensor
    x_CPD: Tensor
    mask_1T: Tensor | None = None
    pixels_C3HW: Tensor | None = None
    fresh_CP: Tensor | None = None
    present_CP: Tensor | None = None
    is_cut: bool = False

    def __post_init__(self) -> None:
        if self.ids_1T.ndim != 2 or self.ids_1T.shape[0] != 1 or self.ids_1T.dtype != torch.int64:
            raise ValueError(
                f"ids_1T must be int64 of shape (1, tokens); got {self.ids_1T.dtype} {tuple(self.ids_1T.shape)}; "
                "a policy drives one robot at a time"
            )
        if self.state_1S.ndim != 2 or self.state_1S.shape[0] != 1:
            raise ValueError(f"state_1S must be of shape (1, numbers); got {tuple(self.state_1S.shape)}")
        if self.x_CPD.ndim != 3 or not self.x_CPD.numel():
            raise ValueError(f"x_CPD must be (cameras, tokens, channels); got {tuple(self.x_CPD.shape)}")
        if not bool(torch.isfinite(self.x_CPD).all()):
            raise ValueError(f"visual tokens must be finite; got {self.x_CPD.shape[0]} cameras with some that are not")
        if self.mask_1T is not None and self.mask_1T.shape != self.ids_1T.shape:
            raise ValueError(
                f"mask_1T must have the shape of ids_1T, {tuple(self.ids_1T.shape)}; got {tuple(self.mask_1T.shape)}"
            )
        grid = self.x_CPD.shape[:2]
        for name in ("fresh_CP", "present_CP"):
            mask_CP = getattr(self, name)
            if mask_CP is not None and (mask_CP.dtype != torch.bool or mask_CP.shape != grid):
                raise ValueError(
                    f"{name} must be a bool for each of {tuple(grid)} visual tokens; got {mask_CP.dtype} "
                    f"{tuple(mask_CP.shape)}"
                )
        pixels = self.pixels_C3HW
        if pixels is not None and (pixels.ndim != 4 or pixels.shape[0] != grid[0] or pixels.shape[1] != 3):
            raise ValueError(f"pixels_C3HW must be ({grid[0]} cameras, 3, rows, columns); got {tuple(pixels.shape)}")

    def after_cut(self) -> Observation:
        """The same, as the first of another scene."""
        return replace(self, is_cut=True)

    def __repr__(self) -> str:
        num_cameras, num_tokens, _ = self.x_CPD.shape
        return f"Observation({num_cameras} cameras of {num_tokens} tokens in a prefix of {self.ids_1T.shape[1]})"


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Actions to come, and what they took. Made by `PI0Policy`, read by a control loop, written by nobody.

    actions_AJ: the steps, in the checkpoint's normalised space, first one first.
    looked_CP: float32, where the action steps looked: their attention to each visual token, as shares that sum to 1;
        what `RobotFeed.observe_attention` and `fresh_CP` are for. Zero for tokens that were dropped.
    rows_per_layer: tokens that were computed in each layer of the prefix.
    slots_per_layer: tokens that the actions could look at in each layer.
    """

    actions_AJ: Tensor
    looked_CP: Tensor
    rows_per_layer: tuple[int, ...]
    slots_per_layer: tuple[int, ...]

    def __repr__(self) -> str:
        num_rows = f"{self.rows_per_layer[0]} to {self.rows_per_layer[-1]} rows"
        return f"Chunk({self.actions_AJ.shape[0]} steps from a prefix of {num_rows})"

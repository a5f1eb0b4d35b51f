"""FrameTokens: what the vision half of a model made of one frame, or of the few that it takes together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..stream import Span

# Shapes: T visual tokens, D channels of the language model, E extra taps (DeepStack).


@dataclass(frozen=True, slots=True, eq=False)
class FrameTokens:
    """Made by `VideoLLM.see` and compressors, read by compressors and `VideoLLM.read`, written by nobody.

    x_TD: visual tokens in the language model's space, projector included.
    kept_T: int64 raster index of each token in the grid, strictly increasing.
    grid_hw: height and width, in tokens, of the grid that kept_T points into. A grid may hold more than
        height * width positions where the family appends a token of its own after it (LLaVA-OneVision's newline).
    pos_3T: int64 positions (time, height, width) of each token relative to the first visual position.
    advance: how many positions the visual tokens take.
    span: the stream time shown: [first frame, last frame]; a moment for a single frame.
    deep_ETD: features that the family adds after its first language layers (Qwen3-VL's DeepStack), or None.
    """

    x_TD: Tensor
    kept_T: Tensor
    grid_hw: tuple[int, int]
    pos_3T: Tensor
    advance: int
    span: Span
    deep_ETD: Tensor | None = None

    def __post_init__(self) -> None:
        num_tokens = self.x_TD.shape[0]
        if self.x_TD.ndim != 2 or num_tokens < 1:
            raise ValueError(f"x_TD must be (tokens, channels) with a token at least; got {tuple(self.x_TD.shape)}")
        if self.kept_T.dtype != torch.int64 or tuple(self.kept_T.shape) != (num_tokens,):
            raise ValueError(
                f"kept_T must be int64 of shape ({num_tokens},); got {self.kept_T.dtype} {tuple(self.kept_T.shape)}"
            )
        if num_tokens > 1 and not bool((self.kept_T[1:] > self.kept_T[:-1]).all()):
            raise ValueError(f"kept_T must increase strictly; got {self.kept_T.tolist()[:20]}")
        if tuple(self.pos_3T.shape) != (3, num_tokens) or self.pos_3T.dtype != torch.int64:
            raise ValueError(
                f"pos_3T must be int64 of shape (3, {num_tokens}); got {self.pos_3T.dtype} {tuple(self.pos_3T.shape)}"
            )
        if self.deep_ETD is not None and self.deep_ETD.shape[1:] != self.x_TD.shape:
            raise ValueError(
                f"deep_ETD must be (taps, {num_tokens}, {self.x_TD.shape[1]}); got {tuple(self.deep_ETD.shape)}"
            )

    @property
    def num_tokens(self) -> int:
        return int(self.x_TD.shape[0])

    @property
    def mean_D(self) -> Tensor:
        """Mean of the tokens that stand on the grid, float32: what the frame shows on the whole."""
        on_grid_T = self.kept_T < self.grid_hw[0] * self.grid_hw[1]
        return self.x_TD[on_grid_T.to(self.x_TD.device)].float().mean(dim=0)

    def __repr__(self) -> str:
        height, width = self.grid_hw
        return f"FrameTokens({self.num_tokens} of a {height}x{width} grid, {self.span})"

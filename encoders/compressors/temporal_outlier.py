"""VidCom2, made causal: unusual frames keep more, and of each frame the most unusual tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..sight import Sight
from .base import Compressor, CompressorRun, Picked, Room
from .budgets import bonus_share
from .picks import topk
from .scorers import moved_average, outlier, steadiest_channels, unit

# Shapes: T tokens, D channels, K tokens kept.


@dataclass(frozen=True, kw_only=True)
class VidCom2(Compressor):
    """Keeps the tokens that lie outside: far from the frame's centre and from the stream's.

    1. The channels that vary least over the first calibration_blocks blocks; then unit vectors. Fixed from then on.
    2. Score = outlier from the frame's mean + outlier from the stream's centre, sums of Gaussian kernels.
    3. A frame's share grows with how unusual it is beside the frames so far.

    Paper: Video Compression Commander: Plug-and-Play Inference Acceleration for Video LLMs (arXiv 2505.14454)
    Differs from the paper: offline as published, causal here, so its results are not this method's. The video's mean
        is a moving average of frame means; channel variances run over the first blocks only; a frame's bonus is the
        logistic of its z-score among the frames so far, in place of a softmax over all frames.

    keep_tokens: tokens of a usual frame; an unusual one keeps half of them more or less. All of them: all stay.
    channel_share: share of the channels that is looked at, above 0 to 1.
    calibration_blocks: blocks that the channels are chosen from.
    centre_share: how much of a new frame goes into the stream's centre, above 0 to 1.
    at_most: tokens per second, and the floor per frame.
    """

    is_offline_as_published: ClassVar[bool] = True

    keep_tokens: int = 64
    channel_share: float = 0.5
    calibration_blocks: int = 4
    centre_share: float = 0.1

    def __post_init__(self) -> None:
        if self.keep_tokens < 1 or self.calibration_blocks < 1:
            raise ValueError(
                "keep_tokens and calibration_blocks must be at least 1; "
                f"got {self.keep_tokens} and {self.calibration_blocks}"
            )
        if not (0.0 < self.channel_share <= 1.0 and 0.0 < self.centre_share <= 1.0):
            raise ValueError(
                "channel_share and centre_share must be above 0 and at most 1; "
                f"got {self.channel_share} and {self.centre_share}"
            )

    def start(self) -> CompressorRun:
        return _Run(self)


class _Run(CompressorRun):
    def __init__(self, recipe: VidCom2) -> None:
        super().__init__(recipe)
        self._by = recipe
        self.restart()

    def restart(self) -> None:
        self._channels = Welford()
        self._uniqueness = Welford()
        self._mask_D: Tensor | None = None
        self._centre_D: Tensor | None = None
        self._num_blocks = 0

    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        by, num_places = self._by, x_TD.shape[0]
        if self._mask_D is None or self._num_blocks < by.calibration_blocks:
            self._channels.add(x_TD)
            self._mask_D = steadiest_channels(self._channels.variance, by.channel_share)
            # Another set of channels is another space: its centre starts anew.
            self._centre_D = None
        self._num_blocks += 1
        x_TD = unit(x_TD[:, self._mask_D])
        mean_D = x_TD.mean(0)
        far_T = outlier(x_TD, mean_D if self._centre_D is None else self._centre_D)
        self._centre_D = moved_average(self._centre_D, mean_D, by.centre_share)
        unusual = far_T.mean()
        deviation = float(self._uniqueness.variance.sqrt()) if self._uniqueness.count > 1 else 0.0
        z_score = (float(unusual) - float(self._uniqueness.mean)) / deviation if deviation > 1e-6 else 0.0
        self._uniqueness.add(unusual[None])
        bonus = 0.5 * (1.0 + math.tanh(z_score / 2.0))  # the logistic function, which does not overflow
        share = bonus_share(bonus, 0.5, by.keep_tokens / num_places) if by.keep_tokens < num_places else 1.0
        return Picked(topk(far_T + outlier(x_TD, mean_D), room.fit(round(share * num_places))))

    @property
    def num_bytes(self) -> int:
        held = (self._mask_D, self._centre_D, self._channels.mean, self._channels.squares)
        return sum(tensor.nbytes for tensor in held if tensor is not None)


class Welford:
    """Running mean and variance along the first axis, stable however long it runs."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def add(self, rows: Tensor) -> None:
        num_rows, mean = rows.shape[0], rows.float().mean(0)
        squares = (rows.float() - mean).square().sum(0)
        total = self.count + num_rows
        apart = mean - self.mean.to(mean.device)
        self.squares = self.squares.to(mean.device) + squares + apart.square() * (self.count * num_rows / total)
        self.mean = mean - apart * (self.count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        return self.squares / max(1, self.count)

"""Grid: numbers as small codes on evenly spaced levels, with two float16 numbers for each group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .bits import pack_codes, packed_bytes, unpack_codes

# Shapes: R rows (any number of axes), W numbers in a row, N groups of a row, G numbers in a group.

Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Grid:
    """How rows of numbers of magnitude below 2 become codes; levels are fitted to each group of a row alone.

    num_levels: levels of a group; 2, 3, 4, 16 or 256.
    group: numbers of a row that share levels; the last group of a row may be shorter.
    fit: "range" spreads the levels from the smallest number to the largest: off by at most 1 / (levels - 1) of
        the largest magnitude. "means" puts the outer levels at the means of the outer bins of `levels` equal
        bins: about half the mean squared error with two or three levels, off by at most 2 / levels.
    """

    num_levels: int
    group: int
    fit: Literal["range", "means"] = "range"

    def layout(self, name: str, shape: tuple[int, ...]) -> Layout:
        """dtype and shape of every buffer that `encode` makes of numbers of that shape."""
        stats = (*shape[:-1], -(-shape[-1] // min(self.group, shape[-1])))
        return {
            f"{name}_codes": (torch.uint8, (packed_bytes(torch.Size(shape).numel(), self.num_levels),)),
            f"{name}_low": (torch.float16, stats),
            f"{name}_step": (torch.float16, stats),
        }

    def encode(self, name: str, x_RW: Tensor) -> dict[str, Tensor]:
        """The buffers of float32 numbers, each named after `name`."""
        width = x_RW.shape[-1]
        size = min(self.group, width)
        x_RNG = _grouped(x_RW, size)
        low_RN1, high_RN1 = x_RNG.amin(-1, keepdim=True), x_RNG.amax(-1, keepdim=True)
        if self.fit == "means":
            low_RN1, high_RN1 = self._outer_means(x_RNG, low_RN1, high_RN1, width)
        low_RN1 = low_RN1.half()
        step_RN1 = (high_RN1 - low_RN1.float()).clamp_(min=0) / (self.num_levels - 1)
        step_RN1 = (step_RN1 * (1 + 2**-10)).half()  # rounded up, so that the top level reaches the largest
        steps_RNG = (x_RNG - low_RN1.float()) / step_RN1.float().clamp(min=2**-24)  # the smallest float16
        codes_RNG = steps_RNG.round_().clamp_(0, self.num_levels - 1).to(torch.uint8)
        return {
            f"{name}_codes": pack_codes(codes_RNG.flatten(-2)[..., :width], self.num_levels),
            f"{name}_low": low_RN1.squeeze(-1),
            f"{name}_step": step_RN1.squeeze(-1),
        }

    def decode(self, buffers: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
        """The float32 numbers again."""
        codes_RW = unpack_codes(buffers[f"{name}_codes"], self.num_levels, shape)
        size = min(self.group, shape[-1])
        low_RN1 = buffers[f"{name}_low"].float().unsqueeze(-1)
        step_RN1 = buffers[f"{name}_step"].float().unsqueeze(-1)
        if shape[-1] % size == 0:
            codes_RNG = codes_RW.view(*shape[:-1], shape[-1] // size, size)
            return torch.addcmul(low_RN1, codes_RNG.float(), step_RN1).flatten(-2)
        group_W = torch.arange(shape[-1], device=codes_RW.device) // size
        return torch.addcmul(low_RN1[..., group_W, 0], codes_RW.float(), step_RN1[..., group_W, 0])

    def _outer_means(self, x_RNG: Tensor, low_RN1: Tensor, high_RN1: Tensor, width: int) -> tuple[Tensor, Tensor]:
        size = x_RNG.shape[-1]
        is_own_NG = (torch.arange(x_RNG.shape[-2] * size, device=x_RNG.device) < width).view(-1, size)
        bin_RN1 = (high_RN1 - low_RN1) / self.num_levels
        means = []
        for is_in_RNG in (x_RNG <= low_RN1 + bin_RN1, x_RNG >= high_RN1 - bin_RN1):
            weight_RNG = (is_in_RNG & is_own_NG).float()
            means.append((x_RNG * weight_RNG).sum(-1, keepdim=True) / weight_RNG.sum(-1, keepdim=True))
        return means[0], means[1]


def _grouped(x_RW: Tensor, num_grouped: int) -> Tensor:
    """Cut into groups; the last one is filled up with the row's last number, which moves no minimum or maximum."""
    missing = -x_RW.shape[-1] % num_grouped
    if missing:
        x_RW = torch.cat([x_RW, x_RW[..., -1:].expand(*x_RW.shape[:-1], missing)], dim=-1)
    return x_RW.reshape(*x_RW.shape[:-1], x_RW.shape[-1] // num_grouped, num_grouped)

"""Static/dynamic split: what stands still is summed up, what moves is picked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..sight import Need, Sight
from .base import Compressor, CompressorRun, Picked, Room
from .mergers import nearest_centre
from .picks import density_peaks, topk
from .scorers import novelty

# Shapes: T tokens, S static ones, M moving ones, D channels, K tokens kept.


@dataclass(frozen=True, kw_only=True)
class StaticDynamic(Compressor):
    """Splits a frame's count between still and moving tokens in proportion: density peaks of these, the best of those.

    1. Static: cosine to the same place one frame before is above static_cosine. The first frame is all dynamic.
    2. Static tokens get floor(keep * their share): density peaks, each mixed with the mean of those that join it.
    3. Dynamic tokens get the rest, by the attention that the tower pays them.

    Paper: StreamingTOM: Streaming Token Compression for Efficient Video Understanding (arXiv 2510.18269)
    Differs from the paper: where the tower gives no attention, how unlike the frame's mean a token is stands in; ties
        are broken by place, not by noise; what is stored afterwards is the memory's business.

    keep_tokens: tokens of a frame.
    static_cosine: above it a place stands still, -1 to 1.
    num_neighbours: neighbours that the density of a static token is taken from.
    own_share: share of a static centre in its mix, 0 to 1.
    at_most: tokens per second, and the floor per frame.
    """

    uses: ClassVar[frozenset[Need]] = frozenset({Need.RECEIVED, Need.CLS})

    keep_tokens: int = 50
    static_cosine: float = 0.9
    num_neighbours: int = 7
    own_share: float = 0.6

    def __post_init__(self) -> None:
        if self.keep_tokens < 1 or self.num_neighbours < 1:
            raise ValueError(
                f"keep_tokens and num_neighbours must be at least 1; got {self.keep_tokens} and {self.num_neighbours}"
            )
        if not (-1.0 <= self.static_cosine <= 1.0 and 0.0 <= self.own_share <= 1.0):
            raise ValueError(
                "static_cosine must be in [-1, 1] and own_share in [0, 1]; "
                f"got {self.static_cosine} and {self.own_share}"
            )

    def start(self) -> CompressorRun:
        return _Run(self)


class _Run(CompressorRun):
    def __init__(self, recipe: StaticDynamic) -> None:
        super().__init__(recipe)
        self._by = recipe
        self.restart()

    def restart(self) -> None:
        self._before_TD: Tensor | None = None

    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        by, num_places = self._by, x_TD.shape[0]
        before_TD, self._before_TD = self._before_TD, x_TD.clone()
        keep = room.fit(by.keep_tokens)
        if keep == num_places:
            return Picked(torch.arange(num_places, device=x_TD.device))
        if before_TD is None:
            static_T = torch.zeros(num_places, dtype=torch.bool, device=x_TD.device)
        else:
            static_T = novelty(x_TD, before_TD) < 1.0 - by.static_cosine
        static_S, moving_M = static_T.nonzero().squeeze(1), (~static_T).nonzero().squeeze(1)
        num_static = keep * static_S.shape[0] // num_places
        num_moving = min(keep - num_static, moving_M.shape[0])
        num_static = keep - num_moving  # what the moving ones cannot fill

        moving_K = moving_M[topk(_attention(sight, x_TD)[moving_M], num_moving)]
        still_SD = x_TD[static_S]
        centres = (
            nearest_centre(still_SD, density_peaks(still_SD, num_static, by.num_neighbours), by.own_share)
            if num_static
            else None
        )
        if centres is None:
            return Picked(moving_K)
        index_K = torch.cat([static_S[centres.index_K], moving_K])
        order_K = index_K.argsort()
        return Picked(index_K[order_K], torch.cat([centres.x_KD, x_TD[moving_K]])[order_K])

    @property
    def num_bytes(self) -> int:
        return 0 if self._before_TD is None else self._before_TD.nbytes


def _attention(sight: Sight, x_TD: Tensor) -> Tensor:
    if sight.received_RT is not None:
        return sight.received_RT[-1].to(x_TD.device)
    return novelty(x_TD, x_TD.mean(0)) if sight.cls_T is None else sight.cls_T.to(x_TD.device)

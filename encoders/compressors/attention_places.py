"""Per-frame selectors that look at attention and at where tokens lie: bands, tiles, neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..sight import Need, Sight
from .attention import CLS, RECEIVED, cls_row, received_rows
from .base import Picked, Room
from .budgets import proportional_counts
from .per_frame import PerFrame, check_share
from .picks import topk
from .scorers import cosines

# Shapes: T tokens, D channels of the language model, P bands or tiles of the grid.

_NOT_AGAIN = -torch.inf


@dataclass(frozen=True, kw_only=True)
class HoloV(PerFrame):
    """Every band of the picture gets a share of the tokens: more where attention goes and where the band is varied.

    1. Bands are contiguous ranges in raster order. A token's value is its [CLS] attention plus a little of how much
       its cosines with the rest of its band vary.
    2. A band's share goes by the mean value of its tokens; inside it the most attended stay.

    Paper: Don't Just Chase "Highlighted Tokens" in MLLMs: Revisiting Visual Holistic Context ... (arXiv 2510.02912)
    Differs from the paper: attention and variance are each divided by their mean over the frame, so that their
        weights do not hang on the number of tokens (the code: 1000 and 0.09); shares that do not divide go to the
        largest remainders and what a full band cannot take goes to the others, where the code fills gaps with zero
        vectors; raster order is restored; where a tower has no [CLS] a virtual one looks, the mean query of all
        patches.

    keep_tokens: tokens of a frame.
    num_bands: how many bands; 0: 1.78 times the tokens by those kept, as the authors do for Qwen.
    variance_weight: what variance counts, where attention counts 1; 0 or more.
    at_most: tokens per second, and the floor per frame.
    """

    needs: ClassVar[frozenset[Need]] = CLS

    num_bands: int = 0
    variance_weight: float = 0.09

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_bands < 0:
            raise ValueError(f"num_bands must be 0 (by itself) or more; got {self.num_bands}")
        if not self.variance_weight >= 0.0:
            raise ValueError(f"variance_weight must be 0 or more; got {self.variance_weight}")

    def choose(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        num_tokens, score_T = x_TD.shape[0], cls_row(sight, x_TD)
        num_bands = min(num_tokens, self.num_bands or max(1, int(1.78 * num_tokens / room.most)))
        bands = torch.arange(num_tokens, device=x_TD.device).tensor_split(num_bands)
        varied_T = torch.cat([cosines(x_TD[band], x_TD[band]).var(-1, unbiased=False) for band in bands])
        value_T = _by_mean(score_T) + self.variance_weight * _by_mean(varied_T)
        share_P = torch.stack([value_T[band].mean() for band in bands])
        counts = proportional_counts(share_P, room.most, [len(band) for band in bands])
        best = [band[topk(score_T[band], count)] for band, count in zip(bands, counts, strict=True)]
        return Picked(torch.cat(best))


@dataclass(frozen=True, kw_only=True)
class HiRED(PerFrame):
    """Part of the tokens go to the whole picture; the rest to its tiles, by how much an early layer sees in each.

    1. Of the whole picture, the most attended by the last layer's [CLS].
    2. Each tile's share of the rest: how many of the most attended tokens of an earlier layer lie in it. Inside a
       tile, of what was not taken yet, the most attended by the last layer's [CLS].

    Paper: HiRED: Attention-Guided Token Dropping for ... High-Resolution Vision-Language Models (arXiv 2408.10945)
    Differs from the paper: a video frame is encoded once, so its tiles are parts of one grid, not crops encoded on
        their own, and none is chosen twice; the earlier layer is a middle one and counts what tokens receive, where
        the paper takes layer 0's [CLS]; where a tower has no [CLS] a virtual one looks, the mean query of all patches;
        shares that do not divide go to the largest remainders, where the code rounds down and leaves tokens unused.

    keep_tokens: tokens of a frame.
    whole_share: share of the kept tokens chosen over the whole picture, 0 to 1.
    tiles_per_side: how many tiles high and wide the picture is, at least 1.
    at_most: tokens per second, and the floor per frame.
    """

    needs: ClassVar[frozenset[Need]] = CLS | RECEIVED

    whole_share: float = 0.5
    tiles_per_side: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("whole_share", self.whole_share)
        if self.tiles_per_side < 1:
            raise ValueError(f"tiles_per_side must be at least 1; got {self.tiles_per_side}")

    def choose(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        score_T, early_T = cls_row(sight, x_TD), received_rows(sight, x_TD)[0]
        tile_T = self.tiles(sight.tokens.grid_hw).to(x_TD.device)
        whole = topk(score_T, round(self.whole_share * room.most))
        score_T = score_T.index_fill(0, whole, _NOT_AGAIN)
        num_seen = max(1, round((1.0 - self.whole_share) * x_TD.shape[0]))
        num_tiles = self.tiles_per_side**2
        share_P = torch.bincount(tile_T[topk(early_T, num_seen)], minlength=num_tiles)
        open_P = torch.bincount(tile_T[score_T > _NOT_AGAIN], minlength=num_tiles)
        counts = proportional_counts(share_P, room.most - whole.shape[0], open_P.tolist())
        best = [topk(score_T.masked_fill(tile_T != tile, _NOT_AGAIN), count) for tile, count in enumerate(counts)]
        return Picked(torch.cat([whole, *best]).sort().values)

    def tiles(self, grid_hw: tuple[int, int]) -> Tensor:
        """The tile of each place of a grid, in raster order: (T,). A grid narrower than the tiles leaves some empty."""
        row_H, column_W = (torch.arange(side) * self.tiles_per_side // side for side in grid_hw)
        return (row_H[:, None] * self.tiles_per_side + column_W).flatten()


@dataclass(frozen=True, kw_only=True)
class HiPrune(PerFrame):
    """Objects by a middle layer, what touches them, and the whole by the last layer.

    1. Anchors: the most attended tokens of a middle layer. 2. Buffers: their neighbours above, below, left and right.
    3. Registers: the most attended tokens of the last layer, until enough are kept.

    Paper: HiPrune: Hierarchical Attention for Efficient Token Pruning in Vision-Language Models (arXiv 2508.00553)
    Differs from the paper: an anchor at the end of a row has no neighbour at the start of the next, where the code
        wraps round; there is one anchor at least; where anchors and buffers are more than may stay, anchors come
        first, then the buffers that the middle layer sees most; what tokens receive is estimated from evenly chosen
        queries, at the middle one of the layers that see the whole picture, not one chosen for each tower.

    keep_tokens: tokens of a frame.
    anchor_share: share of the kept tokens for anchors and their four neighbours, 0 to 1.
    at_most: tokens per second, and the floor per frame.
    """

    needs: ClassVar[frozenset[Need]] = RECEIVED

    anchor_share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("anchor_share", self.anchor_share)

    def choose(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        rows_RT = received_rows(sight, x_TD)
        objects_T, whole_T = rows_RT[0], rows_RT[-1]
        anchors = topk(objects_T, max(1, round(self.anchor_share * room.most / 5)))
        is_kept_T = torch.zeros_like(objects_T, dtype=torch.bool).index_fill(0, anchors, True)
        buffers_T = neighbours(is_kept_T, sight.tokens.grid_hw) & ~is_kept_T
        num_buffers = min(int(buffers_T.sum()), room.most - anchors.shape[0])
        is_kept_T[topk(objects_T.masked_fill(~buffers_T, _NOT_AGAIN), num_buffers)] = True
        num_left = room.most - int(is_kept_T.sum())
        is_kept_T[topk(whole_T.masked_fill(is_kept_T, _NOT_AGAIN), num_left)] = True
        return Picked(is_kept_T.nonzero().squeeze(1))


def neighbours(mask_T: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """The places above, below, left and right of those of a mask, inside the grid: (T,)."""
    mask_HW = mask_T.view(grid_hw)
    near_HW = torch.zeros_like(mask_HW)
    near_HW[1:] |= mask_HW[:-1]
    near_HW[:-1] |= mask_HW[1:]
    near_HW[:, 1:] |= mask_HW[:, :-1]
    near_HW[:, :-1] |= mask_HW[:, 1:]
    return near_HW.flatten()


def _by_mean(score_T: Tensor) -> Tensor:
    """Divided by its mean, where that is above 0."""
    mean = score_T.mean()
    return score_T / torch.where(mean > 0, mean, 1.0)

"""Per-frame selectors that rank tokens by the attention they get in the tower: rows of it, never a full map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..sight import Need, Sight
from .base import Picked, Room
from .mergers import nearest_centre
from .per_frame import PerFrame, check_share
from .picks import strided_grid, topk
from .scorers import cls_share

# Shapes: T tokens, D channels of the language model, K tokens kept, S tokens that are not dominant, R attention rows.

CLS, RECEIVED = frozenset({Need.CLS}), frozenset({Need.RECEIVED})


def cls_row(sight: Sight, x_TD: Tensor) -> Tensor:
    """The (virtual) [CLS] row of one layer: (T,)."""
    if sight.cls_T is None:
        raise ValueError(f"a method that needs a [CLS] row got none in {sight!r}")
    return sight.cls_T.to(x_TD.device).float()


def received_rows(sight: Sight, x_TD: Tensor) -> Tensor:
    """What each token receives, first the middle layer's row, last the last layer's: (R, T)."""
    if sight.received_RT is None:
        raise ValueError(f"a method that needs received attention got none in {sight!r}")
    return sight.received_RT.to(x_TD.device).float()


@dataclass(frozen=True, kw_only=True)
class FasterVLM(PerFrame):
    """The tokens that [CLS] looks at most.

    Paper: [CLS] Attention is All You Need for Training-Free Visual Token Pruning (arXiv 2412.01818)
    Differs from the paper: where the tower has no [CLS], a virtual one looks: the mean query of all patches, at the
        last layer that is run; that row is computed alone, where the paper's code keeps full maps.

    keep_tokens: tokens of a frame.
    at_most: tokens per second, and the floor per frame.
    """

    needs: ClassVar[frozenset[Need]] = CLS

    def choose(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        return Picked(topk(cls_row(sight, x_TD), room.most))


@dataclass(frozen=True, kw_only=True)
class VTCCLS(PerFrame):
    """The tokens that are looked at most, by several layers together.

    Paper: [CLS] Token Tells Everything Needed for Training-free Efficient MLLMs (arXiv 2412.05819)
    Differs from the paper: the layers are two, a middle one and the last, where the paper takes every layer from
        one that it tunes for each task and ratio; where a tower has no [CLS], the last layer's row is a virtual one's
        (the mean query of all patches), and of both layers what each token receives from all patches counts too.

    keep_tokens: tokens of a frame.
    at_most: tokens per second, and the floor per frame.
    """

    needs: ClassVar[frozenset[Need]] = CLS | RECEIVED

    def choose(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        rows_RT = torch.cat([cls_row(sight, x_TD)[None], received_rows(sight, x_TD)])
        return Picked(topk(cls_share(rows_RT), room.most))


@dataclass(frozen=True, kw_only=True)
class FoPru(PerFrame):
    """The tokens that receive most attention in the tower: the best of all, or whole rows of the grid.

    Paper: FoPru: Focal Pruning for Efficient Large Vision-Language Models (arXiv 2411.14164)
    Differs from the paper: significance is what each token receives at the last layer that is run, estimated from
        evenly chosen queries (the paper's layer is not known to us); by rows, as many whole rows as fit are kept, and
        where not even one fits, or the floor asks for more, the best of the next row fill up.

    keep_tokens: tokens of a frame.
    by_rows: whole rows of the grid, by the sum of their tokens, in place of the best tokens.
    at_most: tokens per second, and the floor per frame.
    """

    needs: ClassVar[frozenset[Need]] = RECEIVED

    by_rows: bool = False

    def choose(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        score_T = received_rows(sight, x_TD)[-1]
        if not self.by_rows:
            return Picked(topk(score_T, room.most))
        width = sight.tokens.grid_hw[1]
        best_rows_H = score_T.view(-1, width).sum(-1).sort(descending=True, stable=True).indices
        num_rows = room.most // width
        row_T = torch.arange(score_T.shape[0], device=x_TD.device) // width
        kept_T = torch.isin(row_T, best_rows_H[:num_rows])
        if num_rows == 0 or num_rows * width < room.least:
            next_T = topk(score_T.masked_fill(row_T != best_rows_H[num_rows], -torch.inf), room.most - num_rows * width)
            kept_T[next_T] = True
        return Picked(kept_T.nonzero().squeeze(1))


@dataclass(frozen=True, kw_only=True)
class VisionDrop(PerFrame):
    """The tokens that receive most attention stay as they are; the rest is merged into a few, spread evenly.

    1. Dominant: the largest by attention received at the last layer.
    2. Contextual: of the rest, in raster order, every so-manyth; each of the others is averaged into the one that it
       is most like.

    Paper: Rethinking Visual Token Reduction in LVLMs under Cross-modal Misalignment (arXiv 2506.22283)
    Differs from the paper: its stage in the vision encoder alone (later stages prune inside the language model,
        where a causal mask favours early tokens unless scores are divided by the queries that can see them); tokens
        are matched, not keys; a contextual token is half itself and half the mean of what joins it, where the code's
        sum doubles its length; raster order is restored, where the code appends contextual tokens last; DeepStack
        levels stay unmerged.

    keep_tokens: tokens of a frame.
    dominant_share: share of what is kept that is dominant, one token at least, 0 to 1; the paper's is 42 of 48.
    at_most: tokens per second, and the floor per frame.
    """

    needs: ClassVar[frozenset[Need]] = RECEIVED

    dominant_share: float = 0.875

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("dominant_share", self.dominant_share)

    def choose(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        num_dominant = max(1, round(self.dominant_share * room.most))
        is_rest_T = torch.ones(x_TD.shape[0], dtype=torch.bool, device=x_TD.device)
        is_rest_T[topk(received_rows(sight, x_TD)[-1], num_dominant)] = False
        rest_S = is_rest_T.nonzero().squeeze(1)
        x_KD = x_TD.clone()
        if room.most > num_dominant:
            spread = strided_grid((1, rest_S.shape[0]), room.most - num_dominant).to(x_TD.device)
            x_KD[rest_S[spread]] = nearest_centre(x_TD[rest_S], spread, own_share=0.5).x_KD
            is_rest_T[rest_S[spread]] = False
        index_K = (~is_rest_T).nonzero().squeeze(1)
        return Picked(index_K, x_KD[index_K])

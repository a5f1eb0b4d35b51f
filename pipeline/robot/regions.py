"""Regions: what must always be fresh, said in pixels, in cells, or by the policy's own attention."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .perception import View

# Shapes: H rows and W columns of a mask or a grid, T tokens of all cameras, 3 numbers for each of them.


def box_mask(
    height: int, width: int, *, top: float = 0.0, left: float = 0.0, bottom: float = 1.0, right: float = 1.0
) -> np.ndarray:
    """A mask of so many rows and columns that is True in a box, whose sides are shares of the picture's.

    Such as where a gripper reaches into a wrist camera's view: box_mask(12, 16, top=0.6, left=0.25, right=0.75).
    """
    if height < 1 or width < 1:
        raise ValueError(f"a mask has a row and a column at least; got {height} and {width}")
    if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
        raise ValueError(
            "a box needs 0 <= top < bottom <= 1 and 0 <= left < right <= 1; "
            f"got top={top}, bottom={bottom}, left={left}, right={right}"
        )
    mask_HW = np.zeros((height, width), bool)
    rows = slice(math.floor(top * height), math.ceil(bottom * height))
    mask_HW[rows, math.floor(left * width) : math.ceil(right * width)] = True
    return mask_HW


def attended_cells(
    weights_T: Tensor, kept_T3: Tensor, views: tuple[View, ...], *, share: float
) -> dict[str, np.ndarray]:
    """The cells that a policy attends to most: bool, of each camera's grid.

    weights_T: how much attention each token of a perception got, 0 or more; of any scale.
    share: of the perception's tokens that are marked, largest first; a token without any attention never is.
    """
    weights_T = weights_T.detach().float().cpu()
    if tuple(weights_T.shape) != (kept_T3.shape[0],):
        raise ValueError(
            f"attention has a weight for each of the perception's {kept_T3.shape[0]} tokens; "
            f"got {tuple(weights_T.shape)}; sum over heads and queries first"
        )
    if not bool((torch.isfinite(weights_T) & (weights_T >= 0)).all()):
        raise ValueError(f"attention is finite and 0 or more; got {weights_T.min():g} to {weights_T.max():g}")
    most = torch.topk(weights_T, math.ceil(share * len(weights_T))).indices
    marked = kept_T3[most[weights_T[most] > 0]].numpy()
    cells = {view.camera_id: np.zeros(view.grid_hw, bool) for view in views}
    for index, view in enumerate(views):
        places = marked[marked[:, 0] == index]
        cells[view.camera_id][places[:, 1], places[:, 2]] = True
    return cells

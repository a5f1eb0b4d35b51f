"""Fresh: masks over a picture to the patches of a tower, or the tokens of a grid, that lie under them, and back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..towers import Layout

# Shapes: H rows and W columns of a mask, of patches or of another grid's cells.

_FINE = 8  # rows and columns of a mask for each of a grid's that does not cover the whole picture


def joined_patches(masks: Iterable[np.ndarray], layout: Layout) -> np.ndarray:
    """Which patches lie, with any part, under True of any of the masks: bool, rows by columns."""
    fresh_HW = np.zeros(layout.grid_hw, bool)
    for mask_HW in masks:
        fresh_HW |= cells_under(mask_HW, layout.grid_hw, layout.covered_hw)
    return fresh_HW


def cells_under(
    mask_HW: np.ndarray, grid_hw: tuple[int, int], covered_hw: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """Which cells of a grid lie, with any part, under True of a mask laid over the whole picture: bool, of the grid.

    covered_hw: share of the picture's height and width that the grid covers, from its top left.
    """
    sums = np.zeros((mask_HW.shape[0] + 1, mask_HW.shape[1] + 1), np.int64)
    sums[1:, 1:] = mask_HW.cumsum(axis=0).cumsum(axis=1)
    edges = []
    for num_cells, covered, num_places in zip(grid_hw, covered_hw, mask_HW.shape, strict=True):
        at = np.arange(num_cells + 1) * (covered * num_places / num_cells)
        low, high = np.floor(at[:-1] + 1e-9).astype(int), np.ceil(at[1:] - 1e-9).astype(int)
        edges.append((np.minimum(low, num_places - 1), np.clip(high, low + 1, num_places)))
    (top, bottom), (left, right) = edges
    counted = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
    return counted > 0


def mask_of_cells(cells_HW: np.ndarray, covered_hw: tuple[float, float]) -> np.ndarray:
    """Some cells of a grid as a mask of the whole picture, under which lies what they cover, and no other cell.

    cells_HW: bool. covered_hw: share of the picture's height and width that the grid covers, from its top left.
    """
    if tuple(covered_hw) == (1.0, 1.0):
        return cells_HW
    within = []
    for num_cells, covered in zip(cells_HW.shape, covered_hw, strict=True):
        at = np.arange(_FINE * num_cells + 1) / (_FINE * covered)  # in cells
        low, high = np.floor(at[:-1] + 1e-9).astype(int), np.ceil(at[1:] - 1e-9).astype(int) - 1
        # A place that lies over two cells, or past the last, is of none.
        within.append(np.where((low == high) & (high < num_cells), low, num_cells))
    padded = np.pad(cells_HW, ((0, 1), (0, 1)))
    mask_HW: np.ndarray = padded[np.ix_(*within)]
    return mask_HW

"""Tower: a family's vision tower taken apart, so that some patches of a picture can go through it without the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...stream import Frame
from ..tokens import FrameTokens

# Shapes: T patches of a picture in the tower's own order, S some of them, U units, P patches of a unit, V some units,
# C channels of the tower, H heads, D channels per head, O channels of the language model, E DeepStack taps.


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """How the tower lays out one block of frames. Made by a tower for each size of picture, read by reusers.

    grid_hw: rows and columns of patches.
    covered_hw: share of the picture's height and width that the patches cover (a tower may leave an edge out).
    raster_T: int64, on the CPU: raster index of each patch, in the tower's order.
    units_UP: int64, on the CPU: the patches (in the tower's order) that become one token together, and so are
        computed together; one each where the tower joins none. In the tower's order of its output.
    cos_TD, sin_TD: rotary embedding of each patch, float32, or None.
    position_TC: learned position embedding of each patch, or None.
    window_T: int64: the window of each patch, for layers whose attention is windowed, or None.
    window_lengths: lengths of these windows, which lie one after another in the tower's order.
    """

    grid_hw: tuple[int, int]
    covered_hw: tuple[float, float]
    raster_T: Tensor
    units_UP: Tensor
    cos_TD: Tensor | None = None
    sin_TD: Tensor | None = None
    position_TC: Tensor | None = None
    window_T: Tensor | None = None
    window_lengths: tuple[int, ...] = ()

    @property
    def num_patches(self) -> int:
        return int(self.raster_T.shape[0])

    @property
    def num_units(self) -> int:
        return int(self.units_UP.shape[0])


class Prepared(NamedTuple):
    """A block of frames as the tower reads it: pixels in the form that the family's `embed` takes, and the layout."""

    pixels: Tensor
    layout: Layout


class Tower(ABC):
    """One vision tower, layer by layer, for rows of patches. No state: what is cached is the reuser's.

    Promises, checked for every family: all patches through all layers give the family's own `see`, bit for bit on
    one thread in float32; rows given one by one give the same within rounding. Index tensors are int64, sorted, on the
    tower's device.

    num_layers: layers that are run (those after the layer whose features are used are not).
    taps: layers after which features go into the language model besides (DeepStack), in order.
    patches_side_px: how many pixels a patch is wide and high.
    """

    num_layers: int
    num_channels: int
    num_heads: int
    out_channels: int
    dtype: torch.dtype
    device: torch.device
    frames_per_block: int
    patches_side_px: int
    taps: tuple[int, ...] = ()

    @property
    def head_dim(self) -> int:
        return self.num_channels // self.num_heads

    def check_block(self, frames: Sequence[Frame]) -> None:
        """Refuses what is not one block of frames. Raises ValueError."""
        if not 1 <= len(frames) <= self.frames_per_block:
            raise ValueError(f"a block of this tower has 1 to {self.frames_per_block} frames; got {len(frames)}")

    @property
    def full_layers(self) -> tuple[int, ...]:
        """Layers whose attention reaches over the whole picture; all of them, unless a tower has windows."""
        return tuple(range(self.num_layers))

    @abstractmethod
    def layout(self, height: int, width: int) -> Layout:
        """The layout of a block whose first frame has this many rows and columns of pixels; cached."""

    @abstractmethod
    def prepare(self, frames: Sequence[Frame]) -> Prepared:
        """The pixels of one block of frames, in the tower's dtype; a short block is filled as the family does."""

    @abstractmethod
    def embed(self, prepared: Prepared, index_S: Tensor | None = None) -> Tensor:
        """Patch embeddings, position embedding added: x_SC. None: all of them, computed as the family does."""

    @abstractmethod
    def norm1(self, layer: int, x_SC: Tensor) -> Tensor:
        """The normalisation before attention."""

    @abstractmethod
    def qkv(self, layer: int, a_SC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of normalised rows, before rotation: three (S, C)."""

    @abstractmethod
    def key(self, layer: int, a_SC: Tensor) -> Tensor:
        """Keys alone, before rotation: (S, C)."""

    @abstractmethod
    def query_value(self, layer: int, a_SC: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and values alone, before rotation: two (S, C)."""

    @abstractmethod
    def rotate(self, layout: Layout, q_or_k_SC: Tensor, index_S: Tensor | None) -> Tensor:
        """Rotary embedding at the patches' places, as (S, H, D); only a view where the tower has none."""

    @abstractmethod
    def attend(
        self, layer: int, layout: Layout, q_SHD: Tensor, k_THD: Tensor, v_THD: Tensor, index_S: Tensor | None
    ) -> Tensor:
        """Attention of some queries over all keys and values that their layer lets them see: (S, C), not projected.

        index_S: where the queries stand; None: all patches, computed as the family does.
        """

    @abstractmethod
    def project(self, layer: int, o_SC: Tensor) -> Tensor:
        """The projection after attention."""

    @abstractmethod
    def mlp(self, layer: int, x_SC: Tensor) -> Tensor:
        """The normalisation before the MLP, and the MLP; the residual is the caller's."""

    @abstractmethod
    def head(self, x_VPC: Tensor) -> Tensor:
        """Whole units after the last layer to rows in the language model's space: (V, O). Pooling is `assemble`'s."""

    def tap(self, number: int, x_VPC: Tensor) -> Tensor:
        """Whole units after layer `taps[number]` to DeepStack rows: (V, O)."""
        raise ValueError(f"no tap has this number; got {number} of {len(self.taps)} taps")

    @abstractmethod
    def assemble(self, y_UO: Tensor, deep_EUO: Tensor | None, layout: Layout, frames: Sequence[Frame]) -> FrameTokens:
        """All units of a block to its tokens, as the family's `see` gives them: pooled, in raster order, in memory of
        their own."""

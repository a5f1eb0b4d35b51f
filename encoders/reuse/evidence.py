"""Evidence: what compressors look at besides tokens, taken from a tower's layers in passing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ...stream import Frame
from ...stream.change import ChangeDetector, ChangeMap, ChangeRule
from ..compressors.scorers import received, virtual_cls
from ..sight import Need, Sight
from ..tokens import FrameTokens
from ..towers import Layout, Tower

# Shapes: T patches in the tower's order, H heads, D channels per head, C channels of the tower, R probed layers,
# N queries that are looked at, G grid places of tokens.

_NUM_QUERIES = 64  # rows of attention that stand for all: a full map of 729 x 729 x 16 heads costs a layer's time


def probed_layers(tower: Tower, needs: frozenset[Need]) -> tuple[int, ...]:
    """A middle layer and the last, of those whose attention reaches over the whole picture; none if none is needed."""
    if not needs & {Need.CLS, Need.RECEIVED}:
        return ()
    layers = tower.full_layers
    return layers[(len(layers) - 1) // 2], layers[-1]


@dataclass(slots=True)
class Evidence:
    """What one block's pass through the tower showed. Filled by a pass, kept by a run, turned into a Sight.

    probes: the layers that are looked at. received_T: attention received, by layer. cls_T: of the last one.
    """

    probes: tuple[int, ...] = ()
    received_T: dict[int, Tensor] = field(default_factory=dict)
    cls_T: Tensor | None = None
    x_TC: Tensor | None = None

    def look(self, layer: int, q_THD: Tensor, k_THD: Tensor, needs: frozenset[Need]) -> None:
        """Takes from one layer's queries and keys, of all patches, what is asked for."""
        if layer not in self.probes:
            return
        if Need.RECEIVED in needs:
            self.received_T[layer] = _received(q_THD, k_THD)
        if Need.CLS in needs and layer == self.probes[-1]:
            self.cls_T = virtual_cls(q_THD, k_THD)

    def sight(self, tokens: FrameTokens, layout: Layout, change: ChangeMap | None, needs: frozenset[Need]) -> Sight:
        """Everything by token instead of by patch."""
        grid_hw = tokens.grid_hw

        def by_token(rows_RT: Tensor) -> Tensor:
            pooled_RG = _pool(rows_RT, layout, grid_hw)
            return pooled_RG / pooled_RG.sum(dim=-1, keepdim=True)

        # A tower may have one layer that reaches over the whole picture, which then stands for both.
        layers = [layer for layer in self.probes if layer in self.received_T]
        change_G = None
        if Need.PIXELS in needs and change is not None:
            since_HW = torch.tensor(change.since_last_HW)  # a copy: the map is read-only
            change_G = _pool_grid(since_HW[None], grid_hw)[0]
        return Sight(
            tokens,
            change_T=change_G,
            noise_levels=0.0 if change is None else change.noise_levels,
            cls_T=None if self.cls_T is None else by_token(self.cls_T[None])[0],
            received_RT=by_token(torch.stack([self.received_T[i] for i in layers])) if layers else None,
            features_TC=_pool(self.x_TC.float().T, layout, grid_hw).T.contiguous() if self.x_TC is not None else None,
        )


class PixelWatch:
    """How the pixels under each patch change from block to block: one stream's detector, made for its size."""

    def __init__(self, rule: ChangeRule) -> None:
        self._rule = rule
        self._detector: ChangeDetector | None = None
        self._layout: Layout | None = None
        self._is_uneven = False

    def compare(self, layout: Layout, frames: Sequence[Frame]) -> ChangeMap:
        """The block against what its patches were last encoded from.

        A block whose frames differ in size is not compared, and neither is the next: all of both has changed.
        """
        was_uneven = self._is_uneven
        self._is_uneven = len({frame.rgb_HW3.shape for frame in frames}) > 1
        if self._detector is None or layout is not self._layout or was_uneven or self._is_uneven:
            self._detector, self._layout = self._rule.start(layout.grid_hw, layout.covered_hw), layout
        shown = frames[:1] if self._is_uneven else frames
        return self._detector.compare([frame.rgb_HW3 for frame in shown], [frame.motion for frame in shown])

    @property
    def detector(self) -> ChangeDetector:
        assert self._detector is not None
        return self._detector

    def reset(self) -> None:
        self._detector, self._layout, self._is_uneven = None, None, False

    @property
    def num_bytes(self) -> int:
        return 0 if self._detector is None else self._detector.num_bytes


def _received(q_THD: Tensor, k_THD: Tensor) -> Tensor:
    """Attention that each patch receives from evenly chosen queries, mean over heads. Float32 (T,), sums to 1."""
    step = max(1, q_THD.shape[0] // _NUM_QUERIES)
    scores_HNT = torch.einsum("nhd,thd->hnt", q_THD[::step].float(), k_THD.float()) * q_THD.shape[-1] ** -0.5
    return received(scores_HNT.softmax(dim=-1))


def _pool(rows_RT: Tensor, layout: Layout, grid_hw: tuple[int, int]) -> Tensor:
    """Rows over patches in the tower's order to rows over the grid of tokens."""
    raster_RT = torch.empty_like(rows_RT)
    raster_RT[:, layout.raster_T.to(rows_RT.device)] = rows_RT
    return _pool_grid(raster_RT.view(-1, *layout.grid_hw), grid_hw)


def _pool_grid(values_RHW: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    # Infinite differences (nothing to compare with) stay infinite: adaptive pooling averages.
    return F.adaptive_avg_pool2d(values_RHW[None].float(), grid_hw)[0].flatten(1)

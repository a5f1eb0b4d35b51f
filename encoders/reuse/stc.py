"""STC-Cacher: a whole frame every so often, and in between a fixed share of it by key similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...stream import Frame
from ...stream.change import ChangeRule
from ..model import VisionHalf
from ..sight import Need, Sight
from ..towers import Layout, Prepared, Tower
from .base import Computed, Reuser, Seer, SeerRun, blocks_of, check_once, tower_of
from .evidence import Evidence, PixelWatch, probed_layers
from .fresh import joined_patches
from .passes import Passed

# Shapes: T patches of a picture, S those that are computed, C tower channels, H heads, D channels per head.


@dataclass(frozen=True, slots=True)
class STCCacher(Reuser):
    """A reference frame every so often; between two, the keys that moved most say which patches are computed.

    Reference frame: the whole tower; keys, values, projected attention and MLP output of every layer are kept.
    Other frames, in each layer: norm and keys of all patches; the share of them whose key has the lowest cosine to
    the reference frame's gets queries, values, attention over all keys (new) and values (the reference's, its own
    new), projection and MLP; the others take attention and MLP output of the reference. The residual stream is the
    current frame's. The reference is not touched until the next reference frame.

    Paper: Accelerating Streaming Video Large Language Models via Hierarchical Token Compression (arXiv 2512.00891)
    Differs from the paper: the state is one stream's and outlives a call, so frames may come one at a time, and any
        number of streams be seen by one process; where a tower rotates its keys, they are compared before that;
        a picture of another size is a reference frame; patches that a caller wants fresh are computed in every frame
        and in every layer, beside the share, and a frame of which all are is a reference frame.

    every_blocks: how many blocks from one reference frame to the next; 1 or more. Published: 2, and 4.
    update_share: share of the patches that are computed in the others, above 0 and up to 1.
    """

    every_blocks: int = 2
    update_share: float = 0.25

    def __post_init__(self) -> None:
        if isinstance(self.every_blocks, bool) or not isinstance(self.every_blocks, int) or self.every_blocks < 1:
            raise ValueError(f"every_blocks must be a whole number, at least 1; got {self.every_blocks!r}")
        if not 0 < self.update_share <= 1:
            raise ValueError(f"update_share is a share of the patches, above 0 and up to 1; got {self.update_share}")

    def over(self, model: VisionHalf, *, budget_bytes: int = 2 * 2**30) -> STCSeer:
        return STCSeer(self, model, budget_bytes)


class _Reference(NamedTuple):
    """What one layer keeps of the reference frame."""

    k_TC: Tensor
    v_TC: Tensor
    attention_TC: Tensor
    mlp_TC: Tensor


class STCRun(SeerRun):
    """One stream's reference frame, and how many blocks ago it was."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = PixelWatch(ChangeRule())
        self.layers: list[_Reference] = []
        self.layout: Layout | None = None
        self.num_since = 0

    def reset(self) -> None:
        self.layers, self.layout = [], None
        self.watch.reset()

    @property
    def num_bytes(self) -> int:
        held = (t for layer in self.layers for t in layer)
        return self.watch.num_bytes + sum(t.numel() * t.element_size() for t in held)


class STCSeer(Seer[STCRun]):
    """STC-Cacher over one model; streams are seen one after the other."""

    def __init__(self, recipe: STCCacher, model: VisionHalf, budget_bytes: int) -> None:
        super().__init__(budget_bytes)
        self._recipe, self._model = recipe, model
        self._tower = tower_of(model, "stc reuse")

    def start(self) -> STCRun:
        return self._enroll(STCRun())

    @torch.inference_mode()
    def see(
        self, asked: Sequence[tuple[STCRun, Sequence[Frame]]], needs: frozenset[Need] = frozenset()
    ) -> list[list[Sight]]:
        check_once(asked)
        seen = [[self._see(run, block, needs) for block in blocks_of(self._model, frames)] for run, frames in asked]
        self._keep_to_budget([run for run, _ in asked])
        return seen

    def _see(self, run: STCRun, frames: Sequence[Frame], needs: frozenset[Need]) -> Sight:
        tower, prepared = self._tower, self._tower.prepare(frames)
        layout = prepared.layout
        change = run.watch.compare(layout, frames) if Need.PIXELS in needs else None
        run.change = change
        run.num_since += 1
        raster_T = layout.raster_T.numpy()
        fresh_T = torch.from_numpy(joined_patches(run.fresh.values(), layout).ravel()[raster_T])
        num_fresh = int(fresh_T.sum())
        is_due = run.num_since >= self._recipe.every_blocks or num_fresh == layout.num_patches
        if not run.layers or run.layout is not layout or is_due:
            run.layers, run.layout, run.num_since = [], layout, 0
            run.stats.num_full += 1
            num_updated = layout.num_patches
        else:
            run.stats.num_partial += 1
            num_others = layout.num_patches - num_fresh
            num_updated = num_fresh + max(1, int(self._recipe.update_share * num_others))
        run.stats.num_patches += layout.num_patches
        run.stats.num_recomputed += num_updated
        is_updated_T = torch.full((layout.num_patches,), not run.layers, device=tower.device)
        passed = _pass(tower, prepared, run.layers, num_updated, fresh_T.to(tower.device), needs, is_updated_T)
        # In each layer it is others: those of any layer are told.
        mask_T = torch.zeros(layout.num_patches, dtype=torch.bool)
        mask_T[layout.raster_T] = is_updated_T.cpu()
        run.computed = Computed(frames[-1].pts_s, layout.grid_hw, mask_T.view(layout.grid_hw).numpy())
        tokens = tower.assemble(passed.y_UO, passed.deep_EUO, layout, frames)
        return passed.evidence.sight(tokens, layout, change, needs)


def _pass(
    tower: Tower,
    prepared: Prepared,
    reference: list[_Reference],
    num_updated: int,
    fresh_T: Tensor,
    needs: frozenset[Need],
    is_updated_T: Tensor,
) -> Passed:
    """One block through all layers. An empty reference: this block becomes it, and is put there.

    fresh_T: bool, patches that are among those that are computed in any case. is_updated_T: where patches are marked
    that any layer computes.
    """
    layout, evidence = prepared.layout, Evidence(probed_layers(tower, needs))
    deep: list[Tensor] = []
    units_UP = layout.units_UP.to(tower.device)
    is_reference = not reference
    x_TC = tower.embed(prepared)
    for layer in range(tower.num_layers):
        a_TC = tower.norm1(layer, x_TC)
        if is_reference:
            attention_TC, kept = _attend_all(tower, layer, layout, a_TC)
        else:
            kept = reference[layer]
            k_TC = tower.key(layer, a_TC)
            moved_T = F.cosine_similarity(k_TC, kept.k_TC, dim=-1).masked_fill(fresh_T, -torch.inf)
            index_S = moved_T.topk(num_updated, largest=False).indices.sort().values
            is_updated_T[index_S] = True
            attention_TC = kept.attention_TC.index_copy(
                0, index_S, _attend_some(tower, layer, layout, a_TC, k_TC, kept.v_TC, index_S)
            )
        if layer in evidence.probes:
            q_TC, k_TC = tower.query_value(layer, a_TC)[0], tower.key(layer, a_TC)
            evidence.look(layer, tower.rotate(layout, q_TC, None), tower.rotate(layout, k_TC, None), needs)
        x_TC = x_TC + attention_TC
        if is_reference:
            mlp_TC = tower.mlp(layer, x_TC)
            reference.append(kept._replace(mlp_TC=mlp_TC))
        else:
            mlp_TC = kept.mlp_TC.index_copy(0, index_S, tower.mlp(layer, x_TC[index_S]))
        x_TC = x_TC + mlp_TC
        if layer in tower.taps:
            deep.append(tower.tap(len(deep), x_TC[units_UP]))
    if Need.FEATURES in needs:
        evidence.x_TC = x_TC
    return Passed(tower.head(x_TC[units_UP]), torch.stack(deep) if deep else None, evidence)


def _attend_all(tower: Tower, layer: int, layout: Layout, a_TC: Tensor) -> tuple[Tensor, _Reference]:
    q_TC, k_TC, v_TC = tower.qkv(layer, a_TC)
    q_THD, k_THD = tower.rotate(layout, q_TC, None), tower.rotate(layout, k_TC, None)
    o_TC = tower.project(layer, tower.attend(layer, layout, q_THD, k_THD, v_TC.view(k_THD.shape), None))
    # Copies: slices of one fused projection would keep queries alive, uncounted.
    return o_TC, _Reference(k_TC.clone(), v_TC.clone(), o_TC, o_TC)


def _attend_some(
    tower: Tower, layer: int, layout: Layout, a_TC: Tensor, k_TC: Tensor, reference_v_TC: Tensor, index_S: Tensor
) -> Tensor:
    """Attention of some patches over new keys, and values of the reference but for their own; projected."""
    q_SC, v_SC = tower.query_value(layer, a_TC[index_S])
    v_TC = reference_v_TC.index_copy(0, index_S, v_SC)
    k_THD = tower.rotate(layout, k_TC, None)
    o_SC = tower.attend(layer, layout, tower.rotate(layout, q_SC, index_S), k_THD, v_TC.view(k_THD.shape), index_S)
    return tower.project(layer, o_SC)

"""The tensor work of delta reuse: what is cached of a stream, and some units of several streams through the tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sight import Need
from ..towers import Layout, Prepared, Tower
from ..towers.walk import walk
from .evidence import Evidence, probed_layers

# Shapes: T patches of a picture, S those of some of its units, N those of all streams of a call, V units that are
# computed, P patches of a unit, U all units, C tower channels, H heads, D channels per head, O language channels,
# E DeepStack taps.


class FeatureCache:
    """What one stream keeps of a picture: every layer's keys and values, and what came out. Made for one layout.

    layer l:  K [ . . x . . x x . ]     x: rows of the units that a block computes, written in place;
              V [ . . x . . x x . ]     all others keep what an earlier block put there, and are attended to
    out:      y [ . . x . . x x . ]
    """

    def __init__(self, tower: Tower, layout: Layout) -> None:
        shape = layout.num_patches, tower.num_heads, tower.head_dim
        device, dtype = tower.device, tower.dtype
        self.layout = layout
        self.k_THD = [torch.empty(shape, device=device, dtype=dtype) for _ in range(tower.num_layers)]
        self.v_THD = [torch.empty(shape, device=device, dtype=dtype) for _ in range(tower.num_layers)]
        self.y_UO = torch.empty(layout.num_units, tower.out_channels, device=device, dtype=dtype)
        self.deep_EUO = (
            torch.empty(len(tower.taps), layout.num_units, tower.out_channels, device=device, dtype=dtype)
            if tower.taps
            else None
        )
        # Evidence wants queries of probed layers, and features of all patches: kept where somebody asks.
        self.q_THD: dict[int, Tensor] = {}
        self.x_TC: Tensor | None = None
        self._looked: tuple[frozenset[Need], Evidence] | None = None

    @staticmethod
    def bytes_for(tower: Tower, layout: Layout) -> int:
        """What one takes, evidence left aside."""
        rows = layout.num_patches * tower.num_channels * 2 * tower.num_layers
        rows += layout.num_units * tower.out_channels * (1 + len(tower.taps))
        return rows * tower.dtype.itemsize

    @property
    def num_bytes(self) -> int:
        held = [*self.k_THD, *self.v_THD, self.y_UO, *self.q_THD.values()]
        held += [t for t in (self.deep_EUO, self.x_TC) if t is not None]
        return sum(t.numel() * t.element_size() for t in held)

    def fill(self, tower: Tower, prepared: Prepared, needs: frozenset[Need]) -> None:
        """Computes the whole block, as the family does, and keeps it, with what evidence needs."""
        probes = probed_layers(tower, needs)

        def keep(layer: int, x_TC: Tensor, q_THD: Tensor, k_THD: Tensor, v_THD: Tensor) -> None:
            self.k_THD[layer].copy_(k_THD)
            self.v_THD[layer].copy_(v_THD)
            if layer in probes:
                self.q_THD[layer] = q_THD.clone(memory_format=torch.contiguous_format)

        self.q_THD = {}
        walked = walk(tower, prepared, keep)
        self.y_UO.copy_(walked.y_UO)
        if self.deep_EUO is not None and walked.deep_EUO is not None:
            self.deep_EUO.copy_(walked.deep_EUO)
        self.x_TC = walked.x_TC if Need.FEATURES in needs else None
        self.changed()

    def changed(self) -> None:
        """Features were written: what they showed is no evidence any more."""
        self._looked = None

    def knows(self, needs: frozenset[Need]) -> bool:
        """Whether what is kept holds the evidence that is asked for now."""
        if needs & {Need.CLS, Need.RECEIVED} and not self.q_THD:
            return False
        return Need.FEATURES not in needs or self.x_TC is not None

    def evidence(self, tower: Tower, needs: frozenset[Need]) -> Evidence:
        """What queries, keys and features of all patches show, as they are now."""
        if self._looked is None or self._looked[0] != needs:
            evidence = Evidence(probed_layers(tower, needs), x_TC=self.x_TC if Need.FEATURES in needs else None)
            for layer in evidence.probes:
                evidence.look(layer, self.q_THD[layer], self.k_THD[layer], needs)
            self._looked = needs, evidence
        return self._looked[1]


class Part(NamedTuple):
    """One stream's share of a call: its cache, its block, and the units to compute, sorted."""

    cache: FeatureCache
    prepared: Prepared
    units_V: Tensor


class Rows(NamedTuple):
    """Where the rows of the parts stand.

    index_S: for each part, the patches that it computes, sorted, on the device.
    index_N: all of them, one part after the other.
    gather_VP: for each unit, the rows of its patches among all.
    """

    index_S: tuple[Tensor, ...]
    index_N: Tensor
    gather_VP: Tensor


def lay_rows(parts: Sequence[Part], device: torch.device) -> Rows:
    """Lays the patches of all parts' units in one row of rows."""
    index, gather, start = [], [], 0
    for part in parts:
        patches_VP = part.cache.layout.units_UP[part.units_V]
        index_S, order = patches_VP.flatten().sort()
        place = torch.empty_like(order)
        place[order] = torch.arange(start, start + len(order))
        gather.append(place.view(patches_VP.shape))
        index.append(index_S)
        start += len(order)
    return Rows(
        tuple(i.to(device, non_blocking=True) for i in index),
        torch.cat(index).to(device, non_blocking=True),
        torch.cat(gather).to(device, non_blocking=True),
    )


def step(tower: Tower, layout: Layout, caches: Sequence[FeatureCache], rows: Rows, x_NC: Tensor) -> Stepped:
    """Some patches of several streams through all layers; keys and values go into the streams' caches.

    Every linear layer runs once over the rows of all streams; they attend each over their own stream's keys and
    values, cached ones of the patches that are not computed and new ones of those that are. No shape depends on
    what the tensors hold, so that one can be captured or compiled for each number of rows.

    x_NC: patch embeddings of the rows.
    """
    cuts, start = [], 0
    for index_S in rows.index_S:
        cuts.append(slice(start, start + index_S.shape[0]))
        start += index_S.shape[0]
    deep: list[Tensor] = []
    for layer in range(tower.num_layers):
        q_NC, k_NC, v_NC = tower.qkv(layer, tower.norm1(layer, x_NC))
        q_NHD, k_NHD = tower.rotate(layout, q_NC, rows.index_N), tower.rotate(layout, k_NC, rows.index_N)
        v_NHD = v_NC.view(k_NHD.shape)
        attended = []
        for cache, cut, index_S in zip(caches, cuts, rows.index_S, strict=True):
            k_THD, v_THD = cache.k_THD[layer], cache.v_THD[layer]
            k_THD.index_copy_(0, index_S, k_NHD[cut])
            v_THD.index_copy_(0, index_S, v_NHD[cut])
            attended.append(tower.attend(layer, layout, q_NHD[cut], k_THD, v_THD, index_S))
            if layer in cache.q_THD:
                cache.q_THD[layer].index_copy_(0, index_S, q_NHD[cut])
        x_NC = x_NC + tower.project(layer, torch.cat(attended) if len(attended) > 1 else attended[0])
        x_NC = x_NC + tower.mlp(layer, x_NC)
        if layer in tower.taps:
            deep.append(tower.tap(len(deep), x_NC[rows.gather_VP]))
    return Stepped(x_NC, tower.head(x_NC[rows.gather_VP]), torch.stack(deep) if deep else None)


class Stepped(NamedTuple):
    """Rows after the last layer, and their units' rows for the language model and taps."""

    x_NC: Tensor
    y_VO: Tensor
    deep_EVO: Tensor | None


def compute_units(tower: Tower, parts: Sequence[Part]) -> list[Tensor]:
    """Computes some units of several streams, all of one layout, in one call, and writes them into their caches.

    Returns, for each part, how far each of its units' features moved: 1 - cosine to what was cached, float32 (V,)
    on the CPU; not a number where the features are none.
    """
    rows = lay_rows(parts, tower.device)
    x_NC = torch.cat([tower.embed(part.prepared, index_S) for part, index_S in zip(parts, rows.index_S, strict=True)])
    caches = [part.cache for part in parts]
    stepped = step(tower, caches[0].layout, caches, rows, x_NC)
    moved, unit, row = [], 0, 0
    for part, index_S in zip(parts, rows.index_S, strict=True):
        units_V = part.units_V.to(tower.device)
        cut = slice(unit, unit + len(units_V))
        y_VO = stepped.y_VO[cut]
        moved.append((1 - F.cosine_similarity(y_VO.float(), part.cache.y_UO[units_V].float(), dim=-1)).cpu())
        part.cache.y_UO.index_copy_(0, units_V, y_VO)
        if part.cache.deep_EUO is not None and stepped.deep_EVO is not None:
            part.cache.deep_EUO.index_copy_(1, units_V, stepped.deep_EVO[:, cut])
        if part.cache.x_TC is not None:
            part.cache.x_TC.index_copy_(0, index_S, stepped.x_NC[row : row + len(index_S)])
        part.cache.changed()
        unit, row = cut.stop, row + len(index_S)
    return moved

"""DeltaSeer: decides for each block of frames what of it is computed, and sees blocks of many streams together."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...stream import Frame
from ..model import VisionHalf
from ..sight import Need, Sight
from ..towers import Layout
from .base import Computed, Seer, SeerRun, blocks_of, check_once, tower_of
from .delta import DeltaReuse
from .delta_step import FeatureCache, Part, compute_units
from .evidence import PixelWatch
from .fresh import joined_patches
from .ledger import Ledger
from .none import count_dense, see_in_passing
from .pace import Costs, Trial

# Shapes: T patches in the tower's order, U units of a picture, V those that are computed, H rows and W columns.

_DRIFT_CARRIED = 0.8  # from one block to the next
# Patches that go through the tower together, on a CPU and on a GPU. More only fill a CPU's caches: on a tower of
# 768 channels, frames of 1,024 patches gained nothing from company there; small ones a third.
_MANY_PATCHES = (2048, 32768)
# What a compressor may look at that the tower has no part in.
_BLIND = frozenset({Need.TEXT, Need.ACTION})


class DeltaRun(SeerRun):
    """One stream's cached features, their ages, and the pictures that they were computed from."""

    def __init__(self, recipe: DeltaReuse) -> None:
        super().__init__()
        self.watch = PixelWatch(recipe.rule)
        self.trial = Trial()
        self.cache: FeatureCache | None = None
        self.ledger: Ledger | None = None
        self.drift = 0.0

    def reset(self) -> None:
        self.cache = self.ledger = None
        self.drift = 0.0
        self.watch.reset()

    @property
    def num_bytes(self) -> int:
        ledger_bytes = 0 if self.ledger is None else self.ledger.num_bytes
        return self.watch.num_bytes + ledger_bytes + (0 if self.cache is None else self.cache.num_bytes)


class _Block:
    """One block of one stream on its way: what has changed in it, and what is to be computed.

    units: None: all of them; none: the cached tokens are copied.
    """

    def __init__(self, run: DeltaRun, frames: Sequence[Frame], layout: Layout) -> None:
        self.started_s = time.perf_counter()
        self.run, self.frames, self.layout = run, frames, layout
        self.change = run.watch.compare(layout, frames)
        run.change = self.change
        is_needed_HW = self.change.changed_HW | joined_patches(run.fresh.values(), layout)
        is_needed_T = is_needed_HW.ravel()[layout.raster_T.numpy()]
        self.is_needed_U: np.ndarray = is_needed_T[layout.units_UP.numpy()].any(axis=1)
        self.units: np.ndarray | None = None
        self.cache = run.cache
        self.planned_s = 0.0

    @property
    def is_copy(self) -> bool:
        return self.units is not None and not len(self.units)


class _Whole(NamedTuple):
    """One block of one stream that is computed whole, and of which nothing is kept."""

    run: DeltaRun
    frames: Sequence[Frame]
    layout: Layout


class DeltaSeer(Seer[DeltaRun]):
    """Delta reuse over one model, for any number of streams. Not thread-safe."""

    def __init__(self, recipe: DeltaReuse, model: VisionHalf, budget_bytes: int) -> None:
        super().__init__(budget_bytes)
        self._recipe, self._model = recipe, model
        self._tower = tower_of(model, "delta reuse")
        self._costs: defaultdict[tuple[int, int], Costs] = defaultdict(Costs)

    def start(self) -> DeltaRun:
        return self._enroll(DeltaRun(self._recipe))

    @torch.inference_mode()
    def see(
        self, asked: Sequence[tuple[DeltaRun, Sequence[Frame]]], needs: frozenset[Need] = frozenset()
    ) -> list[list[Sight]]:
        check_once(asked)
        seen: list[list[Sight]] = [[] for _ in asked]
        waiting = [(number, run, blocks_of(self._model, frames)) for number, (run, frames) in enumerate(asked)]
        # A stream's blocks follow one another; the n-th blocks of all streams are computed together.
        for turn in range(max((len(blocks) for _, _, blocks in waiting), default=0)):
            now: list[tuple[int, _Block]] = []
            whole: list[tuple[int, _Whole]] = []
            for number, run, blocks in waiting:
                if turn >= len(blocks):
                    continue
                layout = self._tower.layout(blocks[turn][0].height, blocks[turn][0].width)
                if run.trial.is_resting or run.trial.wants_control or self._is_too_large(layout):
                    whole.append((number, _Whole(run, blocks[turn], layout)))
                else:
                    now.append((number, self._plan(run, blocks[turn], layout, needs)))
            for together in self._batches(whole, needs):
                sights = self._see_whole([one for _, one in together], needs)
                for (number, _), sight in zip(together, sights, strict=True):
                    seen[number].append(sight)
            self._compute([block for _, block in now], needs)
            for number, block in now:
                seen[number].append(self._finish(block, needs))
        self._keep_to_budget([run for run, _ in asked])
        return seen

    def _plan(self, run: DeltaRun, frames: Sequence[Frame], layout: Layout, needs: frozenset[Need]) -> _Block:
        if run.cache is not None and run.cache.layout is not layout:
            run.reset()
        block = _Block(run, frames, layout)
        block.units = self._choose(block, needs)
        block.planned_s = time.perf_counter() - block.started_s
        run.stats.num_patches += layout.num_patches
        return block

    def _choose(self, block: _Block, needs: frozenset[Need]) -> np.ndarray | None:
        """The units of the block to compute; None for all."""
        run, layout, recipe = block.run, block.layout, self._recipe
        if run.cache is None or run.ledger is None or block.change.is_cut or not run.cache.knows(needs):
            return None
        num_needed = int(block.is_needed_U.sum())
        if not num_needed:
            return np.empty(0, np.int64)
        num_planned = run.ledger.num_planned(num_needed)
        if num_planned > recipe.full_share * layout.num_units or run.drift > recipe.max_drift:
            return None
        if recipe.falls_back:
            costs, num_rows = self._costs[layout.grid_hw], num_planned * layout.units_UP.shape[1]
            if costs.partial_s(num_rows, layout.num_patches) > 0.97 * costs.whole_s:
                return None
        return run.ledger.choose(block.is_needed_U)

    def _compute(self, blocks: Sequence[_Block], needs: frozenset[Need]) -> None:
        partial: defaultdict[int, list[_Block]] = defaultdict(list)
        for block in blocks:
            if block.units is None:
                self._compute_all(block, needs)
            elif not block.is_copy:
                partial[id(block.layout)].append(block)
        for together in partial.values():
            self._compute_some(together, needs)

    def _compute_all(self, block: _Block, needs: frozenset[Need]) -> None:
        run, layout, started_s = block.run, block.layout, time.perf_counter()
        block.cache = run.cache or FeatureCache(self._tower, layout)
        run.cache = None  # half written until it is through
        block.cache.fill(self._tower, self._tower.prepare(block.frames), needs)
        self._wait()
        took_s = block.planned_s + time.perf_counter() - started_s
        self._costs[layout.grid_hw].whole_took(took_s, compared_s=block.planned_s)
        if run.ledger is None or run.ledger.num_units != layout.num_units:
            run.ledger = Ledger(
                layout.num_units, max_age_blocks=self._recipe.max_age_blocks, num_buckets=self._recipe.num_buckets
            )
            judged_s = None  # a stream's first block is whole in any case
        else:
            judged_s = took_s
        run.cache, run.drift = block.cache, 0.0
        if not bool(torch.isfinite(block.cache.y_UO).all()):
            run.cache = None  # what is no number must not be attended to ever after
        run.ledger.computed(None)
        run.watch.detector.encoded(None)
        run.stats.num_full += 1
        run.stats.num_recomputed += layout.num_patches
        self._judge(block, judged_s)

    def _compute_some(self, blocks: Sequence[_Block], needs: frozenset[Need]) -> None:
        """Blocks of one layout, in one call."""
        layout, started_s = blocks[0].layout, time.perf_counter()
        parts = []
        for block in blocks:
            assert block.cache is not None and block.units is not None
            parts.append(Part(block.cache, self._tower.prepare(block.frames), torch.from_numpy(block.units)))
            block.run.cache = None  # half written until it is through
        moved = compute_units(self._tower, parts)
        took_s = time.perf_counter() - started_s
        for block, part, moved_V in zip(blocks, parts, moved, strict=True):
            run, units, ledger = block.run, block.units, block.run.ledger
            assert units is not None and ledger is not None
            if bool(torch.isfinite(moved_V).all()):
                run.cache = part.cache
            run.drift = _drift(run.drift, moved_V, block.is_needed_U[units])
            ledger.computed(units)
            run.watch.detector.encoded(_patches(units, layout))
            num_rows = len(units) * layout.units_UP.shape[1]
            run.stats.num_partial += 1
            run.stats.num_recomputed += num_rows
            if len(blocks) == 1:
                self._costs[layout.grid_hw].partial_took(num_rows, block.planned_s + took_s)
            self._judge(block, block.planned_s + took_s / len(blocks))

    def _finish(self, block: _Block, needs: frozenset[Need]) -> Sight:
        assert block.cache is not None
        started_s = time.perf_counter()
        mask_HW = None if block.units is None else _patches(block.units, block.layout)
        block.run.computed = Computed(block.frames[-1].pts_s, block.layout.grid_hw, mask_HW)
        tokens = self._tower.assemble(block.cache.y_UO, block.cache.deep_EUO, block.layout, block.frames)
        sight = block.cache.evidence(self._tower, needs).sight(tokens, block.layout, block.change, needs)
        if block.is_copy:
            block.run.stats.num_copied += 1
            self._judge(block, block.planned_s + time.perf_counter() - started_s)
        return sight

    def _batches(self, blocks: Sequence[tuple[int, _Whole]], needs: frozenset[Need]) -> list[list[tuple[int, _Whole]]]:
        """Blocks that nothing is kept of, in groups that go through the tower together: alike, and not too many."""
        groups: defaultdict[tuple[int, ...], list[tuple[int, _Whole]]] = defaultdict(list)
        is_alone = bool(needs - _BLIND)
        for number, block in blocks:
            full = len(block.frames) == self._model.spec.frames_per_block
            # Frames of several sizes are one picture by the family's own rules.
            shapes = [frame.rgb_HW3.shape[:2] for frame in block.frames]
            is_odd = is_alone or not full or len(set(shapes)) > 1
            groups[(number,) if is_odd else (id(block.layout), *shapes[0])].append((number, block))
        batches = []
        for group in groups.values():
            most = max(1, _MANY_PATCHES[self._tower.device.type == "cuda"] // group[0][1].layout.num_patches)
            batches += [group[start : start + most] for start in range(0, len(group), most)]
        return batches

    def _see_whole(self, blocks: Sequence[_Whole], needs: frozenset[Need]) -> list[Sight]:
        """Blocks of streams whose reuse rests, or is held against it: nothing is compared, and nothing kept."""
        started_s, costs = time.perf_counter(), self._costs[blocks[0].layout.grid_hw]
        if len(blocks) == 1:
            run, frames, _ = blocks[0]
            sights = [see_in_passing(self._tower, run, run.watch, frames, needs)]
        else:
            tokens = self._model.see([frame for block in blocks for frame in block.frames])
            sights = [Sight(one) for one in tokens]
            for run, frames, layout in blocks:
                count_dense(run, layout.num_patches, Computed(frames[-1].pts_s, layout.grid_hw, None))
        self._wait()
        took_s = (time.perf_counter() - started_s) / len(blocks)
        costs.dense_took(took_s)
        for run, _, _ in blocks:
            run.change = None
            was_control = run.trial.wants_control
            run.trial.dense_took(took_s)
            if was_control and run.trial.is_resting:
                run.reset()
                costs.forget_partial()
        return sights

    def _judge(self, block: _Block, took_s: float | None) -> None:
        """Holds what a block took against what a dense one takes."""
        if self._recipe.falls_back and took_s is not None:
            block.run.trial.took(took_s, self._costs[block.layout.grid_hw].dense_s)

    def _is_too_large(self, layout: Layout) -> bool:
        return FeatureCache.bytes_for(self._tower, layout) > self.budget_bytes

    def _wait(self) -> None:
        if self._tower.device.type == "cuda":
            torch.cuda.synchronize(self._tower.device)


def _patches(units: np.ndarray, layout: Layout) -> np.ndarray:
    """The patches of some units, as a mask of rows and columns."""
    mask = np.zeros(layout.num_patches, bool)
    mask[layout.raster_T.numpy()[layout.units_UP.numpy()[units].ravel()]] = True
    return mask.reshape(layout.grid_hw)


def _drift(drift: float, moved_V: Tensor, is_needed_V: np.ndarray) -> float:
    """How far cached features have moved, as their refreshed ones show: those whose pixels had not changed."""
    refreshed_V = moved_V[torch.from_numpy(~is_needed_V)]
    if not len(refreshed_V):
        return drift
    return _DRIFT_CARRIED * drift + (1 - _DRIFT_CARRIED) * float(refreshed_V.mean())

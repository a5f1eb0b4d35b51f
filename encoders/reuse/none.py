"""No reuse: every frame is computed whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...stream import Frame
from ...stream.change import ChangeRule
from ..model import VisionHalf
from ..sight import Need, Sight
from ..towers import Tower
from .base import Computed, Reuser, Seer, SeerRun, blocks_of, check_once, tower_of
from .evidence import PixelWatch
from .passes import pass_all


@dataclass(frozen=True, slots=True)
class NoReuse(Reuser):
    """Every frame is computed whole, by the family's own `see`.

    Baseline: the dense tower.
    Differs from the paper: None.
    """

    def over(self, model: VisionHalf, *, budget_bytes: int = 2 * 2**30) -> Seer[_DenseRun]:
        return _Dense(model, budget_bytes)


class _DenseRun(SeerRun):
    def __init__(self) -> None:
        super().__init__()
        self.watch = PixelWatch(ChangeRule())

    def reset(self) -> None:
        self.watch.reset()

    @property
    def num_bytes(self) -> int:
        return self.watch.num_bytes


class _Dense(Seer[_DenseRun]):
    def __init__(self, model: VisionHalf, budget_bytes: int) -> None:
        super().__init__(budget_bytes)
        self._model = model

    def start(self) -> _DenseRun:
        return self._enroll(_DenseRun())

    def see(
        self, asked: Sequence[tuple[_DenseRun, Sequence[Frame]]], needs: frozenset[Need] = frozenset()
    ) -> list[list[Sight]]:
        check_once(asked)
        seen = [see_dense(self._model, run, run.watch, frames, needs) for run, frames in asked]
        self._keep_to_budget([run for run, _ in asked])
        return seen


@torch.inference_mode()
def see_dense(
    model: VisionHalf, run: SeerRun, watch: PixelWatch, frames: Sequence[Frame], needs: frozenset[Need]
) -> list[Sight]:
    """Frames of one stream computed whole, nothing kept; with what is needed besides tokens."""
    if needs - {Need.TEXT, Need.ACTION}:
        tower = tower_of(model, "what a compressor looks at besides tokens")
        return [see_in_passing(tower, run, watch, block, needs) for block in blocks_of(model, frames)]
    seen = model.see(frames)
    for block, tokens in zip(blocks_of(model, frames), seen, strict=True):
        # Patches count; tokens stand for them in a model whose tower cannot say.
        tower_or_none = model.tower
        layout = tower_or_none and tower_or_none.layout(block[0].height, block[0].width)
        grid_hw = layout.grid_hw if layout else tokens.grid_hw
        count_dense(run, layout.num_patches if layout else tokens.num_tokens, Computed(block[-1].pts_s, grid_hw, None))
    return [Sight(tokens) for tokens in seen]


@torch.inference_mode()
def see_in_passing(
    tower: Tower, run: SeerRun, watch: PixelWatch, block: Sequence[Frame], needs: frozenset[Need]
) -> Sight:
    """One block, layer by layer, with an eye on what is needed; the tokens are those of the family's `see`."""
    prepared = tower.prepare(block)
    change = watch.compare(prepared.layout, block) if Need.PIXELS in needs else None
    passed = pass_all(tower, prepared, needs)
    count_dense(run, prepared.layout.num_patches, Computed(block[-1].pts_s, prepared.layout.grid_hw, None))
    tokens = tower.assemble(passed.y_UO, passed.deep_EUO, prepared.layout, block)
    return passed.evidence.sight(tokens, prepared.layout, change, needs)


def count_dense(run: SeerRun, num_patches: int, computed: Computed) -> None:
    """Notes that one block of a run was computed whole, and nothing kept."""
    run.computed = computed
    run.stats.num_dense += 1
    run.stats.num_patches += num_patches
    run.stats.num_recomputed += num_patches

"""Random: the control that a method has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..block import KVBlock
from .base import Picked, Pruner, PrunerRun, everything, num_visual


@dataclass(frozen=True, kw_only=True)
class RandomPruner(Pruner):
    """Keeps tokens drawn by chance, the same ones in every run.

    Baseline: chance.
    Differs from the paper: None.

    keep_tokens: visual tokens that a block keeps.
    seed: of the draw, 0 to 2**31 - 1.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be in [0, 2**31); got {self.seed}")

    def start(self) -> PrunerRun:
        return _Run(self)


class _Run(PrunerRun):
    def __init__(self, recipe: RandomPruner) -> None:
        super().__init__(recipe)
        self._draw = torch.Generator().manual_seed(recipe.seed)

    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked:
        if num_visual(block) <= self._recipe.keep_tokens:
            return Picked(everything(block))
        drawn_V = torch.randperm(num_visual(block), generator=self._draw)
        return Picked(drawn_V[: self._recipe.keep_tokens].sort().values.to(block.k_LKTD.device))

"""No pruner: every token stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..block import KVBlock
from .base import BlockPruner, Picked, everything


@dataclass(frozen=True, kw_only=True)
class NoPruner(BlockPruner):
    """Keeps every token.

    Baseline: no pruning.
    Differs from the paper: None.

    keep_tokens: not looked at.
    """

    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked:
        return Picked(everything(block))

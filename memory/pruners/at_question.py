"""QuestionPruner: pruning of what a question brought back, by that question."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..block import KVBlock
from .base import BlockPruner, Picked, best, check_block, everything, num_visual, take, without_queries

# Shapes: V visual tokens, L layers, K key/value heads, D channels per head.


@dataclass(frozen=True, kw_only=True)
class QuestionPruner(BlockPruner):
    """A pruner that nobody can ask before there is a question: until then, blocks stay whole."""

    at_question: ClassVar[bool] = True

    @abstractmethod
    def score(self, block: KVBlock, query_LKD: Tensor) -> Tensor:
        """One number for each visual token, float32 (V,): higher stays."""

    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked:
        return Picked(everything(block))

    def prune_for(self, block: KVBlock, query_LKD: Tensor) -> KVBlock:
        """What the question needs of a block that was recalled for it."""
        spec = block.spec
        if tuple(query_LKD.shape) != (spec.num_layers, spec.num_kv_heads, spec.head_dim):
            raise ValueError(
                f"the question's query must have the layers, kv heads and channels of {spec}; "
                f"got {tuple(query_LKD.shape)}"
            )
        if not torch.isfinite(query_LKD).all():
            raise ValueError(f"the question's query got numbers that are not finite, for {block!r}; ask anew")
        check_block(block)
        if block.kind == "text" or num_visual(block) <= self.keep_tokens:
            return without_queries(block)
        return take(block, Picked(best(block, self.score(block, query_LKD), self.keep_tokens)))

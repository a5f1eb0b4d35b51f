"""TOVA: a query decides who stays."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..block import KVBlock
from .at_question import QuestionPruner
from .attention import received

# Shapes: V visual tokens, D channels per head.


@dataclass(frozen=True, kw_only=True)
class TOVA(QuestionPruner):
    """Keeps, of a recalled block, the tokens that the question attends to most.

    Score: softmax over the block of the question's query times the keys, mean over heads and layers.

    Paper: Transformers are Multi-State RNNs (arXiv 2401.06104)
    Differs from the paper: the question's mean query in place of the last token's at every step; attention within the
        block; scores are averaged over layers too, for one selection; words stay whatever they score.

    keep_tokens: visual tokens that a block keeps.
    """

    def score(self, block: KVBlock, query_LKD: Tensor) -> Tensor:
        return received(query_LKD.unsqueeze(2), block.k_LKTD)[..., block.visual].mean((0, 1))

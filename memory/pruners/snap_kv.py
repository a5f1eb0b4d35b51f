"""SnapKV: what the question attends to, and its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import avg_pool1d

from ..block import KVBlock
from .at_question import QuestionPruner
from .attention import received

# Shapes: L layers, K key/value heads, V visual tokens, D channels per head.


@dataclass(frozen=True, kw_only=True)
class SnapKV(QuestionPruner):
    """Keeps, of a recalled block, what the question attends to; attention is averaged over neighbours first.

    Score: softmax over the block of the question's query times the keys, then a mean over pool_tokens neighbours.

    Paper: SnapKV: LLM Knows What You are Looking for Before Generation (arXiv 2404.14469)
    Differs from the paper: the question's mean query stands for its window of queries; attention within the block, not
        over all of the context; scores are averaged over layers and heads for one selection; neighbours beyond the
        ends are left out, where the paper counts zeros.

    keep_tokens: visual tokens that a block keeps.
    pool_tokens: how many tokens in a row share their attention; odd, at least 1.
    """

    pool_tokens: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pool_tokens < 1 or self.pool_tokens % 2 == 0:
            raise ValueError(f"pool_tokens must be odd, at least 1; got {self.pool_tokens}")

    def score(self, block: KVBlock, query_LKD: Tensor) -> Tensor:
        attention_LKV = received(query_LKD.unsqueeze(2), block.k_LKTD)[..., block.visual]
        return avg_pool1d(
            attention_LKV.mean((0, 1))[None],
            self.pool_tokens,
            stride=1,
            padding=self.pool_tokens // 2,
            count_include_pad=False,
        )[0]

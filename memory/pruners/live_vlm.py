"""LiveVLM: what recent queries attend to, with something from every stretch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..block import KVBlock
from .attention import received
from .base import BlockPruner, Picked, best, everything, num_visual

# Shapes: N buckets, V visual tokens.


@dataclass(frozen=True, kw_only=True)
class LiveVLM(BlockPruner):
    """Keeps the most attended tokens, then the most attended of each stretch that has none yet.

    1. Score: attention that the block's queries give each visual token.
    2. keep_tokens buckets of neighbouring tokens, each with room for one. The best top_tokens tokens stay, wherever
       they lie.
    3. The rest of keep_tokens goes by score to tokens whose bucket is still empty.

    Paper: LiveVLM: Online Video Understanding via Streaming-Oriented KV Cache and Retrieval (arXiv 2505.15269)
    Differs from the paper: within a block, not a chunk of video; no mask in the attention, and no positions; scores are
        averaged over layers and heads for one selection; top_tokens is ours, the paper's share is not known to us.

    keep_tokens: visual tokens that a block keeps; as many buckets.
    top_tokens: how many go by score alone, at least 0, keep_tokens at most; None: half of keep_tokens.
    """

    needs_queries: ClassVar[bool] = True

    top_tokens: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_tokens is not None and self.top_tokens < 0:
            raise ValueError(f"top_tokens must not be negative, or None; got {self.top_tokens}")

    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked:
        num, keep = num_visual(block), self.keep_tokens
        if num <= keep or block.q_LKPD is None:
            return Picked(everything(block))
        score_V = received(block.q_LKPD, block.k_LKTD)[..., block.visual].mean((0, 1)).cpu()
        rank_V = score_V.sort(descending=True, stable=True).indices.argsort()
        bucket_V = torch.arange(num) * keep // num
        best_N = torch.full((keep,), num).scatter_reduce_(0, bucket_V, rank_V, "amin")
        top = keep // 2 if self.top_tokens is None else min(self.top_tokens, keep)
        # The top tokens, then the best of each bucket (empty so far, if its best is not at the top), then the others.
        urge_V = num * ((rank_V == best_N[bucket_V]).int() + 2 * (rank_V < top).int()) - rank_V
        return Picked(best(block, urge_V, keep).to(block.k_LKTD.device))

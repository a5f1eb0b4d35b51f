"""Pruner: fewer visual tokens per block after prefill. What every method promises, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..block import KVBlock

# Shapes: L layers, K key/value heads, T tokens, V visual tokens, S visual tokens kept, P probing tokens, D channels per
# head.


class Picked(NamedTuple):
    """What a method keeps of a block's visual tokens.

    index_S: int64, increasing, into the visual tokens.
    k_LKSD, v_LKSD: what these become where others were merged into them; None: they stay as they are.
    """

    index_S: Tensor
    k_LKSD: Tensor | None = None
    v_LKSD: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Pruner(ABC):
    """A frozen recipe; `start()` gives the state that it keeps for one stream.

    Promises, checked for every row: a block keeps keep_tokens visual tokens at most and one at least where it has
    any, the same ones in all layers and heads, or is not kept at all; its words stay, to the bit; kept tokens stay in
    order and at their positions, and what follows the block stays where it is; span, kind and id are the block's;
    queries are dropped; text blocks come back whole; the input is not written; the same blocks after `start()` give
    the same tokens; the state is bounded, and keeps no tensor of a caller alive.

    keep_tokens: most visual tokens that a block keeps, at least 1.
    needs_queries: whether blocks must come with queries (`KVBlock.q_LKPD`).
    at_question: whether it prunes what a question brought back (`prune_for`); `start()` then keeps everything.
    """

    needs_queries: ClassVar[bool] = False
    at_question: ClassVar[bool] = False

    keep_tokens: int = 32

    def __post_init__(self) -> None:
        if isinstance(self.keep_tokens, bool) or not isinstance(self.keep_tokens, int) or self.keep_tokens < 1:
            raise ValueError(f"keep_tokens must be a whole number, at least 1; got {self.keep_tokens!r}")

    @abstractmethod
    def start(self) -> PrunerRun:
        """The pruning of one new stream."""

    def prune_for(self, block: KVBlock, query_LKD: Tensor) -> KVBlock:
        """What a question needs of a block that was recalled for it: all, unless the row is `at_question`."""
        return block


class PrunerRun(ABC):
    """One stream's pruning. Not thread-safe: one per stream."""

    def __init__(self, recipe: Pruner) -> None:
        self._recipe = recipe

    def prune(self, block: KVBlock, following: Sequence[KVBlock] = ()) -> KVBlock | None:
        """The block with fewer visual tokens; None where it is not kept at all. Blocks come in order of time.

        following: the blocks that came after it and are still exact, oldest first.
        Raises ValueError where queries are missing or something is not finite; the stream's state is then as if the
        block had not come.
        """
        check_block(block, needs_queries=self._recipe.needs_queries)
        if block.kind == "text" or num_visual(block) == 0:
            return without_queries(block)
        picked = self.pick(block, following)
        return None if picked is None else take(block, picked)

    @abstractmethod
    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked | None:
        """What stays of a finite frame block's visual tokens, one at least; None: nothing of the block does."""

    @property
    def num_bytes(self) -> int:
        """Bytes of tensors held for the stream."""
        return 0

    def check(self) -> None:  # noqa: B027  (most hold nothing)
        """RuntimeError where the state is not what `num_bytes` says, or more than is allowed."""


@dataclass(frozen=True, kw_only=True)
class BlockPruner(Pruner):
    """A pruner that needs no state: each block, and those that follow it, say enough."""

    @abstractmethod
    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked | None:
        """As `PrunerRun.pick`."""

    def start(self) -> PrunerRun:
        return _BlockRun(self)


@dataclass(frozen=True, kw_only=True)
class ScoredPruner(BlockPruner):
    """A pruner that keeps the visual tokens of the highest score."""

    @abstractmethod
    def score(self, block: KVBlock, following: Sequence[KVBlock]) -> Tensor:
        """One number for each visual token, float32 (V,): higher stays."""

    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked:
        if num_visual(block) <= self.keep_tokens:
            return Picked(everything(block))
        return Picked(best(block, self.score(block, following), self.keep_tokens))


class _BlockRun(PrunerRun):
    def __init__(self, recipe: BlockPruner) -> None:
        super().__init__(recipe)
        self._pick = recipe.pick

    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked | None:
        return self._pick(block, following)


def num_visual(block: KVBlock) -> int:
    """How many visual tokens it has."""
    return block.num_tokens - block.num_before - block.num_after


def everything(block: KVBlock) -> Tensor:
    """The index of all visual tokens."""
    return torch.arange(num_visual(block), device=block.k_LKTD.device)


def best(block: KVBlock, score_V: Tensor, num_tokens: int) -> Tensor:
    """The visual tokens of the highest score, in order; of equals the earlier; ValueError where a score is NaN."""
    if torch.isnan(score_V).any():
        raise ValueError(
            f"tokens of {block!r} cannot be compared: got NaN, from blocks that follow it or from numbers too large; "
            "leave out what is not finite"
        )
    return score_V.sort(descending=True, stable=True).indices[:num_tokens].sort().values


def take(block: KVBlock, picked: Picked) -> KVBlock:
    """The block with its words and the picked visual tokens, in storage of its own unless nothing goes."""
    seen = block.visual
    index_S = picked.index_S
    if picked.k_LKSD is None and index_S.shape[0] == num_visual(block):
        return without_queries(block)
    everywhere_T = torch.arange(block.num_tokens, device=index_S.device)
    index_T = torch.cat([everywhere_T[: seen.start], index_S + seen.start, everywhere_T[seen.stop :]])
    k_LKTD, v_LKTD = block.k_LKTD.index_select(2, index_T), block.v_LKTD.index_select(2, index_T)
    if picked.k_LKSD is not None and picked.v_LKSD is not None:
        stays = slice(seen.start, seen.start + index_S.shape[0])
        k_LKTD[:, :, stays] = picked.k_LKSD.to(k_LKTD.dtype)
        v_LKTD[:, :, stays] = picked.v_LKSD.to(v_LKTD.dtype)
    pos_3T = block.pos_3T.index_select(1, index_T.to(block.pos_3T.device))
    return replace(block, k_LKTD=k_LKTD, v_LKTD=v_LKTD, pos_3T=pos_3T, q_LKPD=None)


def without_queries(block: KVBlock) -> KVBlock:
    """The block as it is kept: nobody needs its queries any more."""
    return block if block.q_LKPD is None else replace(block, q_LKPD=None)


def check_block(block: KVBlock, *, needs_queries: bool = False) -> None:
    """ValueError for a block that cannot be pruned: not finite, or without the queries that are needed."""
    for name, x in (("keys", block.k_LKTD), ("values", block.v_LKTD), ("queries", block.q_LKPD)):
        # A sum is not finite where a part is not, and a tenth of the work; an overflow is looked at closely.
        if x is not None and not torch.isfinite(x.sum(dtype=torch.float32)) and not torch.isfinite(x).all():
            raise ValueError(f"{block!r} got {name} that are not finite (NaN or inf); read its frame anew")
    if needs_queries and block.kind == "frame" and block.q_LKPD is None:
        raise ValueError(
            f"{block!r} got no queries, and this pruner measures attention with them; have blocks read with queries, "
            "or take a pruner that needs none, as key_diff or novel"
        )

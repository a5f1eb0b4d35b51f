"""KeyDiff: keys that point away from the stream's mean key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..block import KVBlock
from .base import Picked, Pruner, PrunerRun, best, everything

# Shapes: L layers, K key/value heads, V visual tokens, D channels per head.


@dataclass(frozen=True, kw_only=True)
class KeyDiff(Pruner):
    """Keeps the tokens whose keys point least where the stream's keys point on average.

    Score: minus the cosine of a key and the mean of all unit keys so far, its own block's included.

    Paper: KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference (arXiv 2504.15364)
    Differs from the paper: the mean runs over all visual tokens that ever came, where the paper's is over those still
        kept; cosines are averaged over layers and heads for one selection; words are not in the running; keys before
        rotation.

    keep_tokens: visual tokens that a block keeps.
    """

    def start(self) -> PrunerRun:
        return _Run(self)


class _Run(PrunerRun):
    def __init__(self, recipe: KeyDiff) -> None:
        super().__init__(recipe)
        self._mean_LK1D: Tensor | None = None
        self._num_seen = 0

    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked:
        unit_LKVD = normalize(block.k_LKTD[:, :, block.visual].float(), dim=-1)
        num_new = unit_LKVD.shape[2]
        mean_LK1D = unit_LKVD.mean(2, keepdim=True)
        held = self._mean_LK1D
        if held is not None and held.shape == mean_LK1D.shape:
            num_seen = self._num_seen + num_new
            held = held.to(mean_LK1D.device)
            mean_LK1D = held + (mean_LK1D - held) * (num_new / num_seen)
        else:
            num_seen = num_new
        if num_new <= self._recipe.keep_tokens:
            index_S = everything(block)
        else:
            cosine_LKV = (unit_LKVD @ normalize(mean_LK1D, dim=-1).mT).squeeze(-1)
            index_S = best(block, -cosine_LKV.mean((0, 1)), self._recipe.keep_tokens)
        self._mean_LK1D, self._num_seen = mean_LK1D, num_seen
        return Picked(index_S)

    @property
    def num_bytes(self) -> int:
        return 0 if self._mean_LK1D is None else self._mean_LK1D.nbytes

    def check(self) -> None:
        held = self._mean_LK1D
        if held is not None and not (torch.isfinite(held).all() and held.untyped_storage().nbytes() == held.nbytes):
            raise RuntimeError(f"the mean key of {self._num_seen} tokens is not finite, or pins more than its bytes")

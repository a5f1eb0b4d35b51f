"""Where visual tokens lie: their positions from the first visual one on, and who lies where in two blocks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..block import KVBlock

# Shapes: V visual tokens, N other places, M pairs.


class Pairs(NamedTuple):
    """Tokens of two lists that lie at the same place: the first list's, increasing, and the other's."""

    ours_M: Tensor
    theirs_M: Tensor


def places(block: KVBlock) -> Tensor:
    """Places of the visual tokens, int64 (3, V), on the CPU: the same in every block, whatever words come before."""
    return block.pos_3T[:, block.visual].cpu() - block.num_before


def pairs(ours_3V: Tensor, theirs_3N: Tensor) -> Pairs:
    """Who lies at the same place; of several at one place, one."""
    if torch.equal(ours_3V, theirs_3N):
        index_V = torch.arange(ours_3V.shape[1])
        return Pairs(index_V, index_V)
    num_ours = ours_3V.shape[1]
    distinct, number = torch.unique(torch.cat([ours_3V, theirs_3N], dim=1), dim=1, return_inverse=True)
    at = torch.full((distinct.shape[1],), -1)
    at[number[num_ours:]] = torch.arange(theirs_3N.shape[1])
    theirs_V = at[number[:num_ours]]
    ours_M = torch.nonzero(theirs_V >= 0).flatten()
    return Pairs(ours_M, theirs_V[ours_M])

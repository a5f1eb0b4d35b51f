"""Mergers: what was not kept goes into what was. All means are convex: no merged token is longer than its parts."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .scorers import cosines, novelty

# Shapes: T tokens, K of them kept, D channels, W frames of a window, A and B the two halves of a bipartite match.


class Merged(NamedTuple):
    """Tokens that stand for several.

    index_K: int64, increasing: each one's representative. x_KD: float32. num_K: how many tokens each stands for.
    """

    index_K: Tensor
    x_KD: Tensor
    num_K: Tensor


def soft_matching(x_TD: Tensor, num_tokens: int) -> Merged:
    """M1, bipartite soft matching, after the projector: pass after pass until num_tokens are left.

    A pass sets even against odd tokens; each even one chooses its most similar odd one; the most similar pairs merge
    to their mean, weighted by how many tokens each stands for. A pass at most halves. The odd one represents.
    """
    x_KD = x_TD.float().clone()
    index_K = torch.arange(x_KD.shape[0], device=x_KD.device)
    num_K = torch.ones(x_KD.shape[0], device=x_KD.device)
    while x_KD.shape[0] > max(1, num_tokens):
        cos_AB = cosines(x_KD[0::2], x_KD[1::2])
        like_A, partner_A = cos_AB.max(-1)
        num_pairs = min(x_KD.shape[0] - max(1, num_tokens), x_KD.shape[0] // 2)
        gone_A = like_A.sort(descending=True, stable=True).indices[:num_pairs]
        source, target = 2 * gone_A, 2 * partner_A[gone_A] + 1
        sum_KD = (x_KD * num_K[:, None]).index_add(0, target, x_KD[source] * num_K[source, None])
        total_K = num_K.index_add(0, target, num_K[source])
        stays_K = torch.ones(x_KD.shape[0], dtype=torch.bool, device=x_KD.device)
        stays_K[source] = False
        x_KD, index_K, num_K = (sum_KD / total_K[:, None])[stays_K], index_K[stays_K], total_K[stays_K]
    return Merged(index_K, x_KD, num_K)


def nearest_centre(x_TD: Tensor, index_K: Tensor, own_share: float = 0.6) -> Merged:
    """M2, convex: centre' = own_share * centre + (1 - own_share) * mean of the dropped tokens most like it.

    A centre that nothing joins stays as it is.
    """
    x_TD = x_TD.float()
    centre_KD = x_TD[index_K]
    is_dropped_T = torch.ones(x_TD.shape[0], dtype=torch.bool, device=x_TD.device)
    is_dropped_T[index_K] = False
    dropped_SD = x_TD[is_dropped_T]
    joins_S = cosines(dropped_SD, centre_KD).argmax(-1)
    sum_KD = torch.zeros_like(centre_KD).index_add(0, joins_S, dropped_SD)
    num_K = torch.zeros_like(centre_KD[:, 0]).index_add(0, joins_S, torch.ones_like(dropped_SD[:, 0]))
    mean_KD = sum_KD / num_K.clamp_min(1.0)[:, None]
    mixed_KD = own_share * centre_KD + (1.0 - own_share) * mean_KD
    return Merged(index_K, torch.where(num_K[:, None] > 0, mixed_KD, centre_KD), num_K + 1)


def static_mean(x_WTD: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """M3: which places stay alike through a window (every step's novelty at most the threshold), and all places' means.

    The means belong at the first frame; only those of static places stand for the window.
    """
    x_WTD = x_WTD.float()
    static_T = torch.ones(x_WTD.shape[1], dtype=torch.bool, device=x_WTD.device)
    for before_TD, after_TD in pairwise(x_WTD):
        static_T &= novelty(after_TD, before_TD) <= threshold
    return static_T, x_WTD.mean(0)

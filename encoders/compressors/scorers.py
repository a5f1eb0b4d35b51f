"""Scorers: how much each token matters. Pure functions to float32; larger is more important.

Numbered as the primitives that the methods are said to be made of. Not here: S4 (a pooling head's weights, which
checkpoints leave out; its row goes through `cls_share`), S9 and S10 (inside the language model), S11 (raw pixels).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Shapes: T tokens, D channels, S other tokens, M words, H heads, Q queries, P pixels under a token, L rows of
# attention, C channels per head or of the tower.

KERNELS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)


def unit(x_TD: Tensor) -> Tensor:
    """x / ||x|| along the last axis, float32. A zero vector stays zero; no length overflows."""
    x_TD = x_TD.float()
    largest_T1 = x_TD.abs().amax(dim=-1, keepdim=True)
    x_TD = x_TD / torch.where(largest_T1 > 0, largest_T1, 1.0)
    norm_T1 = x_TD.norm(dim=-1, keepdim=True)
    return x_TD / torch.where(norm_T1 > 0, norm_T1, 1.0)


def cosines(x_TD: Tensor, y_SD: Tensor) -> Tensor:
    """cos(x_i, y_j): (T, S), in [-1, 1]. Zero vectors are like nothing: 0."""
    return (unit(x_TD) @ unit(y_SD).T).clamp(-1.0, 1.0)


def cls_share(rows_LT: Tensor) -> Tensor:
    """S1: mean over heads (or layers) of a [CLS] row of attention, as shares that sum to 1."""
    mean_T = rows_LT.float().reshape(-1, rows_LT.shape[-1]).mean(0).clamp_min(0.0)
    total = mean_T.sum()
    return torch.where(total > 0, mean_T / torch.where(total > 0, total, 1.0), 1.0 / mean_T.shape[0])


def received(attention_HQT: Tensor, num_queries_T: Tensor | None = None) -> Tensor:
    """S2: mean_h mean_q A_h[q, i]. num_queries_T: how many queries can see each token, where a mask hides some."""
    sum_T = attention_HQT.float().mean(0).sum(0)
    if num_queries_T is None:
        return sum_T / attention_HQT.shape[1]
    return sum_T / num_queries_T.clamp_min(1)


def virtual_cls(q_THC: Tensor, k_THC: Tensor) -> Tensor:
    """S3: mean_h softmax_i(mean_j(q_j) . k_i / sqrt(C)): what a [CLS] would look at. One row; sums to 1.

    Paper: FlowCut: Rethinking Redundancy via Information Flow (arXiv 2505.19536), its port to towers without a [CLS].
    """
    q_HC = q_THC.float().mean(0)
    logits_HT = torch.einsum("hc,thc->ht", q_HC, k_THC.float()) / q_HC.shape[-1] ** 0.5
    return logits_HT.softmax(-1).mean(0)


def novelty(x_TD: Tensor, reference_TD: Tensor) -> Tensor:
    """S5: 1 - cos(x_i, ref_i), in [0, 2]. The reference: the previous frame, the last kept tokens, or one mean vector.

    Equal vectors are exactly 0 apart, zero ones too; a zero and another one are 1 apart.
    """
    x_TD, reference_TD = unit(x_TD), unit(reference_TD)
    # ||a - b||^2 / 2 = 1 - cos for unit vectors, without the rounding of 1 - (almost 1).
    apart_T = (x_TD - reference_TD).square().sum(-1) / 2
    one_is_zero_T = (x_TD == 0).all(-1) ^ (reference_TD == 0).all(-1)
    return torch.where(one_is_zero_T, 1.0, apart_T.clamp(0.0, 2.0))


def moved_average(average: Tensor | None, new: Tensor, share: float) -> Tensor:
    """(1 - share) * average + share * new: the EMA reference of S5 and S6. None: the new one."""
    return new.float().clone() if average is None else torch.lerp(average, new.float(), share)


def outlier(x_TD: Tensor, centre_D: Tensor) -> Tensor:
    """S6: -sum_a exp(-||x_i - c||^2 / 2a), a in 1/8, 1/4, 1/2, 1, 2; in [-5, 0). For unit vectors, c their mean."""
    far_T = (x_TD.float() - centre_D.float()).square().sum(-1)
    widths_A = torch.tensor(KERNELS, device=far_T.device)
    return -torch.exp(-far_T[:, None] / (2 * widths_A)).sum(-1)


def steadiest_channels(variance_D: Tensor, share: float) -> Tensor:
    """Mask of the `share` of channels that vary least, one at least; ties to the first. For S6."""
    num_kept = max(1, int(share * variance_D.shape[0]))
    mask_D = torch.zeros(variance_D.shape[0], dtype=torch.bool, device=variance_D.device)
    mask_D[variance_D.sort(stable=True).indices[:num_kept]] = True
    return mask_D


def pixel_change(now_TP: Tensor, before_TP: Tensor) -> Tensor:
    """S7: mean |now - before| of the pixels under each token, in their own unit."""
    return (now_TP.float() - before_TP.float()).abs().mean(-1)


def text_relevance(x_TD: Tensor, text_MD: Tensor, temperature: float | None = None) -> Tensor:
    """S8: mean over words of cos(x_i, word), or of softmax_i(cos / temperature): how much words are about a token."""
    cos_TM = cosines(x_TD, text_MD)
    return (cos_TM if temperature is None else (cos_TM / temperature).softmax(0)).mean(-1)


def value_weighted(score_T: Tensor, value_TC: Tensor) -> Tensor:
    """S12: score_i * ||V_i||_1: attention to a token that carries nothing counts for nothing."""
    return score_T.float() * value_TC.float().abs().sum(-1)

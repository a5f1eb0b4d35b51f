"""Attention for training: contexts over themselves, questions over context and themselves, and nothing else computed.

One mask over everything costs as much for what it hides as for what it shows, and most of a step was attention. Here
queries go in runs, each over the keys that any of it can see. With heads this narrow, two products of matrices and a
softmax take a third of the time of the CPU's fused kernel, most of all in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# Shapes: B clips, H heads, G heads of keys, S tokens of contexts and questions, Q queries, K keys, D channels.

ATTENTION = "mini_training"
RUN = 128
"""Queries at once."""


def attend(
    module: nn.Module,
    query_BHSD: Tensor,
    key_BGSD: Tensor,
    value_BGSD: Tensor,
    attention_mask: Tensor,
    scaling: float,
    window_mask: Tensor | None = None,
    question_length: int = 1,
    **_: Any,
) -> tuple[Tensor, None]:
    """attention_mask: of the last tokens, the questions', over all; window_mask: of the context over itself, None:
    all that came before. question_length: of the longest, in tokens; no token sees further back among questions.
    Gives (B, S, H, D)."""
    num_all = query_BHSD.shape[2]
    begin = num_all - attention_mask.shape[2]
    parts = []
    for start in range(0, begin, RUN):
        end = min(start + RUN, begin)
        if window_mask is None:
            seen = torch.ones(end - start, end, dtype=torch.bool).tril(start)
        else:
            seen = window_mask[:, None, None, start:end, :end]
        keys, values = key_BGSD[:, :, :end], value_BGSD[:, :, :end]
        parts.append(_attend(query_BHSD[:, :, start:end], keys, values, seen, scaling))
    for start in range(begin, num_all, RUN):
        end, own = min(start + RUN, num_all), max(begin, start - question_length)
        mask = attention_mask[:, :, None, start - begin : end - begin]
        keys, values, seen = (
            torch.cat([whole.narrow(dim, 0, begin), whole.narrow(dim, own, end - own)], dim)
            for whole, dim in ((key_BGSD, 2), (value_BGSD, 2), (mask, 4))
        )
        parts.append(_attend(query_BHSD[:, :, start:end], keys, values, seen, scaling))
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _attend(query_BHQD: Tensor, key_BGKD: Tensor, value_BGKD: Tensor, seen: Tensor, scaling: float) -> Tensor:
    """seen: (Q, K) or (B, 1, 1, Q, K). Gives (B, H, Q, D)."""
    heads, queries = query_BHQD.shape[1:3]
    grouped = (query_BHQD * scaling).unflatten(1, (key_BGKD.shape[1], -1))
    scores = grouped.flatten(2, 3) @ key_BGKD.transpose(-1, -2)
    bias = torch.zeros(seen.shape, dtype=scores.dtype).masked_fill_(~seen, torch.finfo(scores.dtype).min)
    weights = (scores.unflatten(2, (-1, queries)) + bias).softmax(-1)
    mixed = weights.flatten(2, 3) @ value_BGKD
    return mixed.unflatten(2, (-1, queries)).reshape(len(mixed), heads, queries, -1)


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, lambda *_, **__: None)

"""Attention for training: contexts over themselves, questions over context and themselves, and nothing else computed.

One mask over everything costs as much for what it hides as for what it shows, and most of a step is attention.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# Shapes: B clips, H heads, G heads of keys, S tokens of contexts and questions, D channels of a head.

ATTENTION = "mini_training"


def attend(
    module: nn.Module,
    query_BHSD: Tensor,
    key_BGSD: Tensor,
    value_BGSD: Tensor,
    attention_mask: Tensor,
    scaling: float,
    window_mask: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """attention_mask: of the last tokens, the questions', over all; window_mask: of the context over itself, None:
    all that came before. Gives (B, S, H, D)."""
    groups = query_BHSD.shape[1] // key_BGSD.shape[1]
    key, value = key_BGSD.repeat_interleave(groups, 1), value_BGSD.repeat_interleave(groups, 1)
    begin = query_BHSD.shape[2] - attention_mask.shape[2]
    context = F.scaled_dot_product_attention(
        query_BHSD[:, :, :begin],
        key[:, :, :begin],
        value[:, :, :begin],
        attn_mask=None if window_mask is None else window_mask[:, None],
        is_causal=window_mask is None,
        scale=scaling,
    )
    asking = F.scaled_dot_product_attention(
        query_BHSD[:, :, begin:], key, value, attn_mask=attention_mask, scale=scaling
    )
    return torch.cat([context, asking], dim=2).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, lambda *_, **__: None)

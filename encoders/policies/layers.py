"""A Gemma layer in parts: some rows of a sequence through it, over keys and values that may be older."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

# Shapes: 1 sequence, R rows, E channels of a layer, H heads, K key/value heads, U slots held, D channels per head,
# Q queries.

KINDS = ("sdpa", "eager")


class QKV(NamedTuple):
    """Queries and keys, rotated, and values."""

    q_1HRD: Tensor
    k_1KRD: Tensor
    v_1KRD: Tensor


def project(layer: Any, x_1RE: Tensor, cos_1RD: Tensor, sin_1RD: Tensor) -> QKV:
    """Rows to queries, keys and values, at the rotary places given."""
    from transformers.models.gemma.modeling_gemma import apply_rotary_pos_emb

    attention = layer.self_attn
    a_1RE = layer.input_layernorm(x_1RE)
    split = (*a_1RE.shape[:-1], -1, attention.head_dim)
    q, k, v = (linear(a_1RE).view(split).transpose(1, 2) for linear in _linears(attention))
    q_1HRD, k_1KRD = apply_rotary_pos_emb(q, k, cos_1RD, sin_1RD)
    return QKV(q_1HRD, k_1KRD, v)


def finish(
    layer: Any, x_1RE: Tensor, q_1HRD: Tensor, k_1KUD: Tensor, v_1KUD: Tensor, mask_11RU: Tensor | None
) -> Tensor:
    """Attention over what is held, and the rest of the layer, as transformers computes them."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.gemma.modeling_gemma import eager_attention_forward

    attention = layer.self_attn
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
    o_1RHD, _ = attend(attention, q_1HRD, k_1KUD, v_1KUD, mask_11RU, dropout=0.0, scaling=attention.scaling)
    x_1RE = x_1RE + attention.o_proj(o_1RHD.reshape(*x_1RE.shape[:-1], -1).contiguous())
    return x_1RE + layer.mlp(layer.post_attention_layernorm(x_1RE))


def mask_for(kind: str, allowed_QU: Tensor, dtype: torch.dtype) -> Tensor:
    """Which queries see which slots, as that kind of attention takes it: bool for sdpa, added to scores for eager."""
    if kind == "sdpa":
        return allowed_QU[None, None]
    hidden = torch.finfo(dtype).min
    return torch.where(allowed_QU, 0.0, hidden).to(dtype)[None, None]


def shares(layer: Any, q_1HQD: Tensor, k_1KUD: Tensor, allowed_QU: Tensor) -> Tensor:
    """Attention weights, mean over heads: float32 (Q, U), each row sums to 1."""
    k_HUD = k_1KUD[0].float().repeat_interleave(layer.self_attn.num_key_value_groups, dim=0)
    scores_HQU = q_1HQD[0].float() @ k_HUD.transpose(1, 2) * layer.self_attn.scaling
    return scores_HQU.masked_fill(~allowed_QU, -torch.inf).softmax(dim=-1).mean(dim=0)


def check_kind(config: Any) -> str:
    """The kind of attention that a half computes with. Raises ValueError for one whose masks are not known here."""
    kind = str(config._attn_implementation)
    if kind not in KINDS:
        raise ValueError(
            f"a policy is driven with one of the attentions {', '.join(KINDS)}; got {kind!r}; "
            "load it with attn_implementation='sdpa'"
        )
    return kind


def _linears(attention: Any) -> tuple[Any, Any, Any]:
    return attention.q_proj, attention.k_proj, attention.v_proj

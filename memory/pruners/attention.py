"""How much attention tokens receive, from a few queries; keys and queries before rotation, so places do not count."""

from __future__ import annotations

from torch import Tensor

# Shapes: L layers, K key/value heads, T tokens, P probing tokens, D channels per head.


def received(q_LKPD: Tensor, k_LKTD: Tensor) -> Tensor:
    """softmax_T(q k / sqrt(D)), mean over probes, per layer and head: float32 (L, K, T)."""
    logits_LKPT = q_LKPD.to(k_LKTD.device).float() @ k_LKTD.float().mT / k_LKTD.shape[-1] ** 0.5
    attention_LKT: Tensor = logits_LKPT.softmax(-1).mean(2)
    return attention_LKT

"""Blocks with random contents, for the tests of memory."""

from __future__ import annotations

from typing import Any

import torch

from millpond.memory import KVBlock
from millpond.stream import Span

# Shapes: L layers, K key/value heads, T tokens, D channels per head.

SHAPE_LKD = (2, 2, 4)


def make_block(
    start_s: float = 0.0,
    *,
    num_tokens: int = 3,
    shape_LKD: tuple[int, int, int] = SHAPE_LKD,
    dtype: torch.dtype = torch.float32,
    last_s: float | None = None,
    **fields: Any,
) -> KVBlock:
    """A frame block of random keys and values showing `start_s` (to `last_s`); `fields` as KVBlock's."""
    num_layers, num_heads, head_dim = shape_LKD
    k_LKTD = torch.randn(num_layers, num_heads, num_tokens, head_dim).to(dtype)
    return KVBlock(
        **{
            "k_LKTD": k_LKTD,
            "v_LKTD": torch.randn_like(k_LKTD),
            "pos_3T": torch.arange(num_tokens).expand(3, -1).contiguous(),
            "advance": num_tokens,
            "span": Span(start_s, start_s if last_s is None else last_s),
            **fields,
        }
    )


def same(a: KVBlock, b: KVBlock) -> bool:
    """Whether two blocks agree in everything, bit for bit."""
    return (
        torch.equal(a.k_LKTD, b.k_LKTD)
        and torch.equal(a.v_LKTD, b.v_LKTD)
        and torch.equal(a.pos_3T, b.pos_3T)
        and (a.k_LKTD.dtype, a.advance, a.span, a.kind, a.id) == (b.k_LKTD.dtype, b.advance, b.span, b.kind, b.id)
    )

"""Packed blocks with random contents, for the tests of tiers and of the wire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from millpond.memory import PackedBlock
from millpond.memory.codecs.plain import PlainCodec

from .blocks import make_block


def packed_block(num_tokens: int = 3, **fields: Any) -> PackedBlock:
    """A block as the plain codec packs it; `fields` as PackedBlock's."""
    return replace(PlainCodec().pack(make_block(num_tokens=num_tokens)), **fields)


def block_of_bytes(num_bytes: int) -> PackedBlock:
    """A block whose buffers take exactly so many."""
    cut = num_bytes // 3
    parts = (torch.randint(256, (length,), dtype=torch.uint8) for length in (cut, num_bytes - cut))
    return packed_block(1, buffers=dict(zip(("k", "v"), parts, strict=True)))


def equal(a: PackedBlock | None, b: PackedBlock) -> bool:
    """Whether two agree in everything, bit for bit."""
    return (
        a is not None
        and facts(a) == facts(b)
        and a.buffers.keys() == b.buffers.keys()
        and all(
            (x := a.buffers[name]).dtype == (y := b.buffers[name]).dtype
            and x.shape == y.shape
            and torch.equal(x.contiguous().reshape(-1).view(torch.uint8), y.contiguous().reshape(-1).view(torch.uint8))
            for name in a.buffers
        )
    )


def facts(block: PackedBlock) -> tuple[object, ...]:
    """All that it says beside its buffers."""
    words = (block.num_before, block.num_after)
    return (block.codec, block.spec, block.num_tokens, block.advance, block.span, block.kind, block.id, *words)

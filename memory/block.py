"""What memory holds: the keys and values of one stretch of context, with its time and its place."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NewType

import torch
from torch import Tensor

from ..stream import Span

# Shapes: L layers, K key/value heads, T tokens, P probing tokens, D channels per head.

BlockId = NewType("BlockId", int)
_ids = itertools.count()


def next_block_id() -> BlockId:
    """A number that no other block of this process has; later blocks have larger ones."""
    return BlockId(next(_ids))


def skip_block_ids(up_to: BlockId) -> None:
    """From now on `next_block_id` gives larger numbers only: blocks up to that one came from elsewhere."""
    global _ids
    _ids = itertools.count(max(next(_ids), up_to + 1))


@dataclass(frozen=True, slots=True)
class KVSpec:
    """Made by a family, read by memory and the wire: the shape of one token's keys and values."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_kv_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")
        if not self.dtype.is_floating_point:
            raise ValueError(f"keys and values need a floating-point dtype; got {self.dtype}")

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's keys and values over all layers, uncompressed."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class KVBlock:
    """Made by `VideoLLM.read`, pruners, `Codec.unpack`; read by codecs, memory, contexts; written by nobody.

    k_LKTD: keys *before* rotary position embedding.
    v_LKTD: values.
    pos_3T: int64 positions (time, height, width) relative to the start of the block; families with 1-D
        positions have three equal rows.
    advance: how many positions the block takes: what follows it starts `advance` further on.
    span: the stream time that it shows.
    kind: "frame" for what was seen, "text" for prompts; only frames are evicted and recalled.
    num_before, num_after: how many of its tokens are words, before the visual ones and after them; the rest is visual.
    q_LKPD: queries before rotation of a few of its tokens, the last one among them, averaged over the query heads of
        each key/value head: what pruners and codecs may measure attention with. None where nobody asked for them;
        never kept at rest.
    """

    k_LKTD: Tensor
    v_LKTD: Tensor
    pos_3T: Tensor
    advance: int
    span: Span
    kind: Literal["frame", "text"] = "frame"
    id: BlockId = field(default_factory=next_block_id)
    num_before: int = 0
    num_after: int = 0
    q_LKPD: Tensor | None = None

    def __post_init__(self) -> None:
        k, v, pos = self.k_LKTD, self.v_LKTD, self.pos_3T
        if k.ndim != 4 or k.shape != v.shape or k.dtype != v.dtype:
            raise ValueError(
                "keys and values must be two tensors of one dtype and shape (layers, kv heads, tokens, "
                f"channels); got {tuple(k.shape)} {k.dtype} and {tuple(v.shape)} {v.dtype}"
            )
        if k.shape[2] < 1:
            raise ValueError(f"a block holds at least one token; got keys of shape {tuple(k.shape)}")
        if tuple(pos.shape) != (3, k.shape[2]) or pos.dtype != torch.int64:
            raise ValueError(f"pos_3T must be int64 of shape (3, {k.shape[2]}); got {pos.dtype} {tuple(pos.shape)}")
        if self.advance < 0:
            raise ValueError(f"advance must not be negative; got {self.advance}")
        _check_words(self.num_before, self.num_after, self.num_tokens)
        if self.q_LKPD is not None and (
            self.q_LKPD.ndim != 4 or self.q_LKPD.shape[:2] != k.shape[:2] or self.q_LKPD.shape[3] != k.shape[3]
        ):
            raise ValueError(
                f"q_LKPD must have the layers, kv heads and channels of keys of shape {tuple(k.shape)}; "
                f"got {tuple(self.q_LKPD.shape)}"
            )

    @property
    def visual(self) -> slice:
        """Where its visual tokens are."""
        return slice(self.num_before, self.num_tokens - self.num_after)

    @property
    def num_tokens(self) -> int:
        return int(self.k_LKTD.shape[2])

    @property
    def spec(self) -> KVSpec:
        num_layers, num_kv_heads, _, head_dim = self.k_LKTD.shape
        return KVSpec(num_layers, num_kv_heads, head_dim, self.k_LKTD.dtype)

    @property
    def num_bytes(self) -> int:
        """What the process holds for it: keys, values, positions and queries."""
        return sum(t.numel() * t.element_size() for t in self.tensors)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that it holds."""
        held = (self.k_LKTD, self.v_LKTD, self.pos_3T)
        return held if self.q_LKPD is None else (*held, self.q_LKPD)

    def __repr__(self) -> str:
        return f"KVBlock({self.kind} {self.id}, {self.num_tokens} tokens, {self.span})"


@dataclass(frozen=True, slots=True, eq=False)
class PackedBlock:
    """Made by a codec, read by that codec and by tiers: a block at rest.

    buffers: everything that is needed to unpack it, scales and positions included.
    """

    codec: str
    spec: KVSpec
    buffers: Mapping[str, Tensor]
    num_tokens: int
    advance: int
    span: Span
    kind: Literal["frame", "text"]
    id: BlockId
    num_before: int = 0
    num_after: int = 0

    def __post_init__(self) -> None:
        if self.num_tokens < 1:
            raise ValueError(f"a packed block holds at least one token; got {self.num_tokens}")
        _check_words(self.num_before, self.num_after, self.num_tokens)

    @property
    def num_bytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self.buffers.values())

    def __repr__(self) -> str:
        sizes = f"{self.num_tokens} tokens, {self.num_bytes} bytes"
        return f"PackedBlock({self.codec} {self.id}, {sizes}, {self.span})"


def _check_words(num_before: int, num_after: int, num_tokens: int) -> None:
    if num_before < 0 or num_after < 0 or num_before + num_after > num_tokens:
        raise ValueError(
            f"words before and after the visual tokens must fit into {num_tokens} tokens; got {num_before} and "
            f"{num_after}"
        )

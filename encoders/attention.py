"""The one attention function: packed rows, keys kept before rotation, each row over its own context.

Registered with transformers' attention interface as "millpond"; no model class is patched or copied. A model
that uses it is called with one packed row [1, T, D] and a `PackedCall` as the keyword argument `millpond`.
There are two ways in:

* Blocks or queries are wanted: the model is called with all position ids zero. Rotation by zero is the
  identity, so queries and keys arrive un-rotated (times the rotary module's own scale, which is divided out),
  are kept, and are rotated here, by the model's own rotary module, to the positions they stand at.
* Only logits are wanted: the model is called with true position ids and rotates itself, at no cost.

No mask function is registered with it, for which transformers makes no mask: causality is kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from ..memory import KVSpec
from .context import Context, rotate

# Shapes: L layers, K key/value heads, H query heads, G query heads per key/value head, T tokens of the packed
# row, P probing tokens of it, Q queries of one row or tile, S tokens that they attend to, C capacity, D channels
# per head.

NAME = "millpond"
# Queries of one tile: what a mask costs is this times the context's length, however long a read is.
_TILE_TOKENS = 512
# Up to this many elements a mask is repeated for each group of query heads, so that no key has to be.
_FOLD_ELEMENTS = 4 * 2**20
# Rows of a mask start on multiples of this, which the memory-efficient CUDA kernel asks for.
_MASK_ALIGN = 16
# Rotary modules that choose their frequencies by the length seen so far: keys kept rotated would not agree.
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


class Share(NamedTuple):
    """One context's share of a packed row: queries [start, stop)."""

    context: Context
    start: int
    stop: int


class Room(NamedTuple):
    """Where one row's keys and values go, and what it attends to: a view (1, K, tokens, D) for each layer.

    Taken once for all layers, because in a step of one word such slicing is what there is to save.
    """

    new_k: tuple[Tensor, ...]
    new_v: tuple[Tensor, ...]
    all_k: tuple[Tensor, ...]
    all_v: tuple[Tensor, ...]


class Rotation(NamedTuple):
    """cos and sin of the packed row's positions by the model's own rotary module, and that module's scale."""

    cos_TD: Tensor
    sin_TD: Tensor
    scale: float


@dataclass(slots=True, eq=False)
class PackedCall:
    """Made for one forward pass, read and written by the attention function in each layer.

    Making one makes room in the contexts.

    rotation: None where the model itself rotates.
    keep: what to keep un-rotated: "keys" (and values), "queries" (their means), or "nothing".
    probes: with "keys", tokens of the packed row whose queries are kept as well.
    """

    shares: Sequence[Share]
    spec: KVSpec
    rotation: Rotation | None = None
    keep: Literal["nothing", "keys", "queries"] = "nothing"
    probes: tuple[int, ...] = ()
    k_LKTD: Tensor | None = None
    v_LKTD: Tensor | None = None
    query_LKD: Tensor | None = None
    q_LKPD: Tensor | None = None
    rooms: tuple[Room, ...] = ()
    _masks: dict[tuple[int, int, int], Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.shares:
            raise ValueError("a packed call needs at least one row; got none")
        if len({id(share.context) for share in self.shares}) < len(self.shares):
            raise ValueError("one context stands in two rows of one call; put a session's parts into one row, in order")
        if self.keep != "nothing" and self.rotation is None:
            raise ValueError(f"keeping {self.keep} needs a rotation: the model must be called with zero positions")
        spec, device = self.spec, self.shares[0].context.device
        if self.keep == "keys":
            shape = (spec.num_layers, spec.num_kv_heads, self.shares[-1].stop, spec.head_dim)
            self.k_LKTD = torch.empty(shape, dtype=spec.dtype, device=device)
            self.v_LKTD = torch.empty(shape, dtype=spec.dtype, device=device)
            if self.probes:
                shape = (spec.num_layers, spec.num_kv_heads, len(self.probes), spec.head_dim)
                self.q_LKPD = torch.empty(shape, dtype=spec.dtype, device=device)
        elif self.keep == "queries":
            shape = (spec.num_layers, spec.num_kv_heads, spec.head_dim)
            self.query_LKD = torch.empty(shape, dtype=torch.float32, device=device)
        self.rooms = tuple(_make_room(share) for share in self.shares)

    def kept(self) -> Kept:
        """Keys before rotation and values of all tokens of the packed row."""
        if self.k_LKTD is None or self.v_LKTD is None:
            raise ValueError(f"this call kept {self.keep}, not keys")
        return Kept(self.k_LKTD, self.v_LKTD)

    def probed(self, probes: Sequence[int]) -> Tensor | None:
        """The kept queries of these tokens, with memory of their own; None for none."""
        if self.q_LKPD is None or not probes:
            return None
        return self.q_LKPD[:, :, [self.probes.index(probe) for probe in probes]]

    def mean_query(self) -> Tensor:
        """Mean of the queries before rotation, per layer and key/value head."""
        if self.query_LKD is None:
            raise ValueError(f"this call kept {self.keep}, not queries")
        return self.query_LKD

    def mask(self, num_queries: int, num_seen: int, num_repeats: int, like: Tensor) -> Tensor:
        """Lower-right causal mask to add, made once for all layers, repeated for each head of a group."""
        key = (num_queries, num_seen, num_repeats)
        if key not in self._masks:
            stride = -(-num_seen // _MASK_ALIGN) * _MASK_ALIGN
            mask_QS = torch.full((num_queries, stride), -torch.inf, dtype=like.dtype, device=like.device)
            mask_QS = mask_QS.triu_(num_seen - num_queries + 1)
            self._masks[key] = mask_QS.repeat(num_repeats, 1)[:, :num_seen]
        return self._masks[key]


def _make_room(share: Share) -> Room:
    """Makes room in the context for its share of the row; its tokens count only when the call is over."""
    context, past = share.context, share.context.length
    end = past + share.stop - share.start
    context.reserve(end - past)
    k_L1KCD, v_L1KCD = context.k_LKCD[:, None], context.v_LKCD[:, None]
    return Room(
        k_L1KCD[..., past:end, :].unbind(0),
        v_L1KCD[..., past:end, :].unbind(0),
        k_L1KCD[..., :end, :].unbind(0),
        v_L1KCD[..., :end, :].unbind(0),
    )


class Kept(NamedTuple):
    """What a call kept un-rotated, over the whole packed row."""

    k_LKTD: Tensor
    v_LKTD: Tensor


def millpond_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    millpond: PackedCall | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers' attention modules call: appends to the contexts, attends over them.

    query: (1, H, T, D); key, value: (1, K, T, D). Returns: (1, T, H, D), and no weights.
    """
    if millpond is None or attention_mask is not None:
        raise ValueError(
            "a model whose attention is 'millpond' is read through VideoLLM.read and step, which pass it a "
            "PackedCall; to call it by itself, first set_attn_implementation('sdpa')"
        )
    layer: int = module.layer_idx  # type: ignore[assignment]
    if millpond.rotation is not None:
        cos_TD, sin_TD, scale = millpond.rotation
        if scale != 1.0:
            query, key = query / scale, key / scale
        if millpond.k_LKTD is not None and millpond.v_LKTD is not None:
            millpond.k_LKTD[layer] = key[0]
            millpond.v_LKTD[layer] = value[0]
            if millpond.q_LKPD is not None:
                probing = query[0][:, millpond.probes]
                millpond.q_LKPD[layer] = probing.unflatten(0, (key.shape[1], -1)).mean(dim=1)
        elif millpond.query_LKD is not None:
            millpond.query_LKD[layer] = query[0].float().mean(dim=1).unflatten(0, (key.shape[1], -1)).mean(dim=1)
        query, key = rotate(query, cos_TD, sin_TD), rotate(key, cos_TD, sin_TD)
    outs = []
    for (context, start, stop), room in zip(millpond.shares, millpond.rooms, strict=True):
        if len(millpond.shares) > 1:
            q_1HQD, k_1KQD, v_1KQD = query[:, :, start:stop], key[:, :, start:stop], value[:, :, start:stop]
        else:
            q_1HQD, k_1KQD, v_1KQD = query, key, value
        room.new_k[layer].copy_(k_1KQD)
        room.new_v[layer].copy_(v_1KQD)
        outs.append(_attend(q_1HQD, room.all_k[layer], room.all_v[layer], context.length, scaling, millpond))
    return (outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)), None


def _attend(
    q_1HQD: Tensor, k_1KSD: Tensor, v_1KSD: Tensor, past: int, scaling: float | None, call: PackedCall
) -> Tensor:
    """One row's causal attention. Returns: (1, Q, H, D)."""
    num_heads, num_queries, num_channels = q_1HQD.shape[1:]
    num_kv_heads = k_1KSD.shape[1]
    if num_queries == 1:
        # Query heads that share a key stand as its queries: no key is repeated, and there is nothing to mask.
        q_1KGD = q_1HQD.reshape(1, num_kv_heads, -1, num_channels)
        return scaled_dot_product_attention(q_1KGD, k_1KSD, v_1KSD, scale=scaling).reshape(
            1, 1, num_heads, num_channels
        )
    if past == 0:
        out = scaled_dot_product_attention(
            q_1HQD, k_1KSD, v_1KSD, is_causal=True, scale=scaling, enable_gqa=num_heads != num_kv_heads
        )
        return out.transpose(1, 2)
    # Tiles are counted from the end, so that their ends, and so the masks' rows, stay aligned.
    outs = []
    for stop in range(num_queries % _TILE_TOKENS or _TILE_TOKENS, num_queries + 1, _TILE_TOKENS):
        start = max(0, stop - _TILE_TOKENS)
        seen = past + stop
        outs.append(_attend_masked(q_1HQD[:, :, start:stop], k_1KSD[:, :, :seen], v_1KSD[:, :, :seen], scaling, call))
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)


def _attend_masked(q_1HQD: Tensor, k_1KSD: Tensor, v_1KSD: Tensor, scaling: float | None, call: PackedCall) -> Tensor:
    """Attention of the last Q of S tokens. Returns: (1, Q, H, D)."""
    num_heads, num_queries, num_channels = q_1HQD.shape[1:]
    num_kv_heads, num_seen = k_1KSD.shape[1:3]
    group = num_heads // num_kv_heads
    # CUDA's kernels take a mask only with as many key heads as query heads, which folding brings about.
    if q_1HQD.is_cuda or group * num_queries * num_seen <= _FOLD_ELEMENTS:
        mask = call.mask(num_queries, num_seen, group, q_1HQD)
        q_1KQD = q_1HQD.reshape(1, num_kv_heads, group * num_queries, num_channels)
        out = scaled_dot_product_attention(q_1KQD, k_1KSD, v_1KSD, attn_mask=mask[None, None], scale=scaling)
        return out.reshape(1, num_heads, num_queries, num_channels).transpose(1, 2)
    mask = call.mask(num_queries, num_seen, 1, q_1HQD)
    out = scaled_dot_product_attention(
        q_1HQD, k_1KSD, v_1KSD, attn_mask=mask[None, None], scale=scaling, enable_gqa=group > 1
    )
    return out.transpose(1, 2)


def attend_with_millpond(text_model: PreTrainedModel) -> None:
    """Switches a text decoder, and nothing around it, to this attention."""
    text_model.set_attn_implementation(NAME)


def refuse_unsupported(config: Any) -> None:
    """Raises ValueError for a text decoder whose attention this one would not reproduce."""
    layer_types = getattr(config, "layer_types", None) or ()
    other = sorted(set(layer_types) - {"full_attention"})
    if other or (not layer_types and getattr(config, "use_sliding_window", False)):
        raise ValueError(
            f"the text model has layers of {', '.join(other) or 'sliding_attention'}, and only full "
            "attention is supported; take a checkpoint with use_sliding_window off"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    rope_type = rope.get("rope_type", "default")
    if rope_type in _LENGTH_DEPENDENT_ROPE:
        raise ValueError(
            f"the text model's rotary embedding is {rope_type!r}, whose frequencies change with the length "
            "seen so far, and keys kept in memory would not agree; take a checkpoint with default, linear, "
            "llama3 or yarn scaling"
        )


AttentionInterface.register(NAME, millpond_attention)

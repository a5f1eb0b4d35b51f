"""Blocks that are put together by layer: each layer attends to the blocks that it chose itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch

from ..stream import Span
from .block import BlockId, KVBlock
from .index import Scored

# Shapes: L layers, K key/value heads, T tokens, D channels per head.

T = TypeVar("T")


class ByLayer(NamedTuple):
    """What `compose` made. blocks: in order of time. scores: one for each, the mean of what its parts scored.

    spans: those of all blocks that a layer uses, in order of time; what a composite's own span covers may be far more.
    num_missed: how many different blocks were chosen but are not there, or have another number of tokens.
    """

    blocks: tuple[KVBlock, ...]
    scores: tuple[float, ...]
    spans: tuple[Span, ...]
    num_missed: int


def compose(chosen: Sequence[Sequence[Scored]], blocks: Mapping[BlockId, KVBlock], num_blocks: int) -> ByLayer:
    """Composite blocks: slot j holds in every layer the j-th of the blocks that this layer chose, in order of time.

        chosen by layer 0: a c d        slot 0: a b     slot 1: c c     slot 2: d e     (layer 0, layer 1)
        chosen by layer 1: b c e

    A block has one number of tokens for all layers, so only chosen blocks of the commonest number take part; a layer
    that has more of them than another leaves its worst out. Positions, words and advance of a slot are those of the
    block that most layers have there (the earliest of several), its span covers all that are there.

    chosen: for each layer its blocks, best first, as `Index.best_by_layer` gives them.
    blocks: those of them that are there, unpacked.
    num_blocks: how many slots at most.
    """
    wanted = list(dict.fromkeys(scored.id for layer in chosen for scored in layer))
    there = [blocks[block_id] for block_id in wanted if block_id in blocks]
    for block in there:
        if block.k_LKTD.shape[0] != len(chosen):
            raise ValueError(f"every layer of a block chooses for itself; got {len(chosen)} choices for {block!r}")
    num_tokens = _commonest([block.num_tokens for block in there])
    fitting = {block.id: block for block in there if block.num_tokens == num_tokens}
    by_layer = [[scored for scored in layer if scored.id in fitting] for layer in chosen]
    num_slots = min((num_blocks, *map(len, by_layer))) if by_layer else 0

    def when(scored: Scored) -> tuple[Span, BlockId]:
        return fitting[scored.id].span, scored.id

    in_time = [sorted(layer[:num_slots], key=when) for layer in by_layer]
    slots = [[layer[j] for layer in in_time] for j in range(num_slots)]
    used = {scored.id: fitting[scored.id].span for slot in slots for scored in slot}
    return ByLayer(
        blocks=tuple(_composite([fitting[scored.id] for scored in slot]) for slot in slots),
        scores=tuple(sum(scored.score for scored in slot) / len(slot) for slot in slots),
        spans=tuple(sorted(used.values())),
        num_missed=len(wanted) - len(fitting),
    )


def _composite(parts: Sequence[KVBlock]) -> KVBlock:
    """A block whose layer l is layer l of the l-th part."""
    in_time = sorted(parts, key=lambda part: (part.span, part.id))
    model_id = _commonest([part.id for part in in_time])
    model = next(part for part in in_time if part.id == model_id)
    return KVBlock(
        k_LKTD=torch.stack([part.k_LKTD[layer] for layer, part in enumerate(parts)]),
        v_LKTD=torch.stack([part.v_LKTD[layer] for layer, part in enumerate(parts)]),
        pos_3T=model.pos_3T,
        advance=model.advance,
        span=Span(min(part.span.start_s for part in parts), max(part.span.end_s for part in parts)),
        num_before=model.num_before,
        num_after=model.num_after,
    )


def _commonest(values: Sequence[T]) -> T | None:
    """What is there most often; the first of several. None where there is nothing."""
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else None

"""Blocks put together by layer: each layer has the keys and values of the blocks that it chose, in order of time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory import BlockId, KVBlock
from millpond.memory.by_layer import compose
from millpond.memory.index import Scored
from millpond.memory.retrievers import PerLayerRetriever
from millpond.stream import Span

from .blocks import SHAPE_LKD, make_block

# Shapes: L layers, K key/value heads, T tokens, D channels per head.


def choose(*layers: list[KVBlock]) -> list[list[Scored]]:
    """Best first, scoring 1, 1/2, 1/3 ..."""
    return [[Scored(block.id, 1 / (1 + i)) for i, block in enumerate(layer)] for layer in layers]


def of(blocks: list[KVBlock]) -> dict[BlockId, KVBlock]:
    return {block.id: block for block in blocks}


@given(
    tokens=st.lists(st.integers(1, 3), min_size=1, max_size=12),
    chosen=st.lists(st.lists(st.integers(0, 11), unique=True, max_size=8), min_size=3, max_size=3),
    num_blocks=st.integers(0, 8),
    lost=st.sets(st.integers(0, 11)),
)
def test_every_layer_has_its_own_choice_in_order_of_time(
    tokens: list[int], chosen: list[list[int]], num_blocks: int, lost: set[int]
) -> None:
    blocks = [make_block(float(i), num_tokens=n, shape_LKD=(3, 2, 4)) for i, n in enumerate(tokens)]
    layers = [[blocks[i] for i in layer if i < len(blocks)] for layer in chosen]
    there = of([block for i, block in enumerate(blocks) if i not in lost])
    made = compose(choose(*layers), there, num_blocks)

    num_tokens = {block.num_tokens for block in made.blocks}
    assert len(num_tokens) <= 1
    wanted = {block.id for layer in layers for block in layer}
    assert 0 <= made.num_missed <= len(wanted)
    assert len(made.blocks) == len(made.scores) <= num_blocks
    starts_s = [block.span.start_s for block in made.blocks]
    assert starts_s == sorted(starts_s)
    assert len({block.id for block in made.blocks} | set(there)) == len(made.blocks) + len(there)
    used = set()
    for at, layer in enumerate(layers):
        fitting = [block for block in layer if block.id in there and {block.num_tokens} == num_tokens]
        best = sorted(fitting[: len(made.blocks)], key=lambda block: block.span)
        assert len(best) == len(made.blocks)
        for block, part in zip(made.blocks, best, strict=True):
            assert torch.equal(block.k_LKTD[at], part.k_LKTD[at])
            assert torch.equal(block.v_LKTD[at], part.v_LKTD[at])
            assert block.span.start_s <= part.span.start_s and part.span.end_s <= block.span.end_s
            used.add(part.span)
    assert list(made.spans) == sorted(used)


def test_layers_that_agree_give_the_blocks_themselves() -> None:
    blocks = [make_block(float(i), num_before=1, num_after=1, advance=9) for i in range(5)]
    made = compose(choose(blocks[3:], blocks[:2:-1]), of(blocks), 8)
    for block, part in zip(made.blocks, blocks[3:], strict=True):
        assert torch.equal(block.k_LKTD, part.k_LKTD) and torch.equal(block.v_LKTD, part.v_LKTD)
        assert torch.equal(block.pos_3T, part.pos_3T)
        assert (block.advance, block.span, block.num_before, block.num_after) == (9, part.span, 1, 1)
    assert made.scores == (0.75, 0.75)
    assert made.num_missed == 0


def test_positions_are_those_that_most_layers_have() -> None:
    settings: list[dict[str, Any]] = [{"advance": 5}, {"advance": 6, "num_before": 1}, {"advance": 7}]
    a, b, c = (make_block(float(i), shape_LKD=(3, 2, 4), **one) for i, one in enumerate(settings))
    (most,) = compose(choose([b], [c], [b]), of([a, b, c]), 1).blocks
    assert (most.advance, most.num_before, most.span) == (6, 1, Span(1.0, 2.0))
    (earliest,) = compose(choose([c], [b], [a]), of([a, b, c]), 1).blocks
    assert (earliest.advance, earliest.span) == (5, Span(0.0, 2.0))


def test_blocks_of_an_uncommon_length_are_left_out_and_counted() -> None:
    blocks = [make_block(float(i), num_tokens=n) for i, n in enumerate((3, 3, 5, 3))]
    made = compose(choose([blocks[2], blocks[0], blocks[1]], [blocks[3], blocks[0]]), of(blocks), 8)
    assert [block.num_tokens for block in made.blocks] == [3, 3]
    assert made.num_missed == 1
    assert made.spans == tuple(blocks[i].span for i in (0, 1, 3))
    # The layer with more of them leaves its worst out.
    made = compose(choose([blocks[3], blocks[0], blocks[1]], [blocks[1]]), of(blocks), 8)
    assert torch.equal(made.blocks[0].k_LKTD[0], blocks[3].k_LKTD[0])
    assert made.spans == (blocks[1].span, blocks[3].span)


def test_nothing_comes_of_nothing() -> None:
    block = make_block()
    for chosen, there in (([], {}), ([[], []], {}), (choose([block], [block]), {}), (choose([block], []), of([block]))):
        made = compose(chosen, there, 8)
        assert (made.blocks, made.scores, made.spans) == ((), (), ())
    assert compose(choose([block], [block]), {}, 8).num_missed == 1


def test_refuses_choices_of_another_model() -> None:
    block = make_block()
    with pytest.raises(ValueError, match="got 3 choices for KVBlock"):
        compose(choose([block], [block], [block]), of([block]), 8)


def test_what_an_index_chooses_can_be_put_together() -> None:
    index, blocks = PerLayerRetriever("cosine").start(), [make_block(float(i)) for i in range(30)]
    for block in blocks:
        index.add(block.id, index.describe(block), block.span.start_s)
    query_LKD = torch.stack([blocks[21].k_LKTD[0].mean(1), blocks[4].k_LKTD[1].mean(1)])
    (made,) = compose(index.best_by_layer(query_LKD, 1), of(blocks), 1).blocks
    assert query_LKD.shape == SHAPE_LKD
    assert torch.equal(made.k_LKTD[0], blocks[21].k_LKTD[0])
    assert torch.equal(made.k_LKTD[1], blocks[4].k_LKTD[1])

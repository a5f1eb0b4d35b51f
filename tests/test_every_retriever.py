"""What every retriever promises. A new row needs a line in SETTINGS, nothing else."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.memory import RETRIEVERS, BlockId, Retriever
from millpond.memory.index import Index
from millpond.memory.retrievers import (
    ByKeyAndNoveltyRetriever,
    ByKeyRetriever,
    ByNoveltyRetriever,
    PerLayerRetriever,
    RecentRetriever,
)

from .blocks import SHAPE_LKD, make_block
from .method_docs import missing_from_docs

# Shapes: L layers, K key/value heads, T tokens, D channels per head.

SETTINGS: dict[str, list[Retriever]] = {
    "by_key": [
        ByKeyRetriever(),
        ByKeyRetriever(centred=False, detrend=False),
        ByKeyRetriever(max_layers=1, detrend=False),
    ],
    "by_key_and_novelty": [ByKeyAndNoveltyRetriever(), ByKeyAndNoveltyRetriever(max_layers=1)],
    "by_novelty": [ByNoveltyRetriever(), ByNoveltyRetriever(max_layers=1)],
    "per_layer": [PerLayerRetriever(), PerLayerRetriever("cosine")],
    "recent": [RecentRetriever()],
}
EVERY = [pytest.param(one, id=f"{name}-{i}") for name in SETTINGS for i, one in enumerate(SETTINGS[name])]


def test_every_row_has_settings() -> None:
    assert set(SETTINGS) == set(RETRIEVERS)
    for name, retrievers in SETTINGS.items():
        assert all(type(retriever) is RETRIEVERS[name] for retriever in retrievers)


@pytest.mark.parametrize("name", RETRIEVERS)
def test_says_where_it_comes_from(name: str) -> None:
    assert missing_from_docs(RETRIEVERS[name]) == []


@pytest.mark.parametrize("retriever", EVERY)
@given(
    steps=st.lists(st.one_of(st.just("add"), st.integers(0, 60)), max_size=120),
    num_blocks=st.integers(0, 30),
    data=st.data(),
)
def test_books_balance_and_answers_name_what_is_here(
    retriever: Retriever, steps: list[int | str], num_blocks: int, data: st.DataObject
) -> None:
    index = retriever.start()
    here: list[BlockId] = []
    row = None
    for at, step in enumerate(steps):
        if step == "add":
            block = make_block(float(at))
            foretold_bytes = index.num_bytes_with(block.spec)
            row = index.describe(block, row, make_block(at + 1.0))
            assert index.accepts(row, block.spec)
            index.add(block.id, row, block.span.start_s)
            here.append(block.id)
            assert index.num_bytes == foretold_bytes
        elif here:
            index.drop(here.pop(int(step) % len(here)))
        index.check()
        assert set(index.ids) == set(here)
    query_LKD = torch.randn(SHAPE_LKD)
    among = data.draw(st.one_of(st.none(), st.lists(st.sampled_from(here), unique=True))) if here else None
    before_bytes = index.num_bytes
    found = index.best(query_LKD, num_blocks, among)
    by_layer = index.best_by_layer(query_LKD, num_blocks, among)
    assert index.best(query_LKD, num_blocks, among) == found
    assert index.best_by_layer(query_LKD, num_blocks, among) == by_layer
    assert index.num_bytes == before_bytes
    assert len(by_layer) == len(query_LKD)
    allowed = set(here if among is None else among)
    for choice in (found, *by_layer):
        ids = [scored.id for scored in choice]
        assert len(set(ids)) == len(ids) == min(num_blocks, len(allowed))
        assert set(ids) <= allowed
        scores = [scored.score for scored in choice]
        assert scores == sorted(scores, reverse=True)
    for block_id in here:
        index.drop(block_id)
    index.check()
    assert index.num_bytes == 0
    assert index.best(query_LKD, num_blocks) == []
    assert index.best_by_layer(query_LKD, num_blocks) == [[]] * len(query_LKD)


@pytest.mark.parametrize("retriever", EVERY)
def test_refuses_a_block_twice_and_keeps_no_tensor_of_it(retriever: Retriever) -> None:
    index, block = retriever.start(), make_block()
    row = index.describe(block)
    index.add(block.id, row, 0.0)
    with pytest.raises(ValueError, match=f"block {block.id} is in this index already"):
        index.add(block.id, row, 0.0)
    index.check()
    held = [weakref.ref(block.k_LKTD), weakref.ref(block.v_LKTD)]
    if row is not None:
        held.append(weakref.ref(row))
        assert row.untyped_storage().nbytes() == row.nbytes and row.device.type == "cpu"
    del block, row
    gc.collect()
    assert [ref() for ref in held] == [None] * len(held)


@pytest.mark.parametrize("retriever", EVERY)
@settings(max_examples=20)
@given(order=st.permutations(range(40)), num_gone=st.integers(0, 60), same_keys=st.booleans())
def test_what_came_and_went_before_leaves_no_trace(
    retriever: Retriever, order: list[int], num_gone: int, same_keys: bool
) -> None:
    """As after a restart: the same blocks, taken in another order, give the same answers to the bit."""
    first = make_block()
    blocks = [make_block(0.5 * i, **({"k_LKTD": first.k_LKTD} if same_keys else {})) for i in range(40)]
    lived, opened = retriever.start(), retriever.start()
    gone = [make_block(-1.0 - i) for i in range(num_gone)]
    row, row_by_id = None, {}
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        row = row_by_id[block.id] = lived.describe(block, row, after)
    for i, block in enumerate([*gone, *blocks]):
        lived.add(block.id, row_by_id.get(block.id, lived.describe(block)), block.span.start_s)
        if i >= 10 and gone:
            lived.drop(gone.pop(0).id)
    for block in gone:
        lived.drop(block.id)
    for at in order:
        opened.add(blocks[at].id, row_by_id[blocks[at].id], blocks[at].span.start_s)
    query_LKD = torch.randn(SHAPE_LKD)
    assert lived.best(query_LKD, 40) == opened.best(query_LKD, 40)
    assert lived.best_by_layer(query_LKD, 7) == opened.best_by_layer(query_LKD, 7)
    if same_keys:  # what fits alike: the newer first
        alike = retriever.start()
        for block in blocks[:20]:
            alike.add(block.id, alike.describe(block), block.span.start_s)
        assert [scored.id for scored in alike.best(query_LKD, 20)] == [block.id for block in blocks[19::-1]]


@pytest.mark.parametrize("retriever", EVERY)
def test_rows_can_be_made_and_dropped_in_any_mode(retriever: Retriever) -> None:
    index: Index = retriever.start()
    with torch.inference_mode():
        blocks = [make_block(float(i)) for i in range(20)]
        for block in blocks[:10]:
            index.add(block.id, index.describe(block), block.span.start_s)
    for block in blocks[10:]:
        index.add(block.id, index.describe(block), block.span.start_s)
    for block in blocks[:15]:
        index.drop(block.id)
    index.check()
    trained = make_block(50.0, k_LKTD=torch.randn(2, 2, 3, 4, requires_grad=True), v_LKTD=torch.randn(2, 2, 3, 4))
    index.add(trained.id, index.describe(trained), 50.0)
    assert len(index.best(torch.randn(SHAPE_LKD, requires_grad=True), 9)) == 6


@pytest.mark.parametrize("retriever", EVERY)
def test_refuses_a_row_that_it_did_not_make(retriever: Retriever) -> None:
    index, block = retriever.start(), make_block()
    row = index.describe(block)
    if row is None:
        return
    others = [None, row.float(), row[:, :0], row[:, :1], row.flatten(), torch.cat([row, row])]
    others = [one for one in others if one is None or (one.dtype, one.shape) != (row.dtype, row.shape)]
    index.add(block.id, row, 0.0)
    for i, other in enumerate(others):
        assert not index.accepts(other, block.spec)
        with pytest.raises(ValueError, match="got "):
            index.add(BlockId(10**6 + i), other, 0.0)
    with pytest.raises(ValueError, match="must start at a finite second; got nan"):
        index.add(BlockId(10**7), row, float("nan"))
    index.check()
    assert set(index.ids) == {block.id}


def test_rows_of_one_retriever_are_not_taken_for_anothers() -> None:
    block = make_block()
    by_key, per_layer = ByKeyRetriever().start(), PerLayerRetriever().start()
    assert not by_key.accepts(per_layer.describe(block), block.spec)
    assert not per_layer.accepts(by_key.describe(block), block.spec)
    tall = make_block(shape_LKD=(8, 2, 4))
    assert not by_key.accepts(ByKeyRetriever(max_layers=2).start().describe(tall), tall.spec)
    assert RecentRetriever().start().accepts(by_key.describe(block), block.spec)  # it needs none, and minds none


@pytest.mark.parametrize("retriever", EVERY)
def test_words_around_the_picture_do_not_count(retriever: Retriever) -> None:
    index = retriever.start()
    block = make_block(num_tokens=6, num_before=2, num_after=1)
    bare = dataclasses.replace(
        block,
        k_LKTD=block.k_LKTD[:, :, 2:5],
        v_LKTD=block.v_LKTD[:, :, 2:5],
        pos_3T=block.pos_3T[:, 2:5],
        num_before=0,
        num_after=0,
    )
    row = index.describe(block)
    if row is not None:
        assert torch.equal(row, index.describe(bare))  # type: ignore[arg-type]
        words = dataclasses.replace(block, num_before=3, num_after=3)  # nothing else in it
        assert torch.equal(index.describe(words), index.describe(dataclasses.replace(block, num_before=0, num_after=0)))


def test_recent_is_the_newest_first() -> None:
    index = RecentRetriever().start()
    blocks = [make_block(float(i)) for i in range(5)]
    for block in (blocks[3], *blocks[:3], blocks[4]):
        index.add(block.id, None, block.span.start_s)
    index.drop(blocks[4].id)
    assert [scored.id for scored in index.best(None, 2)] == [blocks[3].id, blocks[2].id]
    among = [blocks[0].id, blocks[2].id]
    assert [scored.id for scored in index.best(None, 9, among)] == among[::-1]


def test_retrievers_refuse_settings() -> None:
    for retriever in (ByKeyRetriever, ByNoveltyRetriever, ByKeyAndNoveltyRetriever):
        with pytest.raises(ValueError, match="max_layers must be at least 1; got 0"):
            retriever(max_layers=0)
    with pytest.raises(ValueError, match="similarity must be 'dot' or 'cosine'; got 'l2'"):
        PerLayerRetriever("l2")  # type: ignore[arg-type]

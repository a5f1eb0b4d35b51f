"""What every retriever promises. A new row needs a line in SETTINGS, nothing else."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from millpond.memory import RETRIEVERS, BlockId, KVBlock, Retriever
from millpond.memory.retrievers import ByKeyRetriever, RecentRetriever

from .blocks import SHAPE_LKD, make_block
from .method_docs import missing_from_docs

# Shapes: L layers, K key/value heads, T tokens, D channels per head.

SETTINGS: dict[str, list[Retriever]] = {
    "by_key": [ByKeyRetriever()],
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
    for step in steps:
        if step == "add":
            block = make_block()
            foretold_bytes = index.num_bytes_with(block.spec)
            index.add(block)
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
    assert index.best(query_LKD, num_blocks, among) == found
    assert index.num_bytes == before_bytes
    ids = [scored.id for scored in found]
    allowed = set(here if among is None else among)
    assert len(set(ids)) == len(ids) == min(num_blocks, len(allowed))
    assert set(ids) <= allowed
    scores = [scored.score for scored in found]
    assert scores == sorted(scores, reverse=True)
    for block_id in here:
        index.drop(block_id)
    assert index.num_bytes == 0
    assert index.best(query_LKD, num_blocks) == []


@pytest.mark.parametrize("retriever", EVERY)
def test_refuses_a_block_twice_and_keeps_no_tensor_of_it(retriever: Retriever) -> None:
    index, block = retriever.start(), make_block()
    index.add(block)
    with pytest.raises(ValueError, match=f"block {block.id} is in this index already"):
        index.add(block)
    held = [weakref.ref(block.k_LKTD), weakref.ref(block.v_LKTD)]
    del block
    gc.collect()
    assert [ref() for ref in held] == [None, None]


def mean_cosine(query_LKD: torch.Tensor, block: KVBlock) -> float:
    """The plain twin: the cosine with the mean key, averaged over layers and heads."""
    return float(cosine_similarity(query_LKD, block.k_LKTD.float().mean(2), dim=-1).mean())


@given(num_blocks=st.integers(1, 50), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_by_key_equals_its_plain_twin(num_blocks: int, dtype: torch.dtype) -> None:
    index = ByKeyRetriever().start()
    blocks = [make_block(num_tokens=1 + i % 4, dtype=dtype) for i in range(num_blocks)]
    for block in blocks:
        index.add(block)
    query_LKD = torch.randn(SHAPE_LKD)
    expected = {block.id: mean_cosine(query_LKD, block) for block in blocks}
    found = index.best(query_LKD, num_blocks)
    assert {scored.id for scored in found} == set(expected)
    for scored in found:
        assert scored.score == pytest.approx(expected[scored.id], abs=1e-5)


def test_by_key_finds_the_block_that_holds_the_queried_direction() -> None:
    index = ByKeyRetriever().start()
    blocks = [make_block() for _ in range(100)]
    for block in blocks:
        index.add(block)
    best = index.best(100 * blocks[37].k_LKTD.mean(2), 1)[0]
    assert best.id == blocks[37].id
    assert best.score == pytest.approx(1.0, abs=1e-5)


def test_by_key_never_prefers_a_block_that_is_not_finite() -> None:
    index = ByKeyRetriever().start()
    good = make_block()
    broken = make_block(k_LKTD=torch.full_like(good.k_LKTD, float("nan")))
    for block in (broken, good):
        index.add(block)
    found = index.best(good.k_LKTD.mean(2), 2)
    assert [scored.id for scored in found] == [good.id, broken.id]
    assert found[1].score == 0.0


def test_by_key_gives_room_back_when_blocks_become_fewer() -> None:
    index = ByKeyRetriever().start()
    blocks = [make_block() for _ in range(200)]
    for block in blocks:
        index.add(block)
    full_bytes = index.num_bytes
    for block in blocks[5:]:
        index.drop(block.id)
    index.check()
    assert index.num_bytes < full_bytes / 10
    assert index.best(blocks[3].k_LKTD.mean(2), 1)[0].id == blocks[3].id


@pytest.mark.parametrize(
    ("query_LKD", "message"),
    [
        (None, "'by_key' got no query"),
        (torch.zeros(2, 2, 5), r"a query must have the shape .* \(2, 2, 4\) .* got \(2, 2, 5\)"),
        (torch.full(SHAPE_LKD, float("nan")), "a query must be finite"),
    ],
)
def test_by_key_refuses_a_query(query_LKD: torch.Tensor | None, message: str) -> None:
    index = ByKeyRetriever().start()
    index.add(make_block())
    with pytest.raises(ValueError, match=message):
        index.best(query_LKD, 1)


def test_by_key_refuses_another_models_keys() -> None:
    index = ByKeyRetriever().start()
    index.add(make_block())
    with pytest.raises(ValueError, match="one memory holds one model's blocks"):
        index.add(make_block(shape_LKD=(2, 2, 8)))
    index.check()


def test_recent_is_the_newest_first() -> None:
    index = RecentRetriever().start()
    blocks = [make_block() for _ in range(5)]
    for block in blocks:
        index.add(block)
    index.drop(blocks[4].id)
    assert [scored.id for scored in index.best(None, 2)] == [blocks[3].id, blocks[2].id]
    among = [blocks[0].id, blocks[2].id]
    assert [scored.id for scored in index.best(None, 9, among)] == among[::-1]

"""The indices over mean keys: they equal their plain twins, find what was planted, and stay within their bytes."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity, normalize

from millpond.memory import BlockId, KVBlock, KVSpec, Retriever
from millpond.memory.index import Index
from millpond.memory.key_index import without_trend
from millpond.memory.retrievers import ByKeyRetriever, PerLayerRetriever

from .blocks import SHAPE_LKD, make_block

# Shapes: L layers, K key/value heads, T tokens, D channels per head, N rows.

PLAIN = ByKeyRetriever(centred=False, detrend=False)
# What rounding to bfloat16 may change: 2**-9 of every value.
TOLERANCE = 0.01


def filled(retriever: Retriever, blocks: list[KVBlock]) -> Index:
    index = retriever.start()
    for block in blocks:
        index.add(block.id, index.describe(block), block.span.start_s)
    return index


def mean_cosine(query_LKD: torch.Tensor, block: KVBlock) -> float:
    """The plain twin: the cosine with the mean key, averaged over layers and heads."""
    return float(cosine_similarity(query_LKD, block.k_LKTD.float().mean(2), dim=-1).mean())


@given(num_blocks=st.integers(1, 50), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_by_key_equals_its_plain_twin(num_blocks: int, dtype: torch.dtype) -> None:
    blocks = [make_block(num_tokens=1 + i % 4, dtype=dtype) for i in range(num_blocks)]
    query_LKD = torch.randn(SHAPE_LKD)
    expected = {block.id: mean_cosine(query_LKD, block) for block in blocks}
    found = filled(PLAIN, blocks).best(query_LKD, num_blocks)
    assert {scored.id for scored in found} == set(expected)
    for scored in found:
        assert scored.score == pytest.approx(expected[scored.id], abs=TOLERANCE)


@given(num_blocks=st.integers(2, 50))
def test_centred_by_key_equals_its_plain_twin(num_blocks: int) -> None:
    blocks = [make_block() for _ in range(num_blocks)]
    query_LKD = torch.randn(SHAPE_LKD)
    # From the rows as they are kept: near the mean, what their rounding changes may be all that there is.
    index = filled(ByKeyRetriever(detrend=False), blocks)
    x_NLKD = torch.stack([index.describe(block).double() for block in blocks])  # type: ignore[union-attr]
    mean_LKD = x_NLKD.mean(0)
    away_NLKD = x_NLKD - mean_LKD
    typical_LK1 = (1 - mean_LKD.square().sum(-1, keepdim=True)).clamp_min(2.0**-12).sqrt()
    away_NLKD = away_NLKD / away_NLKD.norm(dim=-1, keepdim=True).maximum(typical_LK1)
    expected_N = (away_NLKD * normalize(query_LKD, dim=-1)).sum(-1).mean((1, 2)).tolist()
    found = {scored.id: scored.score for scored in index.best(query_LKD, num_blocks)}
    for block, expected in zip(blocks, expected_N, strict=True):
        assert found[block.id] == pytest.approx(expected, abs=1e-4)


@given(num_rows=st.integers(0, 80), among=st.lists(st.booleans(), min_size=80, max_size=80), slope=st.floats(-5, 5))
def test_a_trend_is_taken_off_as_least_squares_has_it(num_rows: int, among: list[bool], slope: float) -> None:
    start_N = np.sort(np.random.default_rng(num_rows).uniform(0, 1e6, num_rows))
    score_N = slope * start_N / 1e6 + np.random.default_rng(1).normal(size=num_rows)
    fit_N = np.array(among[:num_rows], dtype=bool)
    flat_N = without_trend(score_N, start_N, fit_N)
    if fit_N.sum() < 32:
        assert flat_N is score_N
        return
    line = np.polyfit(start_N[fit_N] / 1e6, score_N[fit_N], 1)
    expected_N = score_N - line[0] * (start_N - start_N[fit_N].mean()) / 1e6
    assert flat_N == pytest.approx(expected_N, abs=1e-3)
    assert flat_N[fit_N].mean() == pytest.approx(score_N[fit_N].mean(), abs=1e-4)


def test_blocks_of_one_moment_have_no_trend() -> None:
    blocks = [make_block(7.0) for _ in range(50)]
    query_LKD = torch.randn(SHAPE_LKD)
    with_it, without = (filled(ByKeyRetriever(detrend=on), blocks) for on in (True, False))
    assert with_it.best(query_LKD, 50) == without.best(query_LKD, 50)


SHAPE = (6, 2, 64)


def stream_with_an_event(num_blocks: int, at: int, rise: float) -> tuple[list[KVBlock], torch.Tensor]:
    """Blocks of which one looks towards the query, all of which look the more towards it the later they are."""
    generator = torch.Generator().manual_seed(3)
    shared_LKD, query_LKD = torch.randn(2, *SHAPE, generator=generator)
    blocks = []
    for i in range(num_blocks):
        mean_LKD = 3 * shared_LKD + 0.5 * torch.randn(SHAPE, generator=generator)
        mean_LKD += (rise * i / num_blocks + (0.3 if i == at else 0.0)) * query_LKD
        blocks.append(make_block(float(i), k_LKTD=mean_LKD[:, :, None], v_LKTD=mean_LKD[:, :, None], num_tokens=1))
    return blocks, query_LKD


def test_an_old_event_is_found_although_later_blocks_all_score_more() -> None:
    blocks, query_LKD = stream_with_an_event(600, at=20, rise=1.0)
    plain = filled(ByKeyRetriever(detrend=False), blocks).best(query_LKD, 8)
    assert all(scored.id > blocks[400].id for scored in plain)
    found = filled(ByKeyRetriever(), blocks).best(query_LKD, 8)
    assert found[0].id == blocks[20].id


@pytest.mark.parametrize("retriever", [PLAIN, ByKeyRetriever(), PerLayerRetriever(), PerLayerRetriever("cosine")])
@pytest.mark.parametrize("at", [0, 20, 599])
def test_an_event_is_found_wherever_it_is(retriever: Retriever, at: int) -> None:
    blocks, query_LKD = stream_with_an_event(600, at=at, rise=0.0)
    assert filled(retriever, blocks).best(query_LKD, 1)[0].id == blocks[at].id


def test_by_key_finds_the_block_that_holds_the_queried_direction() -> None:
    blocks = [make_block() for _ in range(100)]
    best = filled(PLAIN, blocks).best(100 * blocks[37].k_LKTD.mean(2), 1)[0]
    assert best.id == blocks[37].id
    assert best.score == pytest.approx(1.0, abs=TOLERANCE)


@pytest.mark.parametrize("retriever", [PLAIN, ByKeyRetriever(), PerLayerRetriever(), PerLayerRetriever("cosine")])
def test_a_block_that_is_not_finite_is_known_and_never_named(retriever: Retriever) -> None:
    good = [make_block(float(i)) for i in range(5)]
    broken = []
    for value in (float("nan"), float("inf")):
        k_LKTD = torch.randn(2, 2, 3, 4)
        k_LKTD[1, 0, 2, 3] = value
        broken.append(make_block(9.0, k_LKTD=k_LKTD))
    index = filled(retriever, [broken[0], *good, broken[1]])
    query_LKD = torch.randn(SHAPE_LKD)
    alone = filled(retriever, good)
    assert index.best(query_LKD, 9) == alone.best(query_LKD, 9)
    assert index.best_by_layer(query_LKD, 9) == alone.best_by_layer(query_LKD, 9)
    assert index.best(query_LKD, 9, [broken[0].id]) == []
    assert index.ids == {block.id for block in (*good, *broken)}
    for block in good:
        index.drop(block.id)
    index.check()
    assert index.best(query_LKD, 9) == []


def test_a_row_that_is_no_unit_is_refused() -> None:
    index = ByKeyRetriever().start()
    with pytest.raises(ValueError, match=r"must be of unit vectors; got a value of 3"):
        index.add(BlockId(1), torch.full(SHAPE_LKD, 3.0, dtype=torch.bfloat16), 0.0)
    index.check()
    assert index.num_bytes == 0


@pytest.mark.parametrize("num_left", [0, 1, 5])
@pytest.mark.parametrize("oldest_first", [True, False])
def test_room_is_given_back_when_blocks_become_fewer(num_left: int, oldest_first: bool) -> None:
    blocks = [make_block(float(i)) for i in range(700)]
    index = filled(ByKeyRetriever(), blocks)
    full_bytes = index.num_bytes
    leaving = blocks[: 700 - num_left] if oldest_first else blocks[num_left:]
    for block in leaving:
        index.drop(block.id)
    index.check()
    assert index.num_bytes < full_bytes / 10
    staying = {block.id for block in blocks} - {block.id for block in leaving}
    assert {scored.id for scored in index.best(torch.randn(SHAPE_LKD), 700)} == staying


def test_one_block_more_or_less_moves_no_memory() -> None:
    blocks = [make_block(float(i)) for i in range(1100)]
    for num_blocks in (8, 9, 16, 17, 512, 513, 1024, 1025):
        index = filled(ByKeyRetriever(), blocks[:num_blocks])
        index.drop(blocks[0].id)
        lowest_bytes = index.num_bytes
        for _ in range(3):
            index.add(blocks[0].id, index.describe(blocks[0]), 0.0)
            grown_bytes = index.num_bytes
            index.drop(blocks[0].id)
            assert index.num_bytes in (lowest_bytes, grown_bytes)
        assert index.num_bytes == grown_bytes


def test_bytes_of_a_7b_models_rows() -> None:
    """28 layers of 4 heads of 128: 4 of the layers, 2 bytes a value, and 81 bytes of lengths, time, id and fitness."""
    spec = KVSpec(28, 4, 128, torch.bfloat16)
    block = make_block(shape_LKD=(28, 4, 128), dtype=torch.bfloat16, num_tokens=2)
    by_key, per_layer = ByKeyRetriever().start(), PerLayerRetriever().start()
    row = by_key.describe(block)
    assert row is not None and row.nbytes == 4096
    whole = per_layer.describe(block)
    assert whole is not None and whole.nbytes == 28_672
    for i in range(3000):
        foretold_bytes = by_key.num_bytes_with(spec)
        by_key.add(BlockId(i), row, float(i))
        assert by_key.num_bytes == foretold_bytes
    row_bytes = 4096 + 16 * 4 + 17
    assert by_key.num_bytes == 3072 * row_bytes + 16 * 128 * 8  # the next multiple of 512, and the sum of all rows


@pytest.mark.parametrize(
    ("num_layers", "kept"), [(1, [0]), (7, list(range(7))), (8, [1, 3, 5, 7]), (28, [3, 10, 17, 24])]
)
def test_which_layers_are_kept(num_layers: int, kept: list[int]) -> None:
    block = make_block(shape_LKD=(num_layers, 2, 4), num_tokens=1)
    index = filled(PLAIN, [block, make_block(shape_LKD=(num_layers, 2, 4))])
    row = index.describe(block)
    assert row is not None
    assert torch.equal(row, normalize(block.k_LKTD[kept][:, :, 0], dim=-1).bfloat16())
    assert index.best(block.k_LKTD[:, :, 0], 1)[0].id == block.id


@pytest.fixture(scope="module")
def large() -> Index:
    """Rows over many tiles; every tenth is the same."""
    index = ByKeyRetriever().start()
    generator = torch.Generator().manual_seed(0)
    rows_NLKD = normalize(torch.randn(5000, *SHAPE_LKD, generator=generator), dim=-1).bfloat16()
    for i in range(5000):
        index.add(BlockId(i), rows_NLKD[0 if i % 10 == 0 else i], 0.0)
    return index


def test_among_is_what_a_filter_of_all_would_be(large: Index) -> None:
    query_LKD = torch.randn(SHAPE_LKD)
    every = large.best(query_LKD, 5000)
    half = random.Random(0).sample(range(5000), 2500)
    wanted = set(half)
    expected = [scored for scored in every if scored.id in wanted]
    for among in (half, wanted, dict.fromkeys(half).keys()):
        assert large.best(query_LKD, 2500, among) == expected  # type: ignore[arg-type]
        assert large.best(query_LKD, 9, among) == expected[:9]  # type: ignore[arg-type]
    assert large.best(query_LKD, 9, []) == []
    assert large.best(query_LKD, 9, [BlockId(10**12), BlockId(-5)]) == []


def test_equal_rows_score_alike_wherever_they_stand(large: Index) -> None:
    found = large.best(torch.randn(SHAPE_LKD), 5000)
    alike = [scored for scored in found if scored.id % 10 == 0]
    assert len({scored.score for scored in alike}) == 1
    assert [scored.id for scored in alike] == list(range(4990, -1, -10))


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@given(num_blocks=st.integers(1, 40), num_chosen=st.integers(1, 10))
def test_per_layer_equals_its_plain_twin(similarity: str, num_blocks: int, num_chosen: int) -> None:
    blocks = [make_block() for _ in range(num_blocks)]
    query_LKD = torch.randn(SHAPE_LKD)
    index = filled(PerLayerRetriever(similarity), blocks)  # type: ignore[arg-type]
    chosen = index.best_by_layer(query_LKD, num_chosen)
    assert len(chosen) == SHAPE_LKD[0]
    for layer, found in enumerate(chosen):
        # Heads side by side, as kept.
        keys = [index.describe(block)[layer].double() for block in blocks]  # type: ignore[index]
        query = query_LKD[layer].flatten().double()
        scores = [float(key @ query) for key in keys]
        if similarity == "cosine":
            scores = [s / float(key.norm() * query.norm()) for s, key in zip(scores, keys, strict=True)]
        expected = sorted(zip(scores, (block.id for block in blocks), strict=True), reverse=True)[:num_chosen]
        assert [scored.score for scored in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
        assert dict(found).keys() == {block_id for _, block_id in expected}


def test_layers_choose_for_themselves() -> None:
    blocks = [make_block() for _ in range(60)]
    query_LKD = torch.stack([blocks[7].k_LKTD[0].mean(1), blocks[31].k_LKTD[1].mean(1)])
    chosen = filled(PerLayerRetriever("cosine"), blocks).best_by_layer(query_LKD, 1)
    assert [layer[0].id for layer in chosen] == [blocks[7].id, blocks[31].id]


@pytest.mark.parametrize("retriever", [ByKeyRetriever(), PerLayerRetriever()])
@pytest.mark.parametrize(
    ("query_LKD", "message"),
    [
        (None, "got no query"),
        (torch.zeros(2, 2, 5), r"a query.* must have the shape .* got \(2, .*\)"),
        (torch.zeros(3, 2, 4), r"a query.* must have the shape .* got \(3, .*\)"),
        (torch.zeros(16), r"a query.* must have the shape .* got \(16,.*\)"),
        (torch.full(SHAPE_LKD, float("nan")), "a query must be finite"),
    ],
)
def test_refuses_a_query(retriever: Retriever, query_LKD: torch.Tensor | None, message: str) -> None:
    index = filled(retriever, [make_block()])
    with pytest.raises(ValueError, match=message):
        index.best(query_LKD, 1)


@pytest.mark.parametrize("retriever", [ByKeyRetriever(), PerLayerRetriever()])
def test_refuses_another_models_keys(retriever: Retriever) -> None:
    index, other = filled(retriever, [make_block()]), make_block(shape_LKD=(2, 2, 8))
    with pytest.raises(ValueError, match="one memory holds one model's blocks"):
        index.add(other.id, index.describe(other), 0.0)
    index.check()


def test_check_speaks_up_when_the_books_are_wrong() -> None:
    blocks = [make_block(float(i)) for i in range(20)]
    for spoil, message in (
        (lambda index: setattr(index, "_num_fit", 19), "say 19 rows are finite; 20 are"),
        (lambda index: index._sum_HD.__iadd__(2**20), r"the sum of 20 rows is off by 0\.000977"),
        (lambda index: setattr(index._rows, "_num_bytes", 5), "books say 5 bytes; it holds"),
        (lambda index: index._rows._row_by_id.popitem(), "rows are of other blocks|say 20 rows are finite; 19 are"),
        (lambda index: index._rows._row_by_id.update({BlockId(-1): 3}), "other blocks"),
        (lambda index: index._rows._row_by_id.clear(), "has room for 32 rows, and says that it holds 0"),
    ):
        index = filled(ByKeyRetriever(), blocks)
        index.check()
        spoil(index)  # type: ignore[no-untyped-call]
        with pytest.raises(RuntimeError, match=message):
            index.check()

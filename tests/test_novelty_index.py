"""by_novelty: what comes is found, what moves or stays is not, and a row outlives the blocks that it is of."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from millpond.memory import KVBlock, Memory, MemoryConfig, PackedBlock, Retriever
from millpond.memory.keeper import AtRest, NoKeeper
from millpond.memory.novelty_index import MOST_NOVEL, novelty
from millpond.memory.retrievers import ByKeyAndNoveltyRetriever, ByKeyRetriever, ByNoveltyRetriever

from .blocks import make_block

# Shapes: L layers, K key/value heads, T tokens, D channels per head.

SHAPE_LKD = (4, 2, 16)
NUM_TOKENS = 12


def of_keys(start_s: float, k_LKTD: Tensor) -> KVBlock:
    return make_block(start_s, num_tokens=k_LKTD.shape[2], shape_LKD=SHAPE_LKD, k_LKTD=k_LKTD)


def stream(came: set[int], num_blocks: int, noise: float = 0.02) -> list[KVBlock]:
    """A still scene with noise; in blocks of `came` one token becomes another, and stays so."""
    scene_LKTD = torch.randn(SHAPE_LKD[0], SHAPE_LKD[1], NUM_TOKENS, SHAPE_LKD[2])
    blocks = []
    for number in range(num_blocks):
        if number in came:
            scene_LKTD = scene_LKTD.clone()
            scene_LKTD[:, :, number % NUM_TOKENS] = torch.randn(SHAPE_LKD)
        blocks.append(of_keys(float(number), scene_LKTD + noise * torch.randn_like(scene_LKTD)))
    return blocks


def naive_novelty(before: KVBlock, block: KVBlock) -> float:
    """Token by token, head by head."""
    worst = 0.0
    for t in range(block.num_tokens):
        cosines = []
        for s in range(before.num_tokens):
            each = [
                float(torch.cosine_similarity(block.k_LKTD[layer, head, t], before.k_LKTD[layer, head, s], dim=0))
                for layer in range(SHAPE_LKD[0])
                for head in range(SHAPE_LKD[1])
            ]
            cosines.append(sum(each) / len(each))
        worst = max(worst, 1 - max(cosines))
    return worst


def filled(blocks: list[KVBlock], **parts: object) -> Memory:
    memory = Memory(MemoryConfig(recent_frames=2, retriever="by_novelty", **parts))  # type: ignore[arg-type]
    for block in blocks:
        memory.append(block)
    return memory


def test_equals_its_plain_twin() -> None:
    before, block = (make_block(num_tokens=5, shape_LKD=SHAPE_LKD) for _ in range(2))
    assert float(novelty(before, block, 8)) == pytest.approx(naive_novelty(before, block), abs=1e-5)


def test_what_moves_within_the_picture_is_not_novel() -> None:
    before = make_block(num_tokens=NUM_TOKENS, shape_LKD=SHAPE_LKD)
    moved = of_keys(1.0, before.k_LKTD[:, :, torch.randperm(NUM_TOKENS)])
    assert float(novelty(before, moved, 8)) == pytest.approx(0, abs=1e-5)


@given(
    came=st.sets(st.integers(1, 27), min_size=1, max_size=5),
    seed=st.integers(0, 2**16),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_the_blocks_in_which_something_came_are_the_first_to_be_found(
    came: set[int], seed: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(seed)
    blocks = stream(came, 30)
    blocks = [replace(one, k_LKTD=one.k_LKTD.to(dtype), v_LKTD=one.v_LKTD.to(dtype)) for one in blocks]
    found = filled(blocks).recall(num_blocks=len(came) + 1).blocks
    # The first block of all, in which everything is new, is as novel as any.
    assert {block.span.start_s for block in found} == {0.0, *map(float, came)}


def test_a_block_scores_as_its_novelty_and_one_that_nothing_came_before_as_the_most_novel() -> None:
    torch.manual_seed(0)
    blocks = stream({5, 9}, 14)
    scores = [scored.score for scored in sorted(filled(blocks).rank(None, 12), key=lambda scored: scored.id)]
    novelties = [float(novelty(before, block, 8).bfloat16()) for before, block in pairwise(blocks)]
    assert scores == [MOST_NOVEL, *novelties[:11]]


def test_rows_outlive_their_blocks_pruned_and_packed_as_these_may_be() -> None:
    torch.manual_seed(0)
    blocks = stream({4, 8, 9}, 16)
    exact, coarse = filled(blocks, codec="plain"), filled(blocks, codec="int2", pruner="novel")
    assert [one.score for one in exact.rank(None, 9)] == [one.score for one in coarse.rank(None, 9)]


class Kept(NoKeeper):
    """Blocks as they are at rest, packed with their rows."""

    def __init__(self) -> None:
        self.packed: list[AtRest] = []

    def kept(self, block: PackedBlock, row: Tensor | None) -> None:
        self.packed.append(AtRest(block, row))


@given(exact=st.sets(st.integers(0, 9)))
def test_a_memory_that_is_opened_again_knows_what_was_novel(exact: set[int]) -> None:
    """Whatever a kill left exact, in the window or in the middle, and whatever comes after."""
    torch.manual_seed(0)
    blocks, keeper = stream({4, 8, 12, 14}, 16), Kept()
    config = MemoryConfig(recent_frames=2, retriever="by_novelty", codec="int4")
    lived, opened = Memory(config, keeper), Memory(config)
    for block in blocks[:12]:
        lived.append(block)
    packed = {one.block.id: one for one in keeper.packed}
    opened.restore(
        AtRest(block, None) if number in exact or number >= 10 else packed[block.id]
        for number, block in enumerate(blocks[:12])
    )
    assert opened.rank(None, 16) == lived.rank(None, 16)
    for block in blocks[12:]:
        lived.append(block)
        opened.append(block)
    assert opened.rank(None, 16) == lived.rank(None, 16)


def test_turns_are_taken_by_what_is_novel_and_what_fits() -> None:
    torch.manual_seed(0)
    blocks = stream({3, 11, 17}, 24, noise=0.3)
    query_LKD = torch.randn(SHAPE_LKD)
    indices = [kind().start() for kind in (ByNoveltyRetriever, ByKeyRetriever, ByKeyAndNoveltyRetriever)]
    for index in indices:
        row = None
        for block, after in zip(blocks, [*blocks[1:], None], strict=True):
            row = index.describe(block, row, after)
            index.add(block.id, row, block.span.start_s)
    novel, fitting, mixed = ([scored.id for scored in index.best(query_LKD, 8)] for index in indices)
    assert set(novel) != set(fitting)
    assert mixed[:2] == list(dict.fromkeys([novel[0], fitting[0]]))[:2]
    assert set(novel[:4]) | set(fitting[:4]) <= set(mixed)
    with pytest.raises(ValueError, match="got no query"):
        indices[2].best(None, 3)


def test_blocks_without_a_picture_are_compared_all_the_same() -> None:
    words = replace(make_block(num_tokens=3, shape_LKD=SHAPE_LKD), num_before=3)
    assert 0 <= float(novelty(words, words, 8)) < 1e-5


@pytest.mark.parametrize("retriever", [ByNoveltyRetriever(), ByKeyAndNoveltyRetriever()])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.5, 2.5])
def test_no_block_is_more_novel_than_can_be(retriever: Retriever, value: float) -> None:
    """Rows come from disks and servers."""
    index, block = retriever.start(), make_block(shape_LKD=SHAPE_LKD)
    row = index.describe(block)
    assert row is not None and index.accepts(row, block.spec)
    for at in (0, 1):
        other = row.clone()
        other.view(-1)[at] = value
        assert not index.accepts(other, block.spec)
        with pytest.raises(ValueError, match="must be what describe"):
            index.add(block.id, other, 0.0)
    index.check()
    assert not index.ids

"""Memory under random streams: never over budget, the books balance, questions change nothing."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory import (
    AppendResult,
    BlockId,
    BudgetError,
    KVBlock,
    Memory,
    MemoryConfig,
    PackedBlock,
    Recall,
)
from millpond.memory.cascade_tier import CascadeTier
from millpond.memory.codecs.plain import PlainCodec
from millpond.memory.retrievers import ByKeyAndNoveltyRetriever
from millpond.memory.tiers import HostTier
from millpond.stream import Span

from .blocks import SHAPE_LKD, make_block, same

# Shapes: L layers, K key/value heads, T tokens, D channels per head.

TOKEN_BYTES = PlainCodec().bytes_per_token(make_block().spec)
INDEX_BYTES = ByKeyAndNoveltyRetriever().start().num_bytes_with(make_block().spec)  # of the first rows


@dataclass(frozen=True)
class Push:
    """A frame block, so much later, of so many tokens."""

    later_s: float
    num_tokens: int
    length_s: float


@dataclass(frozen=True)
class Ask:
    """A question, about everything or about a span."""

    num_blocks: int
    about: tuple[float, float] | None


pushes = st.builds(
    Push,
    later_s=st.sampled_from([0.0, 0.25, 1.0, 60.0]),
    num_tokens=st.integers(1, 30),
    length_s=st.sampled_from([0.0, 0.5]),
)
asks = st.builds(
    Ask,
    num_blocks=st.integers(0, 6),
    about=st.one_of(st.none(), st.tuples(st.floats(0, 50), st.floats(0, 50))),
)
steps = st.lists(st.one_of(pushes, pushes, asks, st.just("sink"), st.just("forget")), max_size=50)


@given(
    steps=steps,
    recent_frames=st.integers(1, 5),
    budget_bytes=st.one_of(st.just(0), st.integers(1, 30_000)),
    retriever=st.sampled_from(["by_key", "by_key_and_novelty", "recent"]),
    tier=st.sampled_from(["host", "slab", partial(CascadeTier, device_bytes=2500)]),
)
def test_any_stream_stays_within_budget_and_in_balance(
    steps: list[Push | Ask | str], recent_frames: int, budget_bytes: int, retriever: str, tier: str
) -> None:
    memory = Memory(
        MemoryConfig(
            codec="plain", recent_frames=recent_frames, budget_bytes=budget_bytes, retriever=retriever, tier=tier
        )
    )
    pushed: dict[BlockId, KVBlock] = {}  # what should be here, in order
    sinks: list[KVBlock] = []
    now_s = 0.0
    for step in steps:
        if isinstance(step, Push):
            now_s += step.later_s
            block = make_block(now_s, num_tokens=step.num_tokens, last_s=now_s + step.length_s)
            older_before = list(memory.older)
            result = memory.append(block)
            pushed[block.id] = block
            for gone in result.evicted:
                del pushed[gone]
            check_eviction(memory, older_before, result)
        elif isinstance(step, Ask):
            check_recall(memory, step, pushed)
        elif step == "sink":
            sinks.append(make_block(num_tokens=2, kind="text"))
            memory.add_sink(sinks[-1])
        else:
            memory.forget()
            pushed.clear()
            now_s = 0.0

        memory.check()
        stats = memory.stats
        assert stats.older_bytes + stats.index_bytes <= budget_bytes
        assert memory.num_bytes == stats.num_bytes
        in_order = list(pushed.values())
        assert all(same(a, b) for a, b in zip(memory.recent, in_order[-recent_frames:], strict=True))
        assert list(memory.older) == list(pushed)[:-recent_frames]
        assert len(memory.sinks) == len(sinks)
        assert all(same(a, b) for a, b in zip(memory.sinks, sinks, strict=True))


def check_eviction(memory: Memory, older_before: list[BlockId], result: AppendResult) -> None:
    """Oldest first, or the newcomer alone."""
    if result.evicted != result.left_recent:
        assert list(result.evicted) == older_before[: len(result.evicted)]
    assert all(gone not in memory.older for gone in result.evicted)


def check_recall(memory: Memory, ask: Ask, pushed: dict[BlockId, KVBlock]) -> None:
    """Pure, in order of time, of older blocks only, exact, and all that there are when few fit."""
    span = None if ask.about is None else Span(min(ask.about), max(ask.about))
    query_LKD = torch.randn(SHAPE_LKD)
    before = memory.stats
    recall = memory.recall(query_LKD, num_blocks=ask.num_blocks, span=span)
    context = memory.context(recall, span=span)
    again = memory.recall(query_LKD, num_blocks=ask.num_blocks, span=span)
    assert memory.stats == before
    assert [block.id for block in again.blocks] == [block.id for block in recall.blocks]
    assert again.scores == recall.scores

    older = [pushed[i] for i in memory.older]
    fitting = [block for block in older if span is None or block.span.overlaps(span)]
    ids = [block.id for block in recall.blocks]
    assert len(ids) == min(ask.num_blocks, len(fitting)) and recall.num_missed == 0
    assert set(ids) <= {block.id for block in fitting}
    assert [s.start_s for s in recall.spans] == sorted(s.start_s for s in recall.spans)
    assert all(same(block, pushed[block.id]) for block in recall.blocks)

    recent = [block for block in memory.recent if span is None or block.span.overlaps(span)]
    assert [block.id for block in context] == [
        *(block.id for block in memory.sinks),
        *ids,
        *(block.id for block in recent),
    ]


def filled(num_blocks: int, **config: object) -> tuple[Memory, list[KVBlock]]:
    memory = Memory(MemoryConfig(**{"codec": "plain", **config}))  # type: ignore[arg-type]
    blocks = [make_block(float(i)) for i in range(num_blocks)]
    for block in blocks:
        memory.append(block)
    return memory, blocks


def test_recall_brings_back_what_the_question_points_at() -> None:
    memory, blocks = filled(50, recent_frames=4, retriever="by_key")
    recall = memory.recall(blocks[17].k_LKTD.mean(2), num_blocks=3)
    best = recall.blocks[recall.scores.index(max(recall.scores))]
    assert same(best, blocks[17])
    only = memory.recall(blocks[17].k_LKTD.mean(2), span=Span(30.0, 33.5))
    assert [block.span.start_s for block in only.blocks] == [30.0, 31.0, 32.0, 33.0]


def test_recall_takes_as_many_as_the_config_says() -> None:
    memory, _ = filled(50, recent_frames=4, recall_blocks=5)
    assert len(memory.recall(torch.randn(SHAPE_LKD)).blocks) == 5
    assert len(memory.recall(torch.randn(SHAPE_LKD), num_blocks=0).blocks) == 0
    with pytest.raises(ValueError, match="num_blocks must not be negative; got -1"):
        memory.recall(torch.randn(SHAPE_LKD), num_blocks=-1)


def test_recall_before_anything_is_older_is_empty() -> None:
    for memory in (Memory(), filled(8)[0]):
        assert memory.recall(torch.randn(SHAPE_LKD)) == Recall()
        assert memory.recall(torch.randn(SHAPE_LKD), span=Span(0.0, 100.0)).blocks == ()


def test_a_retriever_that_needs_no_query_gets_none() -> None:
    memory, blocks = filled(10, recent_frames=2, retriever="recent")
    assert not memory.needs_query
    assert [block.id for block in memory.recall(num_blocks=3).blocks] == [b.id for b in blocks[5:8]]
    by_key, _ = filled(10, recent_frames=2)
    assert by_key.needs_query
    with pytest.raises(ValueError, match="'by_key' got no query"):
        by_key.recall()


def test_a_block_over_the_budget_is_let_go_and_nothing_for_it() -> None:
    budget_bytes = int(10 * TOKEN_BYTES) + INDEX_BYTES
    memory = Memory(MemoryConfig(codec="plain", recent_frames=1, budget_bytes=budget_bytes, tier="host"))
    small, huge, last = make_block(0.0, num_tokens=5), make_block(1.0, num_tokens=11), make_block(2.0)
    assert memory.append(small) == ((), ())
    assert memory.append(huge) == ((small.id,), ())
    assert memory.append(last) == ((huge.id,), (huge.id,))
    assert list(memory.older) == [small.id]
    memory.check()


def test_a_budget_is_used_to_the_last_byte() -> None:
    budget_bytes = int(10 * TOKEN_BYTES) + INDEX_BYTES
    memory = Memory(MemoryConfig(codec="plain", recent_frames=1, budget_bytes=budget_bytes, tier="host"))
    blocks = [make_block(float(i), num_tokens=5) for i in range(4)]
    results = [memory.append(block) for block in blocks]
    assert [result.evicted for result in results] == [(), (), (), (blocks[0].id,)]
    stats = memory.stats
    assert stats.older_bytes + stats.index_bytes == budget_bytes


def test_the_longest_stream_holds_no_more_than_the_first_minutes() -> None:
    memory = Memory(MemoryConfig(codec="plain", recent_frames=4, budget_bytes=20_000))
    sizes_bytes = []
    for i in range(3000):
        memory.append(make_block(float(i)))
        sizes_bytes.append(memory.num_bytes)
    assert len(set(sizes_bytes[200:])) == 1
    memory.check()


@given(budget_bytes=st.integers(0, 12_000))
def test_the_index_does_not_outgrow_the_budget(budget_bytes: int) -> None:
    memory = Memory(MemoryConfig(codec="plain", recent_frames=1, budget_bytes=budget_bytes))
    for i in range(70):  # of one token: the index is a third of everything, and doubles several times
        memory.append(make_block(float(i), num_tokens=1))
        memory.check()


def test_nothing_refers_to_what_was_evicted_or_forgotten() -> None:
    budget_bytes = int(12 * TOKEN_BYTES) + INDEX_BYTES
    memory = Memory(MemoryConfig(codec="plain", recent_frames=2, budget_bytes=budget_bytes, tier="host"))
    held: dict[BlockId, list[weakref.ref[torch.Tensor]]] = {}
    evicted: list[BlockId] = []
    for i in range(20):
        block = make_block(float(i))
        held[block.id] = [weakref.ref(t) for t in (block.k_LKTD, block.v_LKTD, block.pos_3T)]
        evicted += memory.append(block).evicted
    del block
    gc.collect()
    assert len(evicted) == 14
    for block_id, refs in held.items():
        assert all((ref() is None) == (block_id in evicted) for ref in refs)
    memory.forget()
    gc.collect()
    assert all(ref() is None for refs in held.values() for ref in refs)


def test_slices_of_one_large_read_do_not_pin_it() -> None:
    kv = torch.randn(2, 2, 2, 30, 4)
    pos_3T = torch.arange(3).expand(3, -1)
    memory = Memory(MemoryConfig(codec="plain", recent_frames=3))
    for i in range(10):
        k_LKTD, v_LKTD = kv[:, :, :, 3 * i : 3 * i + 3]
        memory.append(KVBlock(k_LKTD, v_LKTD, pos_3T, 3, Span(float(i), float(i))))
    memory.check()  # recounts storages, and finds exactly what the blocks show
    large = weakref.ref(kv)
    del kv, k_LKTD, v_LKTD
    gc.collect()
    assert large() is None
    assert memory.stats.recent_bytes == 3 * 3 * TOKEN_BYTES


def test_sinks_stay_when_frames_are_forgotten_and_time_starts_anew() -> None:
    memory, _ = filled(20, recent_frames=4)
    prompt = make_block(kind="text")
    memory.add_sink(prompt)
    memory.forget()
    assert [block.id for block in memory.context()] == [prompt.id]
    assert memory.num_bytes == prompt.num_bytes
    memory.append(make_block(0.0))
    memory.check()


class ForgetfulTier(HostTier):
    """Loses every block with an even id, as a cache with expiry may."""

    def get(self, block_id: BlockId) -> PackedBlock | None:
        return None if block_id % 2 == 0 else super().get(block_id)


def test_what_a_tier_lost_is_counted_and_not_an_error() -> None:
    memory, blocks = filled(20, recent_frames=4, tier=ForgetfulTier)
    recall = memory.recall(torch.randn(SHAPE_LKD), num_blocks=16)
    assert [block.id for block in recall.blocks] == [block.id for block in blocks[:16] if block.id % 2]
    assert recall.num_missed == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_dtype_comes_back_exactly(dtype: torch.dtype) -> None:
    memory = Memory(MemoryConfig(codec="plain", recent_frames=1))
    blocks = [make_block(float(i), dtype=dtype, advance=7) for i in range(5)]
    for block in blocks:
        memory.append(block)
    recall = memory.recall(torch.randn(SHAPE_LKD))
    assert all(same(a, b) for a, b in zip(recall.blocks, blocks[:4], strict=True))
    memory.check()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"recent_frames": 0}, "recent_frames must be a whole number, at least 1; got 0"),
        ({"budget_bytes": -1}, "budget_bytes must be a whole number, at least 0; got -1"),
        ({"budget_bytes": 5e8}, r"budget_bytes must be a whole number, .* got 500000000.0"),
        ({"budget_bytes": True}, "budget_bytes must be a whole number, .* got True"),
        ({"recall_blocks": -3}, "recall_blocks must be a whole number, at least 0; got -3"),
    ],
)
def test_config_refuses_numbers(fields: dict[str, int], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        MemoryConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["codec", "tier", "evictor", "retriever"])
def test_config_refuses_unknown_names_and_lists_the_known(part: str) -> None:
    with pytest.raises(ValueError, match=f"no {part} named 'nope'; there are: "):
        MemoryConfig(**{part: "nope"})  # type: ignore[arg-type]


def test_memory_refuses_what_does_not_belong() -> None:
    memory = Memory(MemoryConfig(codec="plain", recent_frames=1))
    first, second = make_block(1.0), make_block(2.0)
    memory.append(first)
    memory.append(second)
    before = memory.stats
    for block in (first, second):
        with pytest.raises(ValueError, match=r"order of time|in this memory already"):
            memory.append(block)
    with pytest.raises(ValueError, match=r"order of time; got .* after one that starts at 2.000 s"):
        memory.append(make_block(1.5))
    with pytest.raises(ValueError, match="only frame blocks are appended"):
        memory.append(make_block(3.0, kind="text"))
    with pytest.raises(ValueError, match="a sink is a text block"):
        memory.add_sink(make_block(3.0))
    with pytest.raises(ValueError, match="this memory holds blocks of KVSpec"):
        memory.append(make_block(3.0, dtype=torch.float16))
    assert memory.stats == before
    memory.check()


def test_recall_and_reprs() -> None:
    memory, blocks = filled(20)
    with pytest.raises(ValueError, match="one score for each block; got 0 for 1 blocks"):
        Recall((blocks[0],), ())
    with pytest.raises(ValueError, match="order of time"):
        Recall((blocks[1], blocks[0]), (0.0, 0.0))
    for value in (memory, memory.recall(torch.randn(SHAPE_LKD))):
        assert len(repr(value)) < 120


@pytest.mark.parametrize("book", ["_recent_bytes", "_sink_bytes", "_num_appended", "_num_evicted"])
def test_check_speaks_up_when_the_books_are_wrong(book: str) -> None:
    memory, _ = filled(20, recent_frames=4)
    memory.check()
    setattr(memory, book, getattr(memory, book) + 1)
    with pytest.raises(RuntimeError, match=r"\d"):
        memory.check()


def test_check_finds_a_block_that_only_one_book_knows() -> None:
    memory, blocks = filled(20, recent_frames=4)
    memory._index.drop(blocks[0].id)
    with pytest.raises(RuntimeError, match="16 blocks are older, but the tier holds 16 and the index knows 15"):
        memory.check()


def test_check_finds_a_broken_budget() -> None:
    memory, _ = filled(20, recent_frames=4)
    memory.config = dataclasses.replace(memory.config, budget_bytes=100)
    with pytest.raises(RuntimeError, match="more than the budget of 100"):
        memory.check()

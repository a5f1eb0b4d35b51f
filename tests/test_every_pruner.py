"""What every pruner promises. A new row needs a line in SETTINGS, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from millpond.memory import KVBlock
from millpond.memory.owned import storage_bytes
from millpond.memory.pruners import PRUNERS, Pruner, PrunerRun
from millpond.memory.pruners.elastic_cache import ElasticCache
from millpond.memory.pruners.infinipot_v import InfiniPotV
from millpond.memory.pruners.key_diff import KeyDiff
from millpond.memory.pruners.key_norm import KeyNorm
from millpond.memory.pruners.lag_kv import LagKV
from millpond.memory.pruners.live_vlm import LiveVLM
from millpond.memory.pruners.look_m import LookM
from millpond.memory.pruners.none import NoPruner
from millpond.memory.pruners.novel import Novel
from millpond.memory.pruners.random import RandomPruner
from millpond.memory.pruners.snap_kv import SnapKV
from millpond.memory.pruners.streaming_llm import StreamingLLM
from millpond.memory.pruners.tova import TOVA

from .blocks import make_block, same
from .method_docs import missing_from_docs

# Shapes: T tokens.

SETTINGS: dict[str, list[Pruner]] = {
    "none": [NoPruner()],
    "streaming_llm": [StreamingLLM()],
    "look_m": [LookM(keep_tokens=3)],
    "elastic_cache": [ElasticCache(keep_tokens=1), ElasticCache(keep_tokens=3)],
    "infinipot_v": [InfiniPotV(keep_tokens=3), InfiniPotV(keep_tokens=4, temporal_tokens=9)],
    "live_vlm": [LiveVLM(keep_tokens=3), LiveVLM(keep_tokens=2, top_tokens=0)],
    "key_norm": [KeyNorm(keep_tokens=3)],
    "lag_kv": [LagKV(keep_tokens=3)],
    "key_diff": [KeyDiff(keep_tokens=3)],
    "snap_kv": [SnapKV(keep_tokens=3), SnapKV(keep_tokens=3, pool_tokens=1)],
    "tova": [TOVA(keep_tokens=3)],
    "novel": [Novel(keep_tokens=3), Novel(keep_tokens=7, refresh_blocks=2)],
    "random": [RandomPruner(keep_tokens=3, seed=7)],
}
EVERY = [pytest.param(one, id=f"{name}-{i}") for name in SETTINGS for i, one in enumerate(SETTINGS[name])]
MERGES = (LookM, ElasticCache)
DROPS_NOTHING = (NoPruner, SnapKV, TOVA)


def frame(start_s: float, num_before: int, num_visual: int, num_after: int, **fields: Any) -> KVBlock:
    """A frame block with queries, 4 words' room between places, so that gathered positions show."""
    num_tokens = num_before + num_visual + num_after
    places = torch.arange(num_tokens).expand(3, -1) * torch.tensor([[1], [2], [3]]) + num_before
    return make_block(
        start_s,
        **{
            "num_tokens": num_tokens,
            "num_before": num_before,
            "num_after": num_after,
            "pos_3T": places,
            "advance": 3 * num_tokens + 5,
            "q_LKPD": torch.randn(2, 2, 4, 4),
            **fields,
        },
    )


@st.composite
def streams(draw: st.DrawFn) -> list[KVBlock]:
    """Frames in order of time, alike or not, some with words around them, some with hardly anything in them."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    blocks: list[KVBlock] = []
    for number in range(draw(st.integers(1, 6))):
        num_before, num_after = draw(st.integers(0, 3)), draw(st.integers(0, 2))
        num_visual = draw(st.integers(0 if num_before + num_after else 1, 12))
        block = frame(float(number), num_before, num_visual, num_after, dtype=dtype)
        if blocks and blocks[-1].num_tokens == block.num_tokens and draw(st.booleans()):
            block = replace(block, k_LKTD=blocks[-1].k_LKTD.clone(), v_LKTD=blocks[-1].v_LKTD.clone())
        if draw(st.booleans()):
            block = replace(block, k_LKTD=torch.ones_like(block.k_LKTD))
        blocks.append(block)
    return blocks


def copied(block: KVBlock) -> KVBlock:
    q_LKPD = None if block.q_LKPD is None else block.q_LKPD.clone()
    return replace(
        block,
        k_LKTD=block.k_LKTD.clone(),
        v_LKTD=block.v_LKTD.clone(),
        pos_3T=block.pos_3T.clone(),
        q_LKPD=q_LKPD,
    )


def pruned_all(run: PrunerRun, blocks: list[KVBlock]) -> list[KVBlock | None]:
    return [run.prune(block, blocks[i + 1 : i + 3]) for i, block in enumerate(blocks)]


def alike(a: KVBlock | None, b: KVBlock | None) -> bool:
    return a is b if a is None or b is None else same(a, b)


def tensors_in(held: object) -> Iterator[Tensor]:
    """All tensors that an object keeps, however deep."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, dict):
        for value in held.values():
            yield from tensors_in(value)
    elif isinstance(held, list | tuple):
        for value in held:
            yield from tensors_in(value)
    elif hasattr(held, "__dict__") and type(held).__module__.startswith("millpond."):
        yield from tensors_in(vars(held))


def promises_kept(pruner: Pruner, block: KVBlock, kept: KVBlock) -> None:
    """Everything that holds for any block of any pruner."""
    assert (kept.advance, kept.span, kept.kind, kept.id) == (block.advance, block.span, block.kind, block.id)
    assert (kept.num_before, kept.num_after) == (block.num_before, block.num_after)
    assert kept.spec == block.spec and kept.q_LKPD is None
    before, after = slice(0, block.num_before), slice(block.visual.stop, None)
    kept_after = slice(kept.visual.stop, None)
    for was, now in ((block.k_LKTD, kept.k_LKTD), (block.v_LKTD, kept.v_LKTD)):
        assert torch.equal(was[:, :, before], now[:, :, before]), "words before changed"
        assert torch.equal(was[:, :, after], now[:, :, kept_after]), "words after changed"
        assert now.isfinite().all()
    assert torch.equal(block.pos_3T[:, after], kept.pos_3T[:, kept_after])
    # Positions are distinct here, so they tell which tokens were kept.
    was_at = block.pos_3T[0].tolist()
    index = [was_at.index(place) for place in kept.pos_3T[0].tolist()]
    assert index == sorted(set(index)), "order changed"
    assert torch.equal(kept.pos_3T, block.pos_3T[:, index])
    if not isinstance(pruner, MERGES):
        assert torch.equal(kept.k_LKTD, block.k_LKTD[:, :, index])
        assert torch.equal(kept.v_LKTD, block.v_LKTD[:, :, index])


def num_seen(block: KVBlock) -> int:
    return block.visual.stop - block.visual.start


def test_every_row_has_settings() -> None:
    assert set(SETTINGS) == set(PRUNERS)
    for name, pruners in SETTINGS.items():
        assert all(type(pruner) is PRUNERS[name] for pruner in pruners)


@pytest.mark.parametrize("name", PRUNERS)
def test_says_where_it_comes_from(name: str) -> None:
    assert missing_from_docs(PRUNERS[name]) == []


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
def test_refuses_a_count_that_is_none(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match="keep_tokens must be a whole number, at least 1; got"):
        PRUNERS[name](keep_tokens=wrong)


@pytest.mark.parametrize("pruner", EVERY)
@settings(max_examples=40)
@given(blocks=streams())
def test_keeps_its_promises(pruner: Pruner, blocks: list[KVBlock]) -> None:
    before = [copied(block) for block in blocks]
    run = pruner.start()
    kept = pruned_all(run, blocks)
    run.check()
    assert all(same(was, now) for was, now in zip(before, blocks, strict=True)), "the input was written"
    for block, left in zip(blocks, kept, strict=True):
        if left is None:
            assert isinstance(pruner, StreamingLLM) and num_seen(block) > 0
            continue
        promises_kept(pruner, block, left)
        most = num_seen(block) if isinstance(pruner, DROPS_NOTHING) else pruner.keep_tokens
        assert min(1, num_seen(block)) <= num_seen(left) <= max(most, 0)
    again = pruned_all(pruner.start(), blocks)
    assert all(alike(a, b) for a, b in zip(kept, again, strict=True)), "the same blocks gave other tokens"
    # What came before must not matter to a run that is new, nor what is pruned beside it.
    beside, other = pruner.start(), pruner.start()
    for i, block in enumerate(blocks):
        other.prune(frame(float(i), 1, 9, 0))
        assert alike(kept[i], beside.prune(block, blocks[i + 1 : i + 3]))


@pytest.mark.parametrize("pruner", EVERY)
def test_what_is_kept_owns_its_memory(pruner: Pruner) -> None:
    block = frame(0.0, 3, 9, 2)
    kept = pruner.start().prune(block)
    if kept is not None and kept.num_tokens < block.num_tokens:
        assert storage_bytes(kept.tensors) == kept.num_bytes


@pytest.mark.parametrize("pruner", EVERY)
def test_its_state_is_bounded_and_counted(pruner: Pruner) -> None:
    run, sizes = pruner.start(), []
    for number in range(80):
        block = frame(float(number), 3, 9 + number % 3, 1, dtype=torch.bfloat16)
        run.prune(block, [frame(number + 1.0, 3, 9, 1, dtype=torch.bfloat16)])
        run.check()
        held = list(tensors_in(run))
        assert storage_bytes(held) == run.num_bytes, "it holds more, or less, than it says"
        theirs = {t.untyped_storage().data_ptr() for t in block.tensors}
        assert not theirs & {t.untyped_storage().data_ptr() for t in held if t.numel()}, "it keeps a caller's tensor"
        sizes.append(run.num_bytes)
    assert max(sizes[-6:]) == max(sizes) < sizes[2] + 1000, "its state grows"
    assert pruner.start().num_bytes == 0


@pytest.mark.parametrize("pruner", EVERY)
def test_blocks_of_another_shape_may_follow(pruner: Pruner) -> None:
    run = pruner.start()
    for shape, dtype in (((2, 2, 4), torch.float32), ((3, 1, 8), torch.float32), ((3, 1, 8), torch.bfloat16)):
        for number in range(2):
            fields = {"shape_LKD": shape, "dtype": dtype, "q_LKPD": torch.randn(*shape[:2], 2, shape[2])}
            block = frame(float(number), 1, 6, 0, **fields)
            kept = run.prune(block)
            run.check()
            if kept is not None:
                promises_kept(pruner, block, kept)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", ["k_LKTD", "v_LKTD", "q_LKPD"])
@pytest.mark.parametrize("pruner", EVERY)
def test_refuses_what_is_not_finite_and_goes_on(pruner: Pruner, which: str, bad: float) -> None:
    torch.manual_seed(0)
    blocks = [frame(float(i), 2, 9, 1) for i in range(3)]
    whole, hurt = pruner.start(), pruner.start()
    expected = [whole.prune(block) for block in blocks]
    broken = copied(blocks[1])
    getattr(broken, which)[1, 0, 2, 1] = bad
    found = [hurt.prune(blocks[0])]
    with pytest.raises(ValueError, match=r"1\.000\.\.1\.000 s.* not finite .*; read its frame anew"):
        hurt.prune(broken)
    found += [hurt.prune(block) for block in blocks[1:]]
    assert all(alike(a, b) for a, b in zip(expected, found, strict=True)), "the bad block left something behind"


def test_numbers_whose_sum_overflows_are_finite() -> None:
    block = frame(0.0, 0, 4, 0, dtype=torch.bfloat16)
    block.v_LKTD[:] = 3e38
    assert NoPruner().start().prune(block) is not None


@pytest.mark.parametrize("pruner", EVERY)
def test_says_when_it_needs_queries(pruner: Pruner) -> None:
    block = replace(frame(4.0, 1, 9, 0), q_LKPD=None)
    if not pruner.needs_queries:
        pruner.start().prune(block)
        return
    with pytest.raises(ValueError, match=r"4\.000\.\.4\.000 s.* got no queries.*; have blocks read with queries"):
        pruner.start().prune(block)


@pytest.mark.parametrize("pruner", EVERY)
def test_words_come_back_whole(pruner: Pruner) -> None:
    text = make_block(num_tokens=9, kind="text")
    run = pruner.start()
    kept = run.prune(text)
    assert kept is not None and same(kept, text)
    assert run.num_bytes == 0
    only_words = frame(0.0, 5, 0, 2)
    kept = run.prune(only_words)
    assert kept is not None and same(kept, only_words) and kept.q_LKPD is None


@pytest.mark.parametrize("pruner", EVERY)
@settings(max_examples=40)
@given(blocks=streams())
def test_prunes_for_a_question_where_it_says_so(pruner: Pruner, blocks: list[KVBlock]) -> None:
    query_LKD = torch.randn(2, 2, 4)
    for block in blocks:
        left = pruner.prune_for(block, query_LKD)
        if not pruner.at_question:
            assert left is block
            continue
        promises_kept(pruner, block, left)
        assert num_seen(left) == min(num_seen(block), pruner.keep_tokens)
        assert same(left, pruner.prune_for(block, query_LKD))
        with pytest.raises(ValueError, match=r"must have the layers, kv heads and channels of .*got \(2, 4\)"):
            pruner.prune_for(block, query_LKD[0])
        with pytest.raises(ValueError, match="query got numbers that are not finite"):
            pruner.prune_for(block, query_LKD * float("nan"))

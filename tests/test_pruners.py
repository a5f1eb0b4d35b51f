"""Each pruner beside a slow, direct twin, written token by token from its formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from millpond.memory import KVBlock
from millpond.memory.pruners.elastic_cache import ElasticCache
from millpond.memory.pruners.infinipot_v import InfiniPotV
from millpond.memory.pruners.key_diff import KeyDiff
from millpond.memory.pruners.key_norm import KeyNorm
from millpond.memory.pruners.lag_kv import LagKV
from millpond.memory.pruners.live_vlm import LiveVLM
from millpond.memory.pruners.look_m import LookM
from millpond.memory.pruners.random import RandomPruner
from millpond.memory.pruners.snap_kv import SnapKV
from millpond.memory.pruners.tova import TOVA

from .blocks import make_block

# Shapes: L layers, K key/value heads, T tokens, P probing tokens, D channels per head.

NUM_LAYERS, NUM_HEADS, NUM_CHANNELS = 2, 2, 4
BEFORE, SEEN, AFTER, KEEP = 2, 9, 1, 4
HEADS = [(layer, head) for layer in range(NUM_LAYERS) for head in range(NUM_HEADS)]
SEEDS = pytest.mark.parametrize("seed", range(8))


def frame(seed: int, start_s: float = 0.0, *, num_before: int = BEFORE, num_visual: int = SEEN) -> KVBlock:
    torch.manual_seed(seed)
    num_tokens = num_before + num_visual + AFTER
    return make_block(
        start_s, num_tokens=num_tokens, num_before=num_before, num_after=AFTER, q_LKPD=torch.randn(2, 2, 3, 4)
    )


def key(block: KVBlock, layer: int, head: int, token: int) -> list[float]:
    """Key of a visual token."""
    return [float(x) for x in block.k_LKTD[layer, head, block.num_before + token]]


def value(block: KVBlock, layer: int, head: int, token: int) -> list[float]:
    return [float(x) for x in block.v_LKTD[layer, head, block.num_before + token]]


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def length(a: Sequence[float]) -> float:
    return math.sqrt(dot(a, a))


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return dot(a, b) / length(a) / length(b)


def mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def softmax(numbers: Sequence[float]) -> list[float]:
    powers = [math.exp(x - max(numbers)) for x in numbers]
    return [x / sum(powers) for x in powers]


def attention(block: KVBlock, q_LKPD: Tensor) -> list[float]:
    """What each visual token gets: mean over heads, layers and queries of softmax over all of the block."""
    got = [0.0] * block.num_tokens
    num_queries = q_LKPD.shape[2]
    for layer, head in HEADS:
        for query in q_LKPD[layer, head]:
            keys = block.k_LKTD[layer, head]
            logits = [dot(query.tolist(), k.tolist()) / math.sqrt(NUM_CHANNELS) for k in keys]
            got = [a + b / (len(HEADS) * num_queries) for a, b in zip(got, softmax(logits), strict=True)]
    return got[block.visual]


def top(scores: Sequence[float], num: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda i: -scores[i])[:num])


def kept_of(block: KVBlock, kept: KVBlock | None) -> list[int]:
    """Which visual tokens are left."""
    assert kept is not None
    return (kept.pos_3T[0, kept.visual] - block.num_before).tolist()


def pooled(numbers: Sequence[float], num_tokens: int) -> list[float]:
    half = num_tokens // 2
    return [mean(numbers[max(0, i - half) : i + half + 1]) for i in range(len(numbers))]


@SEEDS
def test_key_norm(seed: int) -> None:
    block = frame(seed)
    scores = []
    for token in range(SEEN):
        relative = [
            length(key(block, *at, token)) / mean([length(key(block, *at, other)) for other in range(SEEN)])
            for at in HEADS
        ]
        scores.append(-mean(relative))
    assert kept_of(block, KeyNorm(keep_tokens=KEEP).start().prune(block)) == top(scores, KEEP)


@SEEDS
@pytest.mark.parametrize("follows", [True, False])
def test_lag_kv(seed: int, follows: bool) -> None:
    block, after = frame(seed), frame(seed + 100, 1.0, num_before=4, num_visual=7)
    ruler = after if follows else block
    num_ruler = 7 if follows else SEEN
    scores = [0.0] * SEEN
    for at in HEADS:
        for read in (key, value):
            ruled = [read(ruler, *at, i) for i in range(num_ruler)]
            low, high = [min(c) for c in zip(*ruled, strict=True)], [max(c) for c in zip(*ruled, strict=True)]
            uneven = []
            for token in range(SEEN):
                y = [(x - a) / (b - a) for x, a, b in zip(read(block, *at, token), low, high, strict=True)]
                uneven.append(math.sqrt(mean([(one - mean(y)) ** 2 for one in y])))
            scores = [a + b for a, b in zip(scores, softmax(uneven), strict=True)]
    kept = LagKV(keep_tokens=KEEP).start().prune(block, [after, frame(9)] if follows else [])
    assert kept_of(block, kept) == top(scores, KEEP)


@SEEDS
def test_key_diff_remembers_all_keys_so_far(seed: int) -> None:
    run = KeyDiff(keep_tokens=KEEP).start()
    blocks = [frame(10 * seed + i, float(i), num_visual=SEEN + i) for i in range(4)]
    for number, block in enumerate(blocks):
        means = {}
        for at in HEADS:
            units = [
                [x / length(key(b, *at, i)) for x in key(b, *at, i)]
                for b in blocks[: number + 1]
                for i in range(b.visual.stop - b.visual.start)
            ]
            means[at] = [mean(channel) for channel in zip(*units, strict=True)]
        scores = [-mean([cosine(key(block, *at, i), means[at]) for at in HEADS]) for i in range(SEEN + number)]
        assert kept_of(block, run.prune(block)) == top(scores, KEEP)


@SEEDS
@pytest.mark.parametrize("num_following", [0, 1, 2, 3])
def test_infinipot_v(seed: int, num_following: int) -> None:
    block = frame(seed)
    # Another number of words before, and one place fewer: places are what counts.
    following = [frame(seed + 50 + i, 1.0 + i, num_before=1 + 2 * i, num_visual=SEEN - 1) for i in range(num_following)]
    kept = InfiniPotV(keep_tokens=KEEP).start().prune(block, following)
    first: list[int] = []
    if following:
        changes = []
        for token in range(SEEN):
            # Two of those that follow count; the last place is in none of them.
            near = [
                mean([cosine(key(block, *at, token), key(other, *at, token)) for at in HEADS])
                for other in following[:2]
                if token < SEEN - 1
            ]
            changes.append(-mean(near) if near else 0.0)
        first = top(changes, 2)
    weights = []
    for token in range(SEEN):
        norms = [
            length(value(block, *at, token)) / mean([length(value(block, *at, i)) for i in range(SEEN)]) for at in HEADS
        ]
        weights.append(mean(norms))
    weights = [math.inf if i in first else weight for i, weight in enumerate(pooled(weights, 3))]
    assert kept_of(block, kept) == top(weights, KEEP)


@SEEDS
@pytest.mark.parametrize("top_tokens", [0, 1, 3, 9, None])
def test_live_vlm(seed: int, top_tokens: int | None) -> None:
    block = frame(seed)
    assert block.q_LKPD is not None
    scores = attention(block, block.q_LKPD)
    ranked = sorted(range(SEEN), key=lambda i: -scores[i])
    chosen = ranked[: KEEP // 2 if top_tokens is None else min(top_tokens, KEEP)]
    for token in ranked:
        if len(chosen) < KEEP and token * KEEP // SEEN not in {i * KEEP // SEEN for i in chosen}:
            chosen.append(token)
    kept = LiveVLM(keep_tokens=KEEP, top_tokens=top_tokens).start().prune(block)
    assert kept_of(block, kept) == sorted(chosen)


@SEEDS
def test_elastic_cache_merges_into_the_nearest_anchor(seed: int) -> None:
    block = frame(seed)
    assert block.q_LKPD is not None
    anchors = top(attention(block, block.q_LKPD), KEEP)
    kept = ElasticCache(keep_tokens=KEEP).start().prune(block)
    assert kept is not None and kept_of(block, kept) == anchors
    nearest = [min(anchors, key=lambda a: (abs(a - token), a)) for token in range(SEEN)]
    for number, anchor in enumerate(anchors):
        group = [token for token in range(SEEN) if nearest[token] == anchor]
        for at in HEADS:
            for read in (key, value):
                expected = [mean(channel) for channel in zip(*(read(block, *at, i) for i in group), strict=True)]
                assert read(kept, *at, number) == pytest.approx(expected, abs=1e-5)


@SEEDS
def test_look_m_merges_into_the_kept_token_most_alike(seed: int) -> None:
    block = frame(seed)
    assert block.q_LKPD is not None
    stays = top(attention(block, block.q_LKPD), KEEP)
    kept = LookM(keep_tokens=KEEP).start().prune(block)
    assert kept is not None and kept_of(block, kept) == stays
    for at in HEADS:
        goes_to: dict[int, list[int]] = {token: [] for token in stays}
        for token in set(range(SEEN)) - set(stays):
            alike = max(stays, key=lambda s: cosine(key(block, *at, s), key(block, *at, token)))
            goes_to[alike].append(token)
        for number, token in enumerate(stays):
            for read in (key, value):
                own = read(block, *at, token)
                pivots = [
                    [(a + b) / 2 for a, b in zip(own, read(block, *at, gone), strict=True)] for gone in goes_to[token]
                ]
                expected = [mean(channel) for channel in zip(own, *pivots, strict=True)]
                assert read(kept, *at, number) == pytest.approx(expected, abs=1e-5)


@SEEDS
def test_question_time(seed: int) -> None:
    block = frame(seed)
    query_LKD = torch.randn(NUM_LAYERS, NUM_HEADS, NUM_CHANNELS)
    scores = attention(block, query_LKD.unsqueeze(2))
    assert kept_of(block, TOVA(keep_tokens=KEEP).prune_for(block, query_LKD)) == top(scores, KEEP)
    for num_tokens in (1, 3, 5):
        pruner = SnapKV(keep_tokens=KEEP, pool_tokens=num_tokens)
        assert kept_of(block, pruner.prune_for(block, query_LKD)) == top(pooled(scores, num_tokens), KEEP)
    with pytest.raises(ValueError, match="pool_tokens must be odd, at least 1; got 4"):
        SnapKV(pool_tokens=4)


def test_random_draws_anew_for_each_block_and_every_token_has_its_chance() -> None:
    run, block = RandomPruner(keep_tokens=KEEP, seed=3).start(), frame(0)
    draws = [tuple(kept_of(block, run.prune(block))) for _ in range(60)]
    assert len(set(draws)) > 20
    assert {token for draw in draws for token in draw} == set(range(SEEN))
    other = RandomPruner(keep_tokens=KEEP, seed=4).start()
    assert draws[:5] != [tuple(kept_of(block, other.prune(block))) for _ in range(5)]
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\*\*31\); got -1"):
        RandomPruner(seed=-1)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="top_tokens must not be negative, or None; got -1"):
        LiveVLM(top_tokens=-1)
    with pytest.raises(ValueError, match="temporal_tokens must not be negative, or None; got -2"):
        InfiniPotV(temporal_tokens=-2)
    with pytest.raises(ValueError, match="following_blocks must be at least 1; got 0"):
        InfiniPotV(following_blocks=0)
    with pytest.raises(ValueError, match="pool_tokens must be odd, at least 1; got 2"):
        InfiniPotV(pool_tokens=2)


def test_what_follows_must_be_comparable() -> None:
    block = frame(0)
    after = frame(1, 1.0)
    hurt = replace(after, k_LKTD=torch.full_like(after.k_LKTD, math.nan))
    for pruner in (LagKV(keep_tokens=KEEP), InfiniPotV(keep_tokens=KEEP)):
        with pytest.raises(ValueError, match="cannot be compared: got NaN, from blocks that follow it"):
            pruner.start().prune(block, [hurt])

"""What every tier promises. A new row needs a line in SETTINGS, nothing else."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory import TIERS, BlockId, KVBlock, PackedBlock, Tier
from millpond.memory.codecs.plain import PlainCodec
from millpond.memory.owned import storage_bytes
from millpond.memory.tiers import HostTier

from .blocks import make_block
from .method_docs import missing_from_docs

SETTINGS: dict[str, list[Callable[[], Tier]]] = {
    "host": [HostTier],
}
EVERY = [pytest.param(make, id=f"{name}-{i}") for name in SETTINGS for i, make in enumerate(SETTINGS[name])]


def packed(num_tokens: int = 3) -> PackedBlock:
    return PlainCodec().pack(make_block(num_tokens=num_tokens))


def equal(a: PackedBlock | None, b: PackedBlock) -> bool:
    return (
        a is not None
        and (a.codec, a.spec, a.num_tokens, a.advance, a.span, a.kind, a.id)
        == (b.codec, b.spec, b.num_tokens, b.advance, b.span, b.kind, b.id)
        and a.buffers.keys() == b.buffers.keys()
        and all(torch.equal(a.buffers[name], b.buffers[name]) for name in a.buffers)
    )


def test_every_row_has_settings() -> None:
    assert set(SETTINGS) == set(TIERS)


@pytest.mark.parametrize("name", TIERS)
def test_says_where_it_comes_from(name: str) -> None:
    assert missing_from_docs(TIERS[name]) == []


@pytest.mark.parametrize("make", EVERY)
@given(steps=st.lists(st.one_of(st.integers(1, 9), st.just("drop")), max_size=30), data=st.data())
def test_gives_back_what_it_was_given_and_counts_it(
    make: Callable[[], Tier], steps: list[int | str], data: st.DataObject
) -> None:
    tier = make()
    expected: dict[BlockId, PackedBlock] = {}
    for step in steps:
        if isinstance(step, int):
            block = packed(step)
            tier.put(block)
            expected[block.id] = block
        elif expected:
            gone = data.draw(st.sampled_from(sorted(expected)))
            del expected[gone]
            tier.drop(gone)
            assert tier.get(gone) is None
        tier.check()
        assert set(tier.ids) == set(expected)
        assert tier.num_bytes == sum(block.num_bytes for block in expected.values())
    for block in expected.values():
        assert equal(tier.get(block.id), block)


@pytest.mark.parametrize("make", EVERY)
def test_unknown_blocks_are_none_and_dropping_them_is_nothing(make: Callable[[], Tier]) -> None:
    tier, block = make(), packed()
    tier.put(block)
    assert tier.get(BlockId(-1)) is None
    tier.drop(BlockId(-1))
    assert set(tier.ids) == {block.id}
    with pytest.raises(ValueError, match=f"block {block.id} is in this tier already"):
        tier.put(block)
    tier.check()


@pytest.mark.parametrize("make", EVERY)
def test_pins_no_larger_storage_and_lets_dropped_blocks_go(make: Callable[[], Tier]) -> None:
    tier = make()
    kv = torch.randn(2, 2, 2, 50, 4)
    whole = make_block()
    part = PlainCodec().pack(KVBlock(kv[0, :, :, 7:10], kv[1, :, :, 7:10], whole.pos_3T, 3, whole.span))
    tier.put(part)
    kept = tier.get(part.id)
    assert equal(kept, part)
    assert kept is not None and storage_bytes(kept.buffers.values()) == part.num_bytes == tier.num_bytes
    tier.check()
    held = [weakref.ref(tensor) for tensor in kept.buffers.values()]
    del kept, part, whole
    tier.drop(next(iter(tier.ids)))
    gc.collect()
    assert [ref() for ref in held] == [None] * len(held)


def test_host_check_speaks_up_when_the_books_are_wrong() -> None:
    tier = HostTier()
    tier.put(packed())
    tier._num_bytes += 5
    with pytest.raises(RuntimeError, match=r"books say \d+ bytes; its 1 blocks hold \d+"):
        tier.check()

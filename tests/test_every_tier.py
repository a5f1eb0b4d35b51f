"""What every tier promises. A new row needs a line in SETTINGS, nothing else."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory import TIERS, BlockId, KVBlock, PackedBlock, Tier
from millpond.memory.cascade_tier import CascadeTier
from millpond.memory.codecs.plain import PlainCodec
from millpond.memory.owned import storage_bytes
from millpond.memory.slab_tier import SlabTier
from millpond.memory.tiers import HostTier

from .blocks import make_block
from .method_docs import missing_from_docs
from .packed import equal, packed_block

SETTINGS: dict[str, list[Callable[[], Tier]]] = {
    "host": [HostTier],
    "slab": [SlabTier],
    # with nothing on the device, with a few blocks there, with all
    "cascade": [partial(CascadeTier, device_bytes, "cpu") for device_bytes in (0, 2_000, 2**30)],
}
EVERY = [pytest.param(make, id=f"{name}-{i}") for name in SETTINGS for i, make in enumerate(SETTINGS[name])]


def test_every_row_has_settings() -> None:
    assert set(SETTINGS) == set(TIERS)


@pytest.mark.parametrize("name", TIERS)
def test_says_where_it_comes_from(name: str) -> None:
    assert missing_from_docs(TIERS[name]) == []


@pytest.mark.parametrize("name", TIERS)
def test_a_row_can_be_used_as_it_is(name: str) -> None:
    tier, block = TIERS[name](), packed_block(3)
    tier.put(block)
    kept = tier.get(block.id)
    assert kept is not None and all(torch.equal(kept.buffers[k].cpu(), block.buffers[k]) for k in block.buffers)


@pytest.mark.parametrize("make", EVERY)
@given(steps=st.lists(st.one_of(st.integers(1, 40), st.just("drop")), max_size=40), data=st.data())
def test_gives_back_what_it_was_given_and_counts_it(
    make: Callable[[], Tier], steps: list[int | str], data: st.DataObject
) -> None:
    tier = make()
    expected: dict[BlockId, PackedBlock] = {}
    for step in steps:
        if isinstance(step, int):
            block = packed_block(step)
            foretold_bytes, again_bytes = tier.num_bytes_with(block), tier.num_bytes_with(block)
            if not expected:
                assert foretold_bytes == tier.num_bytes_alone(block)
            tier.put(block)
            expected[block.id] = block
            assert tier.num_bytes == foretold_bytes == again_bytes
        elif expected:
            gone = data.draw(st.sampled_from(sorted(expected)))
            del expected[gone]
            tier.drop(gone)
            assert tier.get(gone) is None
        tier.check()
        assert set(tier.ids) == set(expected)
        assert tier.num_bytes >= sum(block.num_bytes for block in expected.values())
    for block in expected.values():
        assert equal(tier.get(block.id), block)
    for block_id in list(expected):
        tier.drop(block_id)
    assert tier.num_bytes == 0 and not tier.ids
    tier.check()


@pytest.mark.parametrize("make", EVERY)
@given(num_tokens=st.integers(1, 40), others=st.lists(st.integers(1, 40), max_size=5))
def test_an_emptied_tier_takes_what_a_new_one_would(
    make: Callable[[], Tier], num_tokens: int, others: list[int]
) -> None:
    tier, block = make(), packed_block(num_tokens)
    for other in [packed_block(n) for n in others]:
        tier.put(other)
    for block_id in list(tier.ids):
        tier.drop(block_id)
    assert tier.num_bytes_with(block) == tier.num_bytes_alone(block) == make().num_bytes_with(block)


@pytest.mark.parametrize("make", EVERY)
def test_unknown_blocks_are_none_and_dropping_them_is_nothing(make: Callable[[], Tier]) -> None:
    tier, block = make(), packed_block()
    tier.put(block)
    assert tier.get(BlockId(-1)) is None
    tier.drop(BlockId(-1))
    assert set(tier.ids) == {block.id}
    with pytest.raises(ValueError, match=f"block {block.id} is in this tier already"):
        tier.put(block)
    assert equal(tier.get(block.id), block)
    tier.check()


@pytest.mark.parametrize("make", EVERY)
def test_what_was_given_out_stays_as_it_is(make: Callable[[], Tier]) -> None:
    tier = make()
    blocks = [packed_block(5) for _ in range(6)]
    for block in blocks:
        tier.put(block)
    given_out = [tier.get(block.id) for block in blocks]
    for block in blocks:
        tier.drop(block.id)
        tier.put(packed_block(7))
    assert all(equal(kept, block) for kept, block in zip(given_out, blocks, strict=True))


@pytest.mark.parametrize("make", EVERY)
def test_keeps_any_dtype_shape_and_word(make: Callable[[], Tier]) -> None:
    tier = make()
    odd = packed_block(
        9,
        buffers={
            "half": torch.randn(3, 5).bfloat16(),
            "eighth": torch.randn(7).to(torch.float8_e4m3fn),
            "odd": torch.arange(11, dtype=torch.int8),
            "place": torch.arange(12).reshape(3, 4).T,
            "none": torch.zeros(0, 4),
            "one": torch.tensor(True),
        },
        codec="other",
        kind="text",
        advance=2**40,
        num_before=3,
        num_after=6,
    )
    for block in (odd, packed_block(2, buffers={})):
        tier.put(block)
        assert equal(tier.get(block.id), block)
    tier.check()


@pytest.mark.parametrize("make", EVERY)
def test_pins_no_larger_storage_and_lets_blocks_go(make: Callable[[], Tier]) -> None:
    tier = make()
    kv = torch.randn(2, 2, 2, 50, 4)
    whole = make_block()
    part = PlainCodec().pack(KVBlock(kv[0, :, :, 7:10], kv[1, :, :, 7:10], whole.pos_3T, 3, whole.span))
    large = weakref.ref(kv)
    tier.put(part)
    kept = tier.get(part.id)
    assert equal(kept, part)
    assert kept is not None and storage_bytes(kept.buffers.values()) == part.num_bytes
    tier.check()
    held = [weakref.ref(tensor) for tensor in kept.buffers.values()]
    del kept, part, whole, kv
    gc.collect()
    assert large() is None
    tier.drop(next(iter(tier.ids)))
    gc.collect()
    assert [ref() for ref in held] == [None] * len(held)


def test_host_check_speaks_up_when_the_books_are_wrong() -> None:
    tier = HostTier()
    tier.put(packed_block())
    tier._num_bytes += 5
    with pytest.raises(RuntimeError, match=r"books say \d+ bytes; its 1 blocks hold \d+"):
        tier.check()

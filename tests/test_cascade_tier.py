"""The cascade: newest blocks on the device, never more than its share, the others on the host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory import BlockId, PackedBlock
from millpond.memory.cascade_tier import CascadeTier

from .packed import block_of_bytes, equal


@given(
    device_bytes=st.integers(0, 40_000),
    steps=st.lists(st.one_of(st.integers(0, 9_000), st.sampled_from(["oldest", "newest", "middle"])), max_size=60),
)
def test_the_device_holds_the_newest_and_no_more_than_its_share(device_bytes: int, steps: list[int | str]) -> None:
    tier = CascadeTier(device_bytes, "cpu")
    held: dict[BlockId, PackedBlock] = {}
    for step in steps:
        if isinstance(step, int):
            block = block_of_bytes(step)
            foretold_bytes = tier.num_bytes_with(block)
            tier.put(block)
            held[block.id] = block
            assert tier.num_bytes == foretold_bytes
        elif held:
            gone = sorted(held)[{"oldest": 0, "newest": -1, "middle": len(held) // 2}[step]]
            tier.drop(gone)
            del held[gone]
        tier.check()
        assert tier._on_device.num_bytes <= device_bytes
        assert tier.ids == set(held)
        assert list(tier.ids_on_device) == sorted(tier.ids_on_device)
    assert all(equal(tier.get(block_id), block) for block_id, block in held.items())


def test_blocks_of_one_length_are_on_the_device_from_the_newest_on() -> None:
    tier = CascadeTier(50_000, "cpu")
    blocks = [block_of_bytes(4_000) for _ in range(100)]
    for block in blocks:
        tier.put(block)
    on_device = list(tier.ids_on_device)
    assert 10 <= len(on_device) <= 12
    assert on_device == [block.id for block in blocks[-len(on_device) :]]
    assert all(equal(tier.get(block.id), block) for block in blocks)
    assert list(tier.ids_on_device) == on_device, "asking moves nothing"


def test_a_block_that_is_more_than_the_device_may_hold_goes_to_the_host() -> None:
    tier = CascadeTier(10_000, "cpu")
    small, large = block_of_bytes(2_000), block_of_bytes(20_000)
    for block in (small, large):
        tier.put(block)
    assert list(tier.ids_on_device) == [small.id] and tier.ids == {small.id, large.id}


@pytest.mark.parametrize("device_bytes", [-1, 1.5, True])
def test_a_share_that_is_no_number_of_bytes_is_refused(device_bytes: int) -> None:
    with pytest.raises(ValueError, match="device_bytes must be a whole number, at least 0; got"):
        CascadeTier(device_bytes)


def test_check_finds_wrong_books() -> None:
    tier = CascadeTier(50_000, "cpu")
    block = block_of_bytes(4_000)
    tier.put(block)
    tier.device_bytes = 100
    with pytest.raises(RuntimeError, match=r"\d+ bytes are on the device, of 100 at most"):
        tier.check()
    tier.device_bytes = 50_000
    tier._on_host.put(block)
    with pytest.raises(RuntimeError, match="1 blocks are on the device; it has 1, and 1 are on the host too"):
        tier.check()

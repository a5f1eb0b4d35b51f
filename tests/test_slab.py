"""The slab: held to a dictionary, step by step; how many bytes it wastes, and that it stands still."""

from __future__ import annotations

import random
from array import array

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from millpond.memory import BlockId, PackedBlock
from millpond.memory.slab import Slab, page_bytes_for
from millpond.memory.slab_tier import SlabTier
from millpond.memory.tiers import HostTier

from .packed import block_of_bytes, equal

LENGTHS_BYTES = st.one_of(
    st.integers(0, 2_000), st.sampled_from([191, 192, 193, 1024, 4096]), st.integers(2_000, 60_000)
)


class SlabAgainstDict(RuleBasedStateMachine):
    """Whatever comes and goes, the slab holds what a dictionary holds, in few bytes more."""

    def __init__(self) -> None:
        super().__init__()
        self.slab, self.twin = SlabTier(), HostTier()
        self.given_out: list[tuple[PackedBlock, PackedBlock]] = []
        self.page_bytes = 0

    def put_one(self, num_bytes: int) -> None:
        block = block_of_bytes(num_bytes)
        if not self.twin.ids:
            self.page_bytes = page_bytes_for(num_bytes)
        foretold_bytes = self.slab.num_bytes_with(block)
        self.slab.put(block)
        self.twin.put(block)
        assert self.slab.num_bytes == foretold_bytes

    @rule(num_bytes=LENGTHS_BYTES)
    def put(self, num_bytes: int) -> None:
        self.put_one(num_bytes)

    @rule(num_bytes=st.integers(100, 3_000), num_blocks=st.integers(2, 60))
    def put_many(self, num_bytes: int, num_blocks: int) -> None:
        lengths_bytes = [num_bytes + i for i in range(num_blocks)]
        if self.twin.ids:
            foretold_bytes = self.slab.num_bytes_with_all(lengths_bytes)
            for length_bytes in lengths_bytes:
                self.put_one(length_bytes)
            assert self.slab.num_bytes == foretold_bytes

    @precondition(lambda self: self.twin.ids)
    @rule(data=st.data())
    def get_and_drop(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.twin.ids)))
        kept, twin = self.slab.get(gone), self.twin.get(gone)
        assert kept is not None and twin is not None
        self.given_out = [*self.given_out[-3:], (kept, twin)]
        self.slab.drop(gone)
        self.twin.drop(gone)

    @precondition(lambda self: self.twin.ids)
    @rule(seed=st.integers(0, 2**16), keep_every=st.integers(2, 20), is_oldest_first=st.booleans())
    def drop_most(self, seed: int, keep_every: int, is_oldest_first: bool) -> None:
        ids = sorted(self.twin.ids)
        if not is_oldest_first:
            random.Random(seed).shuffle(ids)
        for gone in ids[: len(ids) - len(ids) // keep_every]:
            self.slab.drop(gone)
            self.twin.drop(gone)

    @invariant()
    def is_the_same(self) -> None:
        self.slab.check()
        assert set(self.slab.ids) == set(self.twin.ids)
        for block_id in self.twin.ids:
            twin = self.twin.get(block_id)
            assert twin is not None and equal(self.slab.get(block_id), twin)
        assert all(equal(kept, twin) for kept, twin in self.given_out)

    @invariant()
    def wastes_little(self) -> None:
        if not self.twin.ids:
            assert self.slab.num_bytes == 0
            return
        # Half a page a block, links and directory, and free room for the largest block that comes, twice.
        in_pages_bytes = self.twin.num_bytes + self.page_bytes * len(self.twin.ids)
        assert self.slab.num_bytes <= 1.25 * in_pages_bytes + 130 * len(self.twin.ids) + 2 * 65_000


TestSlabAgainstDict = SlabAgainstDict.TestCase
TestSlabAgainstDict.settings = settings(max_examples=40, stateful_step_count=20)


@pytest.mark.parametrize(
    ("num_bytes", "num_blocks"), [(1_000, 1000), (1_024, 300), (45_000, 200), (700_001, 60), (11_239_424, 6)]
)
def test_equal_blocks_of_any_length_waste_a_tenth_at_most(num_bytes: int, num_blocks: int) -> None:
    tier = SlabTier()
    block = block_of_bytes(num_bytes)
    for i in range(num_blocks):
        tier.put(PackedBlock(**{**fields(block), "id": BlockId(i)}))
        assert tier.num_bytes <= 1.10 * num_bytes * (i + 1) + 500
    tier.check()


@pytest.mark.parametrize(("first_bytes", "waste"), [(1_000, 0.35), (30_000, 0.08), (600_000, 0.05)])
def test_blocks_of_other_lengths_than_the_first_waste_little(first_bytes: int, waste: float) -> None:
    rng = random.Random(0)
    tier, held_bytes = SlabTier(), 0
    tier.put(block_of_bytes(first_bytes))
    for _ in range(40):
        num_bytes = rng.randint(first_bytes // 2, first_bytes * 2)
        tier.put(block_of_bytes(num_bytes))
        held_bytes += num_bytes
    assert tier.num_bytes - first_bytes <= (1 + waste) * held_bytes + 500


def test_a_stream_at_its_cap_allocates_nothing() -> None:
    tier = SlabTier()
    for i in range(400):
        tier.put(PackedBlock(**{**fields(block_of_bytes(5_000)), "id": BlockId(i)}))
    places = storages(tier)
    num_bytes, rows = tier.num_bytes, tier._rows
    for i in range(400, 1500):
        tier.drop(BlockId(i - 400))
        tier.put(PackedBlock(**{**fields(block_of_bytes(5_000)), "id": BlockId(i)}))
        assert tier.num_bytes == num_bytes
    assert storages(tier) == places and tier._rows is rows
    tier.check()


def test_few_large_blocks_at_their_cap_allocate_nothing() -> None:
    tier, blocks = SlabTier(), [block_of_bytes(100_000) for _ in range(20)]
    for block in blocks[:3]:
        tier.put(block)
    places = storages(tier)
    for old, new in zip(blocks, blocks[3:], strict=False):
        tier.drop(old.id)
        tier.put(new)
    assert storages(tier) == places


def test_tens_of_thousands_of_blocks_take_a_few_tensors() -> None:
    tier, block = SlabTier(), block_of_bytes(64)
    for i in range(30_000):
        tier.put(PackedBlock(**{**fields(block), "id": BlockId(i)}))
    assert len(storages(tier)) < 400
    for i in range(29_000):
        tier.drop(BlockId(i))
    assert tier.num_bytes < 1.3 * 1000 * (192 + 8 + 48)
    assert all(equal_but_id(tier.get(BlockId(i)), block) for i in range(29_000, 30_000))
    tier.check()


def test_room_is_given_back_whatever_order_blocks_go_in() -> None:
    blocks = [block_of_bytes(3_000) for _ in range(500)]
    tier = SlabTier()
    for block in blocks:
        tier.put(block)
    gone = random.Random(1).sample(blocks, 450)
    for num_left, block in zip(range(499, 49, -1), gone, strict=True):
        tier.drop(block.id)
        assert tier.num_bytes <= 1.20 * num_left * 3_000 + 4 * 3_000
    left = [block for block in blocks if block.id in tier.ids]
    assert len(left) == 50 and all(equal(tier.get(block.id), block) for block in left)
    tier.check()


def test_forms_of_blocks_that_went_are_forgotten() -> None:
    tier = SlabTier()
    for num_bytes in range(300):
        block = block_of_bytes(num_bytes)
        tier.put(block)
        if num_bytes >= 2:
            tier.drop(block.id - 2)
    assert len(tier._forms.num_uses) == len(tier._forms._forms) == len(tier._forms._numbers) == 2


def test_a_block_that_needs_too_many_pages_is_refused_and_changes_nothing() -> None:
    tier, small = SlabTier(), block_of_bytes(100)
    tier.put(small)
    before_bytes = tier.num_bytes
    huge = block_of_bytes(1)
    huge = PackedBlock(**{**fields(huge), "buffers": {"k": torch.zeros(1, dtype=torch.uint8).expand(2**30)}})
    with pytest.raises(ValueError, match="got a block of 5592406 pages; at most 4194303 come at once"):
        tier.num_bytes_with(huge)
    assert tier.num_bytes == before_bytes and equal(tier.get(small.id), small)


class NoMoreMemory(Exception):
    """Stands for what an allocator raises."""


def test_out_of_memory_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [block_of_bytes(4_000) for _ in range(9)]
    tier = SlabTier()
    for block in blocks[:8]:  # the directory is full too
        tier.put(block)

    def refuse(*args: object, **kwargs: object) -> torch.Tensor:
        raise NoMoreMemory

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", refuse)
        with pytest.raises(NoMoreMemory):
            tier.put(blocks[8])
    tier.check()
    assert set(tier.ids) == {block.id for block in blocks[:8]}
    tier.put(blocks[8])
    assert all(equal(tier.get(block.id), block) for block in blocks)


def filled() -> SlabTier:
    tier = SlabTier()
    for num_bytes in (3_000, 2_000, 4_000, 100):
        tier.put(block_of_bytes(num_bytes))
    tier.drop(min(tier.ids))
    tier.check()
    return tier


def test_check_finds_wrong_books() -> None:
    tier = filled()
    tier._slab._num_pages += 1
    with pytest.raises(RuntimeError, match=r"books say \d+ bytes; it holds \d+"):
        tier.check()
    tier = filled()
    tier._slab._num_free += 1
    with pytest.raises(RuntimeError, match=r"books say \d+ free pages; it has \d+"):
        tier.check()
    tier = filled()
    tier._row_by_id[BlockId(10**9)] = tier._row_by_id.pop(max(tier.ids))
    with pytest.raises(RuntimeError, match=r"the directory has 3 blocks; its rows name 3, or others"):
        tier.check()
    tier = filled()
    tier._free_row = -1
    with pytest.raises(RuntimeError, match=r"of 8 rows 3 are used and 0 free"):
        tier.check()
    tier = filled()
    tier._forms.num_uses[99] = 1
    with pytest.raises(RuntimeError, match="3 forms are used; the books say 4"):
        tier.check()


def test_check_finds_wrong_links() -> None:
    tier = filled()
    first = int(tier._rows["first_page"][tier._row_by_id[max(tier.ids) - 1]])
    tier._slab.retag(first, 5)
    with pytest.raises(RuntimeError, match="do not point back at each other"):
        tier.check()
    tier = filled()
    chunk = next(chunk for chunk in tier._slab._chunks if chunk is not None and chunk.num_free == 0)
    chunk.after[0] = -1
    with pytest.raises(RuntimeError, match=r"a string of \d+ bytes is in \d+ pages"):
        tier.check()
    tier = filled()
    first = int(tier._rows["first_page"][tier._row_by_id[max(tier.ids) - 1]])
    chunk = tier._slab._chunk(first)
    chunk.after[:] = array("i", [first] * chunk.num_pages)
    with pytest.raises(RuntimeError, match="runs in a circle"):
        tier.check()


def test_strings_are_poured_whole_whatever_the_cuts() -> None:
    slab = Slab(torch.device("cpu"))
    data = torch.randint(256, (5_000,), dtype=torch.uint8)
    first = slab.put(list(data.split([0, 1, 4_000, 0, 999])), tag=0)
    out = torch.empty_like(data)
    slab.read(first, list(out.split([2_500, 0, 2_499, 1])))
    assert torch.equal(out, data)


def fields(block: PackedBlock) -> dict[str, object]:
    return {name: getattr(block, name) for name in PackedBlock.__dataclass_fields__}


def equal_but_id(a: PackedBlock | None, b: PackedBlock) -> bool:
    return a is not None and equal(PackedBlock(**{**fields(a), "id": b.id}), b)


def storages(tier: SlabTier) -> list[int]:
    return [chunk.bytes_B.data_ptr() for chunk in tier._slab._chunks if chunk is not None]

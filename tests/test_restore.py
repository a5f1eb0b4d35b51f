"""What a keeper wrote makes the same memory again: other processes, other limits, other models."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from millpond.memory import KVBlock, Memory, MemoryConfig
from millpond.memory.depot_keeper import DepotKeeper, read_blocks
from millpond.memory.depots import Depot, DepotWriter, Kind, Payload, open_depot
from millpond.memory.depots.ram import RamDepot
from millpond.memory.keeper import AtRest

from .blocks import SHAPE_LKD, make_block, same

# Shapes: L layers, K key/value heads, P probing tokens, D channels per head.

MODEL = "a model"
SMALL = MemoryConfig(recent_frames=3, budget_bytes=6000, recall_blocks=4, codec="int8")


@contextmanager
def depot_of(kind: str) -> Iterator[Depot]:
    folder = tempfile.mkdtemp()
    depot = open_depot(None if kind == "ram" else Path(folder) / "depot")
    try:
        yield depot
    finally:
        depot.close()
        shutil.rmtree(folder)


class Session:
    """A memory that writes to a depot."""

    def __init__(self, depot: Depot, config: MemoryConfig = SMALL) -> None:
        self.depot = depot
        self.writer = DepotWriter(depot, patience_s=10.0)
        self.memory = Memory(config, DepotKeeper(self.writer, MODEL))

    def close(self) -> None:
        """Brings all to rest."""
        assert self.writer.flush(20.0)
        self.writer.close()


def back(depot: Depot, config: MemoryConfig = SMALL) -> Memory:
    memory = Memory(config)
    found = read_blocks(depot, MODEL)
    assert not found.foreign and not found.damaged
    memory.restore(found.blocks)
    memory.check()
    return memory


def question(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE_LKD, generator=torch.Generator().manual_seed(seed))


def check_twins(one: Memory, other: Memory) -> None:
    """Nobody who asks can tell them apart."""
    assert list(other.older.items()) == list(one.older.items())
    assert [block.id for block in other.recent] == [block.id for block in one.recent]
    assert all(same(a, b) for a, b in zip(other.recent, one.recent, strict=True))
    for seed in range(3):
        a, b = one.recall(question(seed)), other.recall(question(seed))
        assert a.num_missed == b.num_missed == 0 and len(a.blocks) == len(b.blocks)
        assert all(same(x, y) for x, y in zip(a.blocks, b.blocks, strict=True))
    everything = len(one.older)
    a, b = one.recall(question(), num_blocks=everything), other.recall(question(), num_blocks=everything)
    assert len(a.blocks) == everything and all(same(x, y) for x, y in zip(a.blocks, b.blocks, strict=True))


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([0.0, 0.5, 30.0]), st.integers(1, 12)),
        st.sampled_from(["flush", "die", "forget"]),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(
    steps=steps,
    kind=st.sampled_from(["ram", "directory"]),
    recent_frames=st.integers(1, 4),
    budget_bytes=st.sampled_from([0, 2500, 6000, 10**6]),
    codec=st.sampled_from(["plain", "int8", "int4", "adaptive"]),
    pruner=st.sampled_from(["none", "key_norm", "streaming_llm"]),
)
def test_any_stream_comes_back(
    steps: list[Any], kind: str, recent_frames: int, budget_bytes: int, codec: str, pruner: str
) -> None:
    """Also where it is written by several lives, each of which begins with what the one before knew."""
    config = MemoryConfig(
        recent_frames=recent_frames, budget_bytes=budget_bytes, recall_blocks=4, codec=codec, pruner=pruner
    )
    now_s = 0.0
    with depot_of(kind) as depot:
        session = Session(depot, config)
        for step in steps:
            if step == "flush":
                assert session.writer.flush(20.0)
            elif step == "forget":
                session.memory.forget()
            elif step == "die":
                session.close()
                before = session.memory
                session = Session(depot, config)
                session.memory.restore(read_blocks(depot, MODEL).blocks)
                check_twins(before, session.memory)
            else:
                now_s += step[0]
                session.memory.append(make_block(now_s, num_tokens=step[1]))
        session.close()
        depot.check()
        held = {*session.memory.older, *(block.id for block in session.memory.recent)}
        assert set(depot.numbers("kv")) == held, "what is let go is not at rest either"
        check_twins(session.memory, back(depot, config))


class Killed(RamDepot):
    """Holds what a process had written that waited for its disk, and was killed after so many records."""

    def __init__(self, num_records: int) -> None:
        super().__init__()
        self.moves = threading.Event()
        self._num_left = num_records

    def put(self, kind: Kind, number: int, payload: Payload) -> None:
        self.moves.wait(20.0)
        self._num_left -= 1
        if self._num_left >= 0:
            super().put(kind, number, payload)


@settings(max_examples=40)
@given(num_blocks=st.integers(1, 12), num_records=st.integers(0, 16), recent_frames=st.integers(1, 4))
def test_a_writer_that_is_killed_when_it_is_behind_leaves_a_beginning_and_perhaps_a_shorter_window(
    num_blocks: int, num_records: int, recent_frames: int
) -> None:
    depot = Killed(num_records)
    session = Session(depot, replace(SMALL, recent_frames=recent_frames, budget_bytes=10**6))
    blocks = [make_block(float(n)) for n in range(num_blocks)]
    for block in blocks:
        session.memory.append(block)
    depot.moves.set()
    session.close()
    memory = back(depot, session.memory.config)
    num_known = len(list(depot.numbers("kv")))
    # The one that the writer had in its hands may have been written again.
    assert min(num_blocks, num_records - 1) <= num_known <= min(num_blocks, num_records)
    assert [*memory.older, *(block.id for block in memory.recent)] == [block.id for block in blocks[:num_known]]
    assert all(same(block, blocks[num_known - n]) for n, block in enumerate(reversed(memory.recent), 1))
    never_left = max(0, num_known - max(0, num_blocks - recent_frames))
    assert never_left <= len(memory.recent) <= recent_frames


def test_numbers_go_on_after_those_that_came_back() -> None:
    with depot_of("ram") as depot:
        session = Session(depot)
        newest = make_block(1.0)
        newest = replace(newest, id=type(newest.id)(newest.id + 1000))
        session.memory.append(newest)
        session.close()
        back(depot)
        assert make_block().id > newest.id


def test_queries_come_back_with_the_blocks_that_are_yet_to_be_pruned() -> None:
    with depot_of("ram") as depot:
        session = Session(depot)
        for n in range(2):
            session.memory.append(make_block(float(n), q_LKPD=torch.randn(*SHAPE_LKD[:2], 2, SHAPE_LKD[2])))
        session.close()
        for a, b in zip(session.memory.recent, back(depot).recent, strict=True):
            assert a.q_LKPD is not None and b.q_LKPD is not None and torch.equal(a.q_LKPD, b.q_LKPD)


def test_exact_records_in_the_middle_are_packed_as_if_they_had_left_the_window() -> None:
    """As a kill leaves them that came between a block's leaving and the writing of what it became."""
    blocks = [make_block(float(n), num_tokens=4) for n in range(12)]
    twin = Memory(SMALL)
    for block in blocks:
        twin.append(block)
    with depot_of("ram") as depot:
        session = Session(depot)
        for block in blocks:
            session.memory.append(block)
        session.close()
        packed = {at_rest.block.id: at_rest for at_rest in read_blocks(depot, MODEL).blocks}
    exact = {block.id: AtRest(block, None) for block in blocks}
    chosen = [(exact if n in (3, 4, 7) else packed)[block.id] for n, block in enumerate(blocks)]
    memory = Memory(SMALL)
    memory.restore(reversed(chosen))  # in whatever order they come
    memory.check()
    check_twins(twin, memory)


@pytest.mark.parametrize("recent_frames", [1, 2, 6])
@pytest.mark.parametrize("budget_bytes", [0, 900, 6000, 10**6])
def test_other_limits_hold_from_the_reopening_on(recent_frames: int, budget_bytes: int) -> None:
    with depot_of("ram") as depot:
        session = Session(depot)
        for n in range(20):
            session.memory.append(make_block(float(n), num_tokens=4))
        session.close()
        known = [*session.memory.older, *(block.id for block in session.memory.recent)]
        config = replace(SMALL, recent_frames=recent_frames, budget_bytes=budget_bytes, evictor="oldest")
        memory = back(depot, config)
    recent = [block.id for block in memory.recent]
    # Those that were packed are exact no more, so a larger window fills with what comes.
    assert recent == known[-min(recent_frames, SMALL.recent_frames) :]
    left = known[: len(known) - len(recent)]
    assert list(memory.older) == left[len(left) - len(memory.older) :], "the oldest go"
    stats = memory.stats
    assert stats.older_bytes + stats.index_bytes <= budget_bytes
    assert stats.num_evicted == len(left) - len(memory.older)
    if budget_bytes == 10**6:
        assert len(memory.older) == len(left)
    for n in range(30):
        memory.append(make_block(20.0 + n, num_tokens=4))
        memory.check()
    assert len(memory.recent) == recent_frames


def check_refused(memory: Memory, came: list[AtRest], sentence: str) -> None:
    """Nothing is taken, and nothing that was there is lost."""
    recent, older, stats = memory.recent, dict(memory.older), memory.stats
    gone = list(older)[:1]
    with pytest.raises(ValueError, match=sentence):
        memory.restore(came, gone)
    assert memory.recent == recent and dict(memory.older) == older and memory.stats == stats
    memory.check()


def records(config: MemoryConfig, **shape: Any) -> list[AtRest]:
    with depot_of("ram") as depot:
        session = Session(depot, config)
        for n in range(10):
            session.memory.append(make_block(100.0 + n, **shape))
        session.close()
        return read_blocks(depot, MODEL).blocks


@pytest.mark.parametrize(
    ("config", "shape", "sentence"),
    [
        (replace(SMALL, codec="int4"), {}, "int4"),
        (replace(SMALL, codec="plain", recent_frames=1), {"dtype": torch.bfloat16}, "holds blocks of"),
        (SMALL, {"shape_LKD": (3, 2, 4)}, "holds blocks of"),
        (SMALL, {"shape_LKD": (2, 2, 8)}, "holds blocks of"),
        (replace(SMALL, retriever="recent"), {}, "another retriever"),
    ],
    ids=["codec", "dtype", "layers", "channels", "retriever"],
)
def test_blocks_of_others_are_refused_before_anything_is_taken(
    config: MemoryConfig, shape: dict[str, Any], sentence: str
) -> None:
    memory = Memory(SMALL)
    for n in range(8):
        memory.append(make_block(float(n)))
    foreign = records(config, **shape)
    check_refused(memory, foreign, sentence)
    own = records(SMALL)
    check_refused(memory, [*own[:5], foreign[0], *own[5:]], sentence)


def test_a_row_that_is_none_of_this_index_is_refused() -> None:
    own = records(SMALL)
    assert own[0].row is not None
    for row in (None, own[0].row[:1], own[0].row.double(), 2 * own[0].row, torch.full_like(own[0].row, float("inf"))):
        check_refused(Memory(SMALL), [AtRest(own[0].block, row), *own[1:]], "another retriever")


def test_keys_of_another_model_and_damage_are_told_apart() -> None:
    with depot_of("ram") as depot:
        session = Session(depot)
        for n in range(6):
            session.memory.append(make_block(float(n)))
        session.close()
        ids = depot.numbers("kv")
        assert read_blocks(depot, "another model").foreign == ids
        assert read_blocks(depot, MODEL, known=set(ids)).blocks == []
        data = depot.get("kv", ids[2])
        assert data is not None
        depot.put("kv", ids[3], data)  # under another's number
        depot.put("kv", ids[0], data[:40])
        depot.put("kv", ids[1], b"")
        found = read_blocks(depot, MODEL)
        assert found.damaged == [ids[0], ids[1], ids[3]] and found.ids == set(ids)
        assert [at_rest.block.id for at_rest in found.blocks] == [ids[2], *ids[4:]]


def test_what_a_reader_is_told_is_gone_goes() -> None:
    """As a session that follows a writer takes it: what came since, and what is at rest no more."""
    with depot_of("ram") as depot:
        session, reader = Session(depot), Memory(SMALL)
        for n in range(30):
            session.memory.append(make_block(float(n), num_tokens=4))
            if n % 4 == 3:
                assert session.writer.flush(20.0)
                found = read_blocks(depot, MODEL, known=set(reader.older))
                reader.restore(found.blocks, set(reader.older) - found.ids)
                reader.check()
                check_twins(session.memory, reader)
        assert reader.stats.num_evicted > 0
        session.close()


def exact(block: KVBlock) -> AtRest:
    return AtRest(block, None)


def test_nothing_to_restore_is_nothing() -> None:
    memory = Memory(SMALL)
    memory.restore([])
    memory.restore([], [make_block().id])
    assert memory.recent == () and not memory.older
    memory.restore([exact(make_block(5.0))])
    with pytest.raises(ValueError, match="in order of time"):
        memory.append(make_block(4.0))
    memory.append(make_block(5.0))
    memory.check()

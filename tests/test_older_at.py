"""What was shown at a moment is found without looking at every block."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from millpond.memory import Memory, MemoryConfig

from .blocks import make_block


@given(
    gaps=st.lists(st.tuples(st.sampled_from([0.0, 0.5, 3.0, 9.0]), st.sampled_from([0.0, 1.0])), max_size=14),
    asked=st.lists(st.floats(-5, 80), max_size=5),
    num_kept=st.integers(0, 14),
)
def test_the_block_of_a_moment_is_the_newest_that_had_begun(
    gaps: list[tuple[float, float]], asked: list[float], num_kept: int
) -> None:
    start_s, blocks = 0.0, []
    for gap_s, block_s in gaps:
        start_s += gap_s
        blocks.append(make_block(start_s, last_s=start_s + block_s))
    plain = MemoryConfig(recent_frames=1, codec="plain", retriever="recent", tier="host")
    one = Memory(plain)
    for block in blocks[:2]:
        one.append(block)
    memory = Memory(dataclasses.replace(plain, budget_bytes=num_kept * one.stats.older_bytes))
    for block in blocks:
        memory.append(block)
        memory.check()
    for at_s in asked:
        begun = [block_id for block_id, span in memory.older.items() if span.start_s <= at_s]
        assert memory.older_at(at_s) == (begun[-1] if begun else None)

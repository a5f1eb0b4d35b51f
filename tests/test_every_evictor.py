"""What every evictor promises. A new row needs a line in SETTINGS, nothing else."""

from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory import EVICTORS, BlockId, Evictor, Memory, MemoryConfig
from millpond.memory.evictors import LeastNovelEvictor, OldestEvictor
from millpond.stream import Span

from .blocks import SHAPE_LKD, make_block
from .method_docs import missing_from_docs

SETTINGS: dict[str, list[Evictor]] = {
    "least_novel": [LeastNovelEvictor(), LeastNovelEvictor(among=1), LeastNovelEvictor(among=3)],
    "oldest": [OldestEvictor()],
}
EVERY = [pytest.param(one, id=f"{name}-{i}") for name in SETTINGS for i, one in enumerate(SETTINGS[name])]


def test_every_row_has_settings() -> None:
    assert set(SETTINGS) == set(EVICTORS)
    for name, evictors in SETTINGS.items():
        assert all(type(evictor) is EVICTORS[name] for evictor in evictors)


@pytest.mark.parametrize("name", EVICTORS)
def test_says_where_it_comes_from(name: str) -> None:
    assert missing_from_docs(EVICTORS[name]) == []


@pytest.mark.parametrize("evictor", EVERY)
@given(
    starts_s=st.lists(st.floats(0, 100), min_size=1, max_size=20),
    novelties=st.lists(st.one_of(st.none(), st.floats(0, 2)), min_size=20, max_size=20),
)
def test_names_one_of_them_and_the_same_one_again(
    evictor: Evictor, starts_s: list[float], novelties: list[float | None]
) -> None:
    older = {BlockId(i): Span(start_s, start_s) for i, start_s in enumerate(sorted(starts_s))}
    shown = MappingProxyType(older)
    chosen = evictor.choose(shown, novelties.__getitem__)
    assert chosen in older
    assert evictor.choose(shown, novelties.__getitem__) == chosen


@pytest.mark.parametrize("evictor", EVERY)
def test_the_first_goes_where_nobody_knows_what_is_novel(evictor: Evictor) -> None:
    older = {BlockId(9): Span(0.0, 1.0), BlockId(2): Span(1.0, 2.0), BlockId(5): Span(2.0, 3.0)}
    assert evictor.choose(older, lambda block_id: None) == 9


def test_oldest_is_the_first() -> None:
    older = {BlockId(9): Span(0.0, 1.0), BlockId(2): Span(1.0, 2.0)}
    assert OldestEvictor().choose(older, {BlockId(9): 2.0, BlockId(2): 0.0}.get) == 9


def test_least_novel_is_of_the_older_half_and_of_as_many_as_it_may_look_at() -> None:
    older = {BlockId(i): Span(float(i), float(i)) for i in range(8)}
    novelty = dict(zip(older, (1.0, 0.4, 0.3, 0.4, 0.1, 0.0, 0.0, 0.0), strict=True))
    assert LeastNovelEvictor().choose(older, novelty.get) == 2
    assert LeastNovelEvictor(among=2).choose(older, novelty.get) == 1
    assert LeastNovelEvictor(among=1).choose(older, novelty.get) == 0


def test_what_happened_outlives_what_went_on() -> None:
    """Through Memory itself: of a long stream the blocks in which something came are there at its end."""
    torch.manual_seed(0)
    came = {0, 20, 21, 90}
    scene_LKTD = torch.zeros(*SHAPE_LKD[:2], 3, SHAPE_LKD[2])
    memory = Memory(MemoryConfig(recent_frames=2, budget_bytes=2**14, codec="plain"))
    for number in range(300):
        if number in came:
            scene_LKTD = torch.randn_like(scene_LKTD)
        memory.append(make_block(float(number), k_LKTD=scene_LKTD + 0.01 * torch.randn_like(scene_LKTD)))
        memory.check()
    starts_s = [span.start_s for span in memory.older.values()]
    assert memory.stats.num_evicted > 200
    assert set(map(float, came)) <= set(starts_s)
    num_newest = len(starts_s) - len(starts_s) // 2
    assert starts_s[-num_newest:] == [float(number) for number in range(298 - num_newest, 298)]


def test_refuses_to_look_at_none() -> None:
    with pytest.raises(ValueError, match="among must be at least 1; got 0"):
        LeastNovelEvictor(among=0)

"""What every evictor promises. A new row needs a line in SETTINGS, nothing else."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory import EVICTORS, BlockId, Evictor
from millpond.memory.evictors import OldestEvictor
from millpond.stream import Span

from .method_docs import missing_from_docs

SETTINGS: dict[str, list[Evictor]] = {
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
@given(starts_s=st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_names_one_of_them_and_the_same_one_again(evictor: Evictor, starts_s: list[float]) -> None:
    older = {BlockId(i): Span(start_s, start_s) for i, start_s in enumerate(sorted(starts_s))}
    shown = MappingProxyType(older)
    chosen = evictor.choose(shown)
    assert chosen in older
    assert evictor.choose(shown) == chosen


def test_oldest_is_the_first() -> None:
    older = {BlockId(9): Span(0.0, 1.0), BlockId(2): Span(1.0, 2.0)}
    assert OldestEvictor().choose(older) == 9

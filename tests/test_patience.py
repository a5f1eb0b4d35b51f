"""A stream that hands in much is kept waiting no longer than one that hands in little."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory.depots.patience import Patience


class Waiting(threading.Condition):
    """Takes as long as it is told, or as long as it may."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = self.waited_s = self.takes_s = 0.0

    def wait_for(self, predicate: object, timeout: float | None = None) -> bool:  # type: ignore[override]
        assert timeout is not None and timeout >= 0
        took_s = min(self.takes_s, timeout)
        self.now_s += took_s
        self.waited_s += took_s
        return self.takes_s <= timeout


@given(
    waits=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3)), max_size=60),
    patience_s=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_waits_add_up_to_no_more_than_patience(waits: list[tuple[float, float]], patience_s: float) -> None:
    changed = Waiting()
    patience = Patience(patience_s, clock=lambda: changed.now_s)
    ends: list[tuple[float, float]] = []  # when, and how much was waited until then
    for takes_s, pause_s in waits:
        changed.takes_s = takes_s
        patience.wait_for(changed, lambda: False)
        ends.append((changed.now_s, changed.waited_s))
        changed.now_s += pause_s
    # A stretch of one frame period, twice the patience, meets two of ours at most.
    for at_s, waited_s in ends:
        before = max((w for t, w in ends if t <= at_s - 2 * patience_s), default=0.0)
        assert waited_s - before <= 2 * patience_s + 1e-6


def test_patience_is_not_negative() -> None:
    with pytest.raises(ValueError, match=r"got -1"):
        Patience(-1)

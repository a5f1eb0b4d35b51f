"""Times never run backwards, and are the stream's own wherever it has them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from millpond.stream.clock import StreamClock

MS = Fraction(1, 1000)


def placed(ticks: list[int | None], *, origin: int | None = 0, base: Fraction = MS, step: int = 40) -> list[float]:
    clock = StreamClock(base, origin, step)
    return [clock.place(tick).pts_s for tick in ticks]


@pytest.mark.parametrize(
    ("ticks", "times_s"),
    [
        ([0, 40, 80], [0.0, 0.04, 0.08]),
        ([0, None, 80], [0.0, 0.04, 0.08]),
        ([0, 40, 40, 120], [0.0, 0.04, 0.04, 0.12]),
        ([0, 40, 35, 120], [0.0, 0.04, 0.04, 0.12]),
        ([None, None, 80], [0.0, 0.04, 0.08]),
        # The clock starts again: time goes on one step later, and then on the new clock.
        ([5000, 5040, 0, 40], [5.0, 5.04, 5.08, 5.12]),
        ([360, 400, 0, 40], [0.36, 0.4, 0.44, 0.48]),
    ],
)
def test_mended_times(ticks: list[int | None], times_s: list[float]) -> None:
    assert placed(ticks) == pytest.approx(times_s, abs=1e-12)


def test_time_is_relative_to_the_start_of_the_stream() -> None:
    assert placed([1400, 1440], origin=1400) == [0.0, 0.04]
    assert placed([1400, 1440], origin=None) == [0.0, 0.04]
    assert placed([1400, 1440], origin=1300) == [0.1, 0.14]
    assert placed([1200, 1440], origin=1300) == [0.0, 0.24]


def test_a_first_frame_without_a_time_is_followed_by_the_second() -> None:
    assert placed([None, 37, 75], origin=None) == [0.0, 0.037, 0.075]
    assert placed([None, 900_000, 900_040], origin=None) == [0.0, 0.04, 0.08]


@pytest.mark.parametrize("bits", [32, 33])
def test_a_counter_that_wraps_costs_nothing(bits: int) -> None:
    base, step = Fraction(1, 90_000), 3600
    start = 2**bits - 5 * step
    times_s = placed([(start + n * step) % 2**bits for n in range(10)], origin=start, base=base, step=step)
    assert times_s == [n / 25 for n in range(10)]


@given(
    ticks=st.lists(st.none() | st.integers(-(10**12), 10**12), min_size=1),
    origin=st.none() | st.integers(-(10**9), 10**9),
    base=st.sampled_from([MS, Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(1, 10**9)]),
)
def test_times_never_run_backwards(ticks: list[int | None], origin: int | None, base: Fraction) -> None:
    times_s = placed(ticks, origin=origin, base=base, step=1)
    assert times_s == sorted(times_s) and times_s[0] >= 0


@given(tick=st.integers(0, 10**12), base=st.sampled_from([MS, Fraction(1, 90_000), Fraction(1001, 30_000)]))
def test_a_time_read_back_is_its_tick(tick: int, base: Fraction) -> None:
    clock = StreamClock(base, 0, 1)
    assume(clock.seconds(tick) < 1e6)  # eleven days: beyond that a double has no nanoseconds left
    assert clock.ticks(clock.seconds(tick)) == tick

"""Which frames are due: exact on any clock, never drifting."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.stream import SAMPLERS, EveryFrame, Frame, RateSampler, Sampler, StrideSampler

SETTINGS: dict[str, Sampler] = {
    "every": EveryFrame(),
    "rate": RateSampler(rate_hz=2.0),
    "stride": StrideSampler(stride=3),
}
TIMES = st.lists(st.integers(0, 200_000), min_size=1, max_size=200).map(lambda ms: [m / 1000 for m in sorted(ms)])


def taken(sampler: Sampler, times_s: list[float]) -> list[float]:
    run = sampler.start()
    return [time_s for time_s in times_s if run.take(time_s)]


def test_every_sampler_has_settings() -> None:
    assert set(SAMPLERS) == set(SETTINGS)
    for name, sampler in SETTINGS.items():
        assert type(sampler) is SAMPLERS[name]


@pytest.mark.parametrize("name", SETTINGS)
@given(times_s=TIMES)
def test_promises(name: str, times_s: list[float]) -> None:
    sampler = SETTINGS[name]
    due = taken(sampler, times_s)
    assert due[0] == times_s[0]
    assert due == taken(sampler, times_s)
    pixels = np.zeros((1, 1, 3), np.uint8)
    frames = [Frame(pixels, time_s) for time_s in times_s]
    assert [frame.pts_s for frame in sampler.filter(frames)] == due


@given(times_s=TIMES, rate_hz=st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0, 10.0]))
def test_a_rate_takes_the_first_frame_at_or_after_each_grid_point(times_s: list[float], rate_hz: float) -> None:
    first, period = Fraction(str(times_s[0])), 1 / Fraction(str(rate_hz))
    rounding = Fraction(6, 10_000)  # what a container that keeps milliseconds may take away
    wanted, last_point = [], -1
    for time_s in times_s:
        point = (Fraction(str(time_s)) - first + rounding) // period
        if point > last_point:
            wanted.append(time_s)
            last_point = point
    assert taken(RateSampler(rate_hz), times_s) == wanted


@pytest.mark.parametrize("source_hz", [Fraction(30000, 1001), Fraction(25), Fraction(24000, 1001), Fraction(15)])
def test_a_rate_does_not_drift_over_a_day(source_hz: Fraction) -> None:
    day_s, rate_hz = 86_400, 2.0
    step = max(1, math.floor(source_hz / 2) - 1)
    run = RateSampler(rate_hz).start()
    due = 0
    # Walks the day in strides just under the period, then looks at the last minute frame by frame.
    start_of_end = int((day_s - 60) * source_hz)
    for number in range(0, start_of_end, step):
        run.take(float(number / source_hz))
    for number in range(start_of_end, int(day_s * source_hz)):
        time_s = float(number / source_hz)
        if run.take(time_s):
            due += 1
            # On time or at most one frame late, less what rounding is forgiven.
            assert (time_s + 0.0006) * rate_hz % 1 < rate_hz / source_hz + 1e-6
    assert abs(due - 60 * rate_hz) <= 1


@pytest.mark.parametrize("rate_hz", [10, 24, 25, 29.97, 30, 50, 60])
def test_sampling_at_a_files_own_rate_keeps_every_frame_though_times_are_milliseconds(rate_hz: float) -> None:
    times_s = [round(number / rate_hz, 3) for number in range(1000)]
    assert len(taken(RateSampler(rate_hz), times_s)) == 1000


def test_a_gap_gives_one_frame() -> None:
    assert taken(RateSampler(1.0), [0.0, 0.5, 10.2, 10.9, 11.0]) == [0.0, 10.2, 11.0]


def test_a_gap_before_a_frame_that_is_not_due_is_told_by_the_next_that_is() -> None:
    pixels = np.zeros((1, 1, 3), np.uint8)
    frames = [
        Frame(pixels, t, gap_s=gap_s) for t, gap_s in [(0.0, 0.0), (3.9, 3.0), (4.4, 0.5), (9.0, 4.0), (9.5, 0.25)]
    ]
    frames += [Frame(pixels, 10.0), Frame(pixels, 11.0)]
    due = list(RateSampler(0.25).filter(frames))
    assert [(frame.pts_s, frame.gap_s) for frame in due] == [(0.0, 0.0), (4.4, 3.5), (9.0, 4.0)]
    due = list(RateSampler(1.0).filter(frames))
    assert sum(frame.gap_s for frame in due) == 3.0 + 0.5 + 4.0 + 0.25 and due[-1].gap_s == 0


@pytest.mark.parametrize("gap_s", [-1.0, math.inf, math.nan])
def test_a_gap_is_finite_and_not_below_zero(gap_s: float) -> None:
    with pytest.raises(ValueError, match="a gap is a finite number of seconds, 0 or more; got gap_s="):
        Frame(np.zeros((1, 1, 3), np.uint8), 0.0, gap_s=gap_s)


def test_a_stride_counts_frames() -> None:
    assert taken(StrideSampler(3), [0.0, 0.1, 0.2, 5.0, 5.0, 5.1, 9.0]) == [0.0, 5.0, 9.0]


def test_a_run_belongs_to_one_stream() -> None:
    sampler = RateSampler(1.0)
    one, other = sampler.start(), sampler.start()
    assert one.take(0.0) and other.take(0.0) and not one.take(0.5) and other.take(1.0) and one.take(1.0)


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_is_above_zero(rate_hz: float) -> None:
    with pytest.raises(ValueError, match="above 0 Hz; got rate_hz="):
        RateSampler(rate_hz)


def test_a_stride_is_one_or_more() -> None:
    with pytest.raises(ValueError, match="1 or more; got stride=0"):
        StrideSampler(0)


def test_a_wrong_name_lists_the_right_ones() -> None:
    with pytest.raises(ValueError, match="no sampler named 'raet'; there are: every, rate, stride"):
        SAMPLERS["raet"]

"""Times of a live stream: over connections, wraps, clocks that are set and clocks that are wrong."""

from __future__ import annotations

import logging
import struct
from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.stream.live_clock import LiveClock, SenderClock

BASE, STEP = Fraction(1, 90_000), 3600


def connected(gap_after_s: float = 5.0) -> LiveClock:
    clock = LiveClock(gap_after_s)
    clock.connect(BASE, STEP, 0.0)
    return clock


def test_within_a_connection_the_sender_counts() -> None:
    clock = connected()
    # They come in a burst, and late: the times are the sender's all the same.
    placed = [clock.place(900_000 + n * STEP, STEP, 100.0 + n * 0.001) for n in range(50)]
    assert [p.pts_s for p in placed] == pytest.approx([n / 25 for n in range(50)])
    assert all(p.is_own and p.gap_s == 0 for p in placed)


def test_between_connections_this_machine_counts_and_the_gap_is_what_passed() -> None:
    clock = connected()
    for n in range(3):
        clock.place(n * STEP, STEP, 10.0 + n / 25)
    clock.connect(BASE, STEP, 40.08)  # another server, whose clock starts elsewhere
    first = clock.place(77_000_000, STEP, 41.0)
    assert first.pts_s == pytest.approx(30.08) and first.gap_s == pytest.approx(30.0)
    second = clock.place(77_000_000 + STEP, STEP, 41.0)
    assert second.pts_s == pytest.approx(30.12) and second.gap_s == 0


def test_a_connection_without_a_picture_takes_nothing_away() -> None:
    clock = connected()
    clock.place(0, STEP, 10.0)
    clock.connect(BASE, STEP, 20.0)
    clock.connect(BASE, STEP, 30.0)
    assert clock.place(0, STEP, 30.5).gap_s == pytest.approx(20.0)


def test_a_last_picture_that_was_held_back_takes_nothing_from_the_gap() -> None:
    clock = connected()
    for n in range(100):
        clock.place(n * STEP, STEP, 10.0 + n / 25)
    clock.place(100 * STEP, STEP, 10.0 + 100 / 25 + 5.0)  # given out when nothing followed for five seconds
    clock.connect(BASE, STEP, 10.0 + 100 / 25 + 6.0)
    assert clock.place(0, STEP, 10.0 + 100 / 25 + 6.0).gap_s == pytest.approx(6.0, abs=0.1)


def test_a_stall_is_a_gap_only_where_something_is_missing() -> None:
    clock = connected(gap_after_s=5.0)
    clock.place(0, STEP, 0.0)
    # Held up on the way: seven seconds late, and nothing missing.
    assert clock.place(STEP, STEP, 7.0).gap_s == 0
    assert clock.place(STEP + 8 * 90_000, STEP, 8.0).gap_s == pytest.approx(8.0)
    assert clock.place(STEP + 12 * 90_000, STEP, 12.0).gap_s == 0


def test_a_sender_whose_clock_is_set_forward_moves_no_further_than_time_did() -> None:
    clock = connected()
    clock.place(0, STEP, 0.0)
    jumped = clock.place(5 * 3600 * 90_000, STEP, 0.04)
    assert jumped.pts_s == pytest.approx(0.04) and not jumped.is_own and jumped.gap_s == 0
    assert clock.place(5 * 3600 * 90_000 + STEP, STEP, 0.08).pts_s == pytest.approx(0.08)


def test_a_sender_that_starts_again_after_a_pause_goes_on_after_the_pause() -> None:
    clock = connected(gap_after_s=5.0)
    for n in range(100):
        clock.place(n * STEP, STEP, n / 25)
    again = clock.place(0, STEP, 99 / 25 + 3.0)
    assert again.pts_s == pytest.approx(99 / 25 + 3.0) and again.gap_s == 0
    assert clock.place(STEP, STEP, 99 / 25 + 3.04).pts_s == pytest.approx(99 / 25 + 3.04)


@pytest.mark.parametrize("bits", [32, 33])
def test_a_counter_that_wraps_costs_nothing(bits: int) -> None:
    clock = connected()
    start = 2**bits - 5 * STEP
    times_s = [clock.place((start + n * STEP) % 2**bits, STEP, n / 25).pts_s for n in range(10)]
    assert times_s == pytest.approx([n / 25 for n in range(10)])


EVENTS = st.lists(
    st.tuples(
        st.booleans(),  # whether there is a new connection before it
        st.none() | st.integers(0, 2**33),
        st.floats(0, 1000),  # what passes before it
    ),
    min_size=1,
    max_size=40,
)


@given(EVENTS)
def test_times_never_run_backwards_and_gaps_are_part_of_them(events: list[tuple[bool, int | None, float]]) -> None:
    clock = connected()
    now_s, last_s, gaps_s = 0.0, 0.0, 0.0
    for number, (is_new, ticks, passed_s) in enumerate(events):
        now_s += passed_s
        if is_new:
            clock.connect(BASE, STEP, now_s)
        placed = clock.place(ticks, None, now_s)
        assert placed.pts_s >= last_s and 0 <= placed.gap_s <= placed.pts_s - last_s + 1e-6
        if not number:
            assert placed.pts_s == 0 and placed.gap_s == 0
        last_s = placed.pts_s
        gaps_s += placed.gap_s
    assert gaps_s <= last_s + 1e-6
    # The sender may run ahead by less than what a jump is, at each picture, and no more.
    assert last_s <= now_s + 11.0 * len(events)


def test_a_clock_needs_a_connection() -> None:
    with pytest.raises(RuntimeError, match="before connect"):
        LiveClock(5.0).place(0, None, 0.0)


NTP_EPOCH_S = 2_208_988_800
NOON_S = 1_790_000_000.0


class Packet:
    """What a packet tells of the sender's clock."""

    def __init__(self, report: bytes | None = None) -> None:
        self._report = report

    def has_sidedata(self, kind: str) -> bool:
        assert kind == "rtcp_sr"
        return self._report is not None

    def get_sidedata(self, kind: str) -> bytes:
        assert self._report is not None
        return self._report


def report(wall_s: float, rtp_ticks: int) -> Packet:
    return Packet(struct.pack("@IQIII", 7, round((wall_s + NTP_EPOCH_S) * 2**32), rtp_ticks % 2**32, 1, 1))


def sender(start_s: float | None) -> SenderClock:
    start_us = None if start_s is None else round(start_s * 1e6)
    return SenderClock(SimpleNamespace(start_time_realtime=start_us), BASE, "rtsp://cam/x")  # type: ignore[arg-type]


def test_without_a_report_the_sender_tells_nothing() -> None:
    clock = sender(None)
    clock.note(Packet())  # type: ignore[arg-type]
    assert clock.wall_s(0, NOON_S) is None


def test_the_first_report_places_all_pictures() -> None:
    clock = sender(NOON_S)
    clock.note(Packet())  # type: ignore[arg-type]
    assert clock.wall_s(90_000, NOON_S + 1.2) == pytest.approx(NOON_S + 1.0, abs=1e-5)
    assert clock.wall_s(None, NOON_S) is None


def test_later_reports_are_followed_over_a_wrap() -> None:
    """The sender's crystal is 100 ppm slow against its own wall clock, which a new report every 5 s tells."""
    clock = sender(NOON_S)
    rtp_ticks = 2**32 - 90_000 * 7  # wraps after the second report
    for second in range(0, 60, 5):
        ticks = round(second * 90_000 * (1 - 1e-4))
        clock.note(report(NOON_S + second, rtp_ticks + ticks))  # type: ignore[arg-type]
        wall_s = clock.wall_s(ticks + 9000, NOON_S + second)
        assert wall_s == pytest.approx(NOON_S + second + 0.1, abs=1e-3)


def test_a_clock_that_is_set_late_is_believed_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = sender(3.0)  # it woke up in 1970
    clock.note(report(3.0, 0))  # type: ignore[arg-type]
    assert clock.wall_s(0, NOON_S) is None and clock.wall_s(3600, NOON_S) is None
    assert [record.getMessage() for record in caplog.records] == [
        "the clock of rtsp://cam/x is -1789999997 s off; times of arrival are taken"
    ]
    clock.note(report(NOON_S + 5, 450_000))  # type: ignore[arg-type]
    assert clock.wall_s(450_000, NOON_S + 5.1) == pytest.approx(NOON_S + 5, abs=1e-3)


@pytest.mark.parametrize(("off_s", "is_believed"), [(0.0, True), (-86_000.0, True), (86_500.0, False), (-9e8, False)])
def test_a_day_off_is_not_believed(off_s: float, is_believed: bool) -> None:
    clock = sender(NOON_S)
    clock.note(Packet())  # type: ignore[arg-type]
    assert (clock.wall_s(0, NOON_S - off_s) is not None) == is_believed


@given(st.binary(max_size=64))
def test_a_report_may_be_anything(data: bytes) -> None:
    clock = sender(NOON_S)
    clock.note(Packet(data))  # type: ignore[arg-type]
    wall_s = clock.wall_s(0, NOON_S)
    assert wall_s is None or abs(wall_s - NOON_S) <= 86_400

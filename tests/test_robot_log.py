"""What all robot logs share: rows that check themselves, the last row at or before a moment, addresses, the extra."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.stream import SourceError
from millpond.stream.frame import carry_gap
from millpond.stream.require import MissingExtra, require
from millpond.stream.robot_log import MAX_NUMBERS, RobotFrame, RobotRow, RowTimeline, log_address

# Shapes: N rows, D numbers, 3 colours.

PICTURE = np.zeros((4, 6, 3), np.uint8)


def row(*values: float, at_s: float = 0.0) -> RobotRow:
    return RobotRow(np.array(values), tuple(str(n) for n in range(len(values))), at_s)


def test_a_row_is_read_only_and_tells_its_age() -> None:
    told = row(1.0, float("nan"), at_s=2.0)
    assert not told.values_D.flags.writeable and told.age_s(2.5) == 0.5
    assert repr(told) == "RobotRow(2 numbers at 2.000 s)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"values_D": [1.0]}, "a row is a float64 array of one axis; got list"),
        ({"values_D": np.zeros((1, 1))}, r"got float64 \(1, 1\)"),
        ({"values_D": np.zeros(1, np.float32)}, "got float32"),
        ({"values_D": np.zeros(0)}, "a row has 1 to 4096 numbers; got 0"),
        ({"values_D": np.zeros(MAX_NUMBERS + 1)}, "a row has 1 to 4096 numbers; got 4097"),
        ({"names": ("a", "b")}, "a row needs a name for each of its 1 numbers; got 2"),
        ({"pts_s": float("inf")}, "a row needs a finite time in seconds; got pts_s=inf"),
    ],
)
def test_what_is_no_row_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RobotRow(**{"values_D": np.zeros(1), "names": ("a",), "pts_s": 0.0, **given})


def test_a_robots_frame_is_a_frame_and_stays_one() -> None:
    before = RobotFrame(PICTURE, 1.0, gap_s=0.5)
    frame = RobotFrame(PICTURE, 1.5, state=row(1.0), action=row(2.0))
    assert repr(frame) == "Frame(6x4 at 1.500 s)" and before.state is None
    # As sources, buffers and sessions change frames.
    carried = carry_gap(before, replace(frame, stream_id="arm"))
    assert isinstance(carried, RobotFrame) and carried.gap_s == 0.5 and carried.state is frame.state
    with pytest.raises(ValueError, match="state is a RobotRow or None; got list"):
        RobotFrame(PICTURE, 1.5, state=[1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a frame needs a finite time"):
        RobotFrame(PICTURE, float("nan"))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(-5, 45), st.sampled_from([0.0, 0.4]))
def test_the_row_of_a_moment_is_the_last_at_or_before_it(times: list[int], at: int, slack_s: float) -> None:
    times.sort()
    timeline = RowTimeline([float(time) for time in times], np.arange(len(times))[:, None], ("n",))
    found = timeline.at(at, slack_s)
    wanted = [number for number, time in enumerate(times) if time <= at]  # one by one
    assert (None if found is None else int(found.values_D[0])) == (wanted[-1] if wanted else None)
    assert found is None or found.pts_s <= at
    assert len(timeline) == len(times)


def test_two_clocks_may_round_apart() -> None:
    timeline = RowTimeline([0.0, 0.1], np.zeros((2, 1)), ("n",))
    found = timeline.at(0.1 - 1e-7, 0.01)
    assert found is not None and found.pts_s == 0.1 - 1e-7  # of this moment, and not of a later one
    with pytest.raises(ValueError, match="2 times need as many rows; got an array of shape"):
        RowTimeline([0.0, 0.1], np.zeros((3, 1)), ("n",))
    with pytest.raises(ValueError, match="must not decrease; sort them"):
        RowTimeline([0.1, 0.0], np.zeros((2, 1)), ("n",))


def test_addresses() -> None:
    known = {"topic": "the camera's", "state": "the joints'"}
    assert log_address("runs/a?b.mcap", "mcap", known) == (Path("runs/a?b.mcap"), {})
    assert log_address("mcap:///data/a%20b.mcap?topic=%2Fcam&state=", "mcap", known) == (
        Path("/data/a b.mcap"),
        {"topic": "/cam", "state": ""},
    )
    assert log_address("MCAP://a.mcap", "mcap", known).path == Path("a.mcap")
    with pytest.raises(SourceError, match=r"no setting 'x'; it has: topic \(the camera's\), state \(the joints'\)"):
        log_address("mcap://a.mcap?x=1", "mcap", known)


def test_what_is_not_installed_is_asked_for() -> None:
    assert require("json", who="nobody", extra=None).__name__ == "json"
    with pytest.raises(MissingExtra, match=r"robot logs need no_such_package; pip install 'millpond\[robot\]'"):
        require("no_such_package.part", who="robot logs", extra="robot")
    with pytest.raises(MissingExtra, match="cameras need no_such_package; pip install no_such_package"):
        require("no_such_package", who="cameras", extra=None)

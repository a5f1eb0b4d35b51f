"""`millpond bench alerts`: firings held against what was to be seen, and every key that it says it has."""

from __future__ import annotations

import json

import numpy as np
import pytest

from millpond.pipeline.bench_alerts import WINDOW_S, AlertsBench, _judge

SEEN = np.array([False] * 10 + [True] * 5 + [False] * 15)
NEVER = np.zeros(30, dtype=bool)


@pytest.mark.parametrize(
    ("fired", "delay_s", "num_false", "num_repeated"),
    [
        ([], None, 0, 0),
        ([10.0], 0.0, 0, 0),
        ([12.0, 14.0], 2.0, 0, 1),
        ([14.0 + WINDOW_S], 7.0, 0, 0),
        ([14.0 + WINDOW_S + 1], None, 1, 0),
        ([3.0], None, 1, 0),
        ([3.0, 10.0], 0.0, 1, 0),
        ([9.0], 0.0, 0, 0),  # it was half there
    ],
)
def test_firings_are_held_against_what_was_to_be_seen(
    fired: list[float], delay_s: float | None, num_false: int, num_repeated: int
) -> None:
    vague = NEVER.copy()
    vague[9] = True
    told = _judge(SEEN, vague, fired)
    assert told == (True, delay_s, len(fired), num_false, num_repeated)


def test_what_never_came_cannot_be_missed() -> None:
    assert _judge(NEVER, NEVER, []) == (False, None, 0, 0, 0)
    assert _judge(NEVER, NEVER, [1.0, 5.0]) == (False, None, 2, 2, 0)


@pytest.mark.slow
def test_it_measures_and_says_what() -> None:
    bench = AlertsBench(num_worlds=1, length_s=10)
    result = bench.run(model="default", repeats=1)
    assert json.loads(json.dumps(result)) == json.loads(json.dumps(result)) and list(result["worlds"]) == [
        "plain",
        "wide",
    ]
    for methods in result["worlds"].values():
        names = [row["name"] for row in methods]
        assert names == ["changed, verified", "changed, unverified", "timer, plain", "timer, verified"]
        changed, _, timer, _ = methods
        assert timer["questions_per_minute"] <= changed["questions_per_minute"] + 60 / 10, "no more than the budget"
        assert changed["every_s"] is None and timer["every_s"] >= 1.0
        for row in methods:
            assert row["num_came"] >= 1 and row["num_absent"] == 3
            for key in ("miss", "false"):
                low, high = row[f"{key}_interval"]
                assert 0 <= low <= row[f"{key}_rate"] <= high <= 1
    for key in (*result, *result["worlds"]["plain"][0]):
        assert key in bench.about, "a key that --help does not state"
    table = bench.table(result)
    assert "timer, verified" in table and "plain worlds: " in table and "wide worlds: " in table

"""`millpond bench`: figures of both sides, from one run, whose ratios are what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millpond.pipeline.bench import BENCHES
from millpond.pipeline.bench_core import NUM_FRAMES
from millpond.pipeline.bench_mini import wilson

SIDE_KEYS = {"wall_s", "ttft_s", "cold_ttft_s", "peak_memory_bytes"}
RATIOS = {"wall": "wall_s", "ttft": "ttft_s", "cold_ttft": "cold_ttft_s", "peak_memory": "peak_memory_bytes"}
MODEL_KEYS = {"num_tokens", "same_tokens", "ours", "theirs", *(f"{name}_ratio" for name in RATIOS)}


def check_core(result: dict[str, Any], models: list[str]) -> None:
    assert result.keys() == MODEL_KEYS | {"models", "num_frames", "repeats", "machine"}
    assert json.loads(json.dumps(result)) == result
    assert list(result["models"]) == models
    assert {key: result[key] for key in MODEL_KEYS} == result["models"][models[-1]]
    for measured in result["models"].values():
        assert measured.keys() == MODEL_KEYS
        assert measured["same_tokens"] is True
        assert measured["ours"].keys() == measured["theirs"].keys() == SIDE_KEYS
        for name, key in RATIOS.items():
            ours, theirs = measured["ours"][key], measured["theirs"][key]
            assert ours > 0 and theirs > 0
            assert measured[f"{name}_ratio"] == ours / theirs
        for side in ("ours", "theirs"):
            assert measured[side]["ttft_s"] <= measured[side]["cold_ttft_s"] <= measured[side]["wall_s"]
            assert measured[side]["peak_memory_bytes"] > 10e6
    for key in ("wall_ratio", "ttft_ratio", "peak_memory_ratio", "ours", "theirs", "same_tokens", "machine"):
        assert key in BENCHES["core"].about, "a key that --help does not state"


def test_the_core_is_measured_on_one_model() -> None:
    bench = BENCHES["core"]()
    result = bench.run(model="millpond/mini", repeats=1)
    check_core(result, ["millpond/mini"])
    assert (result["num_frames"], result["repeats"]) == (NUM_FRAMES, 1)
    table = bench.table(result)
    assert "millpond/mini" in table and "the same on both sides: yes" in table
    for name in RATIOS:
        assert f"{result[name + '_ratio']:.3f}" in table


@pytest.mark.long
def test_the_core_is_measured_on_a_larger_model_too() -> None:
    check_core(BENCHES["core"]().run(model="default", repeats=1), ["millpond/mini", "random-60M"])


def test_a_model_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no folder '/no/such'"):
        BENCHES["core"]().run(model="/no/such", repeats=1)


@pytest.mark.parametrize(
    ("hits", "num", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)]
)
def test_an_interval_is_wilson_s(hits: int, num: int, low: float, high: float) -> None:
    assert wilson(hits, num) == pytest.approx((low, high), abs=1e-4)

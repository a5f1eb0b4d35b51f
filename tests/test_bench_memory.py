"""`millpond bench memory`: its parts on small sizes, its keys, and what must hold of its figures."""

from __future__ import annotations

import json
import math
import mmap
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from millpond.encoders import VideoLLM
from millpond.memory import CODECS, PRUNERS, RETRIEVERS, KVBlock, KVSpec, MemoryConfig
from millpond.pipeline import Engine, EngineConfig, bench_memory, bench_memory_answers, bench_memory_shapes
from millpond.pipeline.bench_memory import MemoryBench
from millpond.pipeline.bench_memory_answers import (
    FULL,
    RECENT_FRAMES,
    TARGET,
    Method,
    ReadWorld,
    methods,
    read_worlds,
    try_method,
)
from millpond.pipeline.bench_memory_day import TIERS, Sample, fit_line, full_from, measure_day, rss_bytes
from millpond.pipeline.bench_memory_shapes import (
    Shape,
    measure_recall,
    measure_reopening,
    measure_shape,
    random_blocks,
    shapes,
)
from millpond.pipeline.bench_shapes import BUILT_IN_SHAPE, make_model
from millpond.pipeline.bench_worlds import make_clip

PLOT = Path(__file__).parent.parent / "demos" / "plot_memory.py"
SPEC = KVSpec(2, 2, 32, torch.bfloat16)


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return make_model(BUILT_IN_SHAPE)


@pytest.fixture(scope="module")
def worlds(model: VideoLLM) -> list[ReadWorld]:
    return read_worlds(model, range(2), 16)


@pytest.fixture(scope="module")
def day(model: VideoLLM) -> dict[str, Any]:
    return measure_day(model, 400)


def method(name: str) -> Method:
    return next(one for one in methods(16) if one.name == name)


# Answers.


def test_every_codec_pruner_and_retriever_is_tried_once() -> None:
    tried = methods(16)
    assert len({one.name for one in tried}) == len(tried) and tried[0].name == FULL
    longer = [one.name for one in methods(32) if one.about != "recall"]
    assert (longer[0], longer[-1]) == (FULL, TARGET)

    def named(part: str) -> set[str]:
        used = (getattr(one.memory, part) for one in tried)
        return {row if isinstance(row, str) else type(row).__name__ for row in used}

    assert named("codec") == {*CODECS, "HalvedCodec"}
    assert named("pruner") == {"none", *(PRUNERS[name].__name__ for name in PRUNERS if name != "none")}
    assert named("retriever") == set(RETRIEVERS)
    assert all(one.memory.recent_frames == RECENT_FRAMES for one in tried)


def test_worlds_are_read_as_a_session_reads_them(model: VideoLLM, worlds: list[ReadWorld]) -> None:
    taken: list[KVBlock] = []
    with Engine(EngineConfig(reuse="none", memory=MemoryConfig(recent_frames=RECENT_FRAMES)), model=model) as engine:
        session = engine.session()
        take = session.take
        session.take = lambda blocks: (taken.extend(blocks), take(blocks))[1]  # type: ignore[method-assign,func-returns-value]
        for frame in make_clip(1, 16).frames:
            session.push(frame)
        (sink,) = session.memory.sinks
        mine = worlds[1]
        assert len(taken) == len(mine.blocks) == 16
        torch.testing.assert_close(sink.k_LKTD, mine.sink.k_LKTD, atol=1e-4, rtol=1e-4)
        for theirs, ours in zip(taken, mine.blocks, strict=True):
            assert (theirs.span, theirs.num_before) == (ours.span, ours.num_before)
            torch.testing.assert_close(theirs.k_LKTD, ours.k_LKTD, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(theirs.v_LKTD, ours.v_LKTD, atol=1e-4, rtol=1e-4)


def test_bytes_are_those_of_what_left_the_recent_window(model: VideoLLM, worlds: list[ReadWorld]) -> None:
    left = [block for world in worlds for block in world.blocks[: 16 - RECENT_FRAMES]]
    tokens = sum(block.num_tokens for block in left)
    full, halved = (try_method(model, method(name), worlds) for name in (FULL, "codec bfloat16"))
    spec = left[0].spec
    assert full.num_left == halved.num_left == len(left) == 24
    assert full.whole_bytes == halved.whole_bytes == tokens * spec.bytes_per_token // 2
    assert full.kept_bytes == tokens * (spec.bytes_per_token + 24)
    assert halved.kept_bytes == tokens * (spec.bytes_per_token // 2 + 24)
    assert (full.index_bytes, len(full.answers)) == (0, len(halved.answers))
    nothing = try_method(model, method("pruner streaming_llm"), worlds)
    assert (nothing.kept_bytes, nothing.whole_bytes) == (0, full.whole_bytes)
    assert nothing.answers == try_method(model, method("no recall"), worlds).answers != full.answers
    by_key = try_method(model, method("4 by_key"), worlds)
    described = RETRIEVERS["by_key"]().start().describe(left[0])
    assert by_key.index_bytes == 24 * described.numel() * described.itemsize
    target = try_method(model, method(TARGET), worlds)
    assert target.whole_bytes > 10 * target.kept_bytes > 0


def test_a_gate_that_is_shut_recalls_nothing(model: VideoLLM, worlds: list[ReadWorld]) -> None:
    shut = Method(name="shut", about="recall", memory=method(FULL).memory, gate="never")
    assert try_method(model, shut, worlds).answers == try_method(model, method("no recall"), worlds).answers


def test_figures_are_of_pairs(monkeypatch: pytest.MonkeyPatch, model: VideoLLM) -> None:
    few = [method(name) for name in (FULL, TARGET, "no recall")]
    monkeypatch.setattr(bench_memory_answers, "methods", lambda num_frames: few)
    rows = {row["name"]: row for row in bench_memory_answers.measure_answers(model, 4, 16)}
    full = rows[FULL]
    assert (full["answers_kept"], full["agreement"], full["num_lost"], full["num_won"]) == (1.0, 1.0, 0, 0)
    for row in rows.values():
        balance = (row["num_lost"] - row["num_won"]) / row["num_questions"]
        assert row["accuracy"] == pytest.approx(full["accuracy"] - balance)
        assert row["answers_kept"] == pytest.approx(row["accuracy"] / full["accuracy"])
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1] and row["num_questions"] >= 36
    assert rows["no recall"]["accuracy"] < full["accuracy"], "there is something to remember"
    assert rows[TARGET]["settings"] == "keep_tokens=6" and full["settings"] == ""


# The day.


def test_a_line_and_its_error() -> None:
    hours = [0.5 * n for n in range(41)]
    exact = fit_line(hours, [7.0 + 3.0 * hour for hour in hours])
    assert exact.slope == pytest.approx(3.0) and exact.error < 1e-9 and exact.mean == pytest.approx(37.0)
    rng = np.random.default_rng(0)
    slopes = [fit_line(hours, list(rng.normal(0.0, 5.0, len(hours)))) for _ in range(300)]
    beyond = sum(abs(line.slope) > 2 * line.error for line in slopes) / len(slopes)
    assert 0.01 < beyond < 0.12, "about one in twenty flat lines lies two errors off"
    grows = fit_line(hours, [1e6 + 200.0 * hour + float(rng.normal(0.0, 100.0)) for hour in hours])
    assert grows.slope > 4 * grows.error
    with pytest.raises(ValueError, match="at least 3 points; got 2"):
        fit_line([0.0, 1.0], [1.0, 2.0])


def test_when_a_tier_is_full() -> None:
    held = [0, 500, 899, 900, 1000, 950]
    samples = [Sample(float(n), {"T1": num_bytes}, 0, None) for n, num_bytes in enumerate(held)]
    assert full_from(samples, "T1") == 3
    assert full_from([one._replace(bytes_by_tier={"T0": one.bytes_by_tier["T1"]}) for one in samples], "T0") == 4


def test_a_day_keeps_to_its_caps(day: dict[str, Any]) -> None:
    assert day["num_frames"] == 400 and len(day["samples"]) == 288 and day["samples"][-1]["hours"] == 400 / 3600
    for tier, cap_bytes in day["caps_bytes"].items():
        assert 0 < max(sample["bytes"][tier] for sample in day["samples"]) <= cap_bytes, tier
    assert day["full_after_hours"]["T1"] < day["slope_from_hour"] < 400 / 3600
    # So few blocks fit that each is some percent of the cap.
    assert abs(day["drift_share"]["T1"]) < 0.1 and day["drift_share"]["T0"] == pytest.approx(0.0, abs=0.05)
    assert day["filling_bytes_per_hour"]["T1"] > 2**20
    assert day["num_older_blocks"] > 8 and day["num_keyframes"] > 0 and day["num_lines"] > 100
    assert day["num_writes_failed"] == 0 and day["ratio_with_pages_and_index"] > 4
    assert day["ttft_ratio_end_to_start"] == pytest.approx(day["ttft_end_s"] / day["ttft_start_s"])
    assert day["frames_per_s"] > 1 and set(day["slope_error_bytes_per_hour"]) == set(TIERS)


def test_a_day_has_a_beginning_and_an_end(model: VideoLLM) -> None:
    with pytest.raises(ValueError, match="at least 400 frames, to have a beginning and an end; got 399"):
        measure_day(model, 399)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_resident_bytes_are_those_of_the_process() -> None:
    num_bytes = 2**26
    with mmap.mmap(-1, num_bytes) as held:  # what malloc gives may have been resident before
        before = rss_bytes()
        held.write(b"1" * num_bytes)
        after = rss_bytes()
    assert before is not None and after is not None and 0.9 * num_bytes < after - before < 1.5 * num_bytes


# Shapes.


def tiny_layer() -> tuple[nn.Module, nn.Module, int]:
    from transformers import Qwen2Config
    from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RotaryEmbedding

    config = Qwen2Config(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    config._attn_implementation = "sdpa"
    return Qwen2DecoderLayer(config, 0), Qwen2RotaryEmbedding(config), 64


TINY = Shape("tiny", SPEC, 64, 2, "noise", tiny_layer)


def test_published_shapes_are_what_the_figures_of_others_say() -> None:
    llava, qwen = shapes()
    per_hour = bench_memory_shapes.REKV_FRAMES_PER_HOUR * bench_memory_shapes.REKV_TOKENS
    assert round(per_hour * llava.spec.bytes_per_token / 2**30, 1) == 18.8
    assert per_hour * qwen.spec.bytes_per_token / 2**30 == pytest.approx(48.5, abs=0.1)
    assert (llava.num_tokens, qwen.num_tokens, qwen.frames_per_block) == (196, 220, 2)


@pytest.mark.parametrize("shape", shapes(), ids=lambda shape: shape.name)
def test_the_timed_layers_are_of_those_shapes(shape: Shape) -> None:
    with torch.device("meta"):
        layer, _, width = shape.make_layer()
    attention: Any = layer.self_attn
    assert attention.head_dim == shape.spec.head_dim
    assert attention.k_proj.weight.shape == (shape.spec.num_kv_heads * shape.spec.head_dim, width)


def test_a_quarter_of_the_places_changes() -> None:
    first, second = random_blocks(TINY, 2)
    moved_T = (second.k_LKTD - first.k_LKTD).float().square().mean((0, 1, 3)) > 0.5
    assert int(moved_T[first.visual].sum()) == 16 and not moved_T[: first.num_before].any()
    assert second.span.start_s - first.span.start_s == 2.0


def test_a_shape_grows_until_it_is_full() -> None:
    row = measure_shape(TINY, 1, torch.device("cpu"))
    plain, small = row["kept"]["plain"], row["kept"]["novel+adaptive"]
    assert plain["ratio"] == pytest.approx(1.0, abs=0.07) and 4 < row["kept"]["int2"]["ratio"] < small["ratio"]
    tokens = 72 * SPEC.bytes_per_token
    assert plain["t0_bytes"] == small["t0_bytes"] > 8 * tokens
    assert plain["t1_bytes_per_hour"] == pytest.approx(1800 * tokens, rel=0.07)
    for kept in row["kept"].values():
        assert kept["most_when_capped_bytes"] <= kept["capped_at_bytes"]
        assert kept["growth_when_full_bytes"] <= 0.1 * kept["capped_at_bytes"]
    for took in row["dequantize"].values():
        assert took["reread_over_dequantize"] == pytest.approx(row["reread_s"] / took["dequantize_s"])


def test_recall_is_bounded_in_bytes() -> None:
    recall = measure_recall(1, num_rows=600)
    assert (recall["num_blocks"], recall["num_recalled"], recall["row_bytes"]) == (600, 8, 4 * 4 * 128 * 2)
    assert 600 * recall["row_bytes"] <= recall["index_bytes"] < 2.2 * 600 * recall["row_bytes"]
    assert recall["recall_ms"] > 0


# All of it.


@pytest.fixture
def result(monkeypatch: pytest.MonkeyPatch, day: dict[str, Any]) -> Iterator[dict[str, Any]]:
    few = [method(name) for name in (FULL, TARGET, "no recall")]
    monkeypatch.setattr(bench_memory_answers, "methods", lambda num_frames: few)
    monkeypatch.setattr(bench_memory_shapes, "shapes", lambda: (TINY._replace(name="LLaVA-OneVision-7B"),))
    monkeypatch.setattr(bench_memory, "measure_recall", lambda repeats: measure_recall(repeats, num_rows=64))
    monkeypatch.setattr(bench_memory, "measure_reopening", lambda repeats: measure_reopening(repeats, 2**24))
    monkeypatch.setattr(bench_memory, "measure_day", lambda model, num_frames: day)
    yield MemoryBench(num_frames=400, num_worlds=2).run(model="default", repeats=1)


def test_the_whole_is_one_object_and_a_table(result: dict[str, Any], tmp_path: Path) -> None:
    told = json.loads(json.dumps(result, allow_nan=False))
    wanted = (
        "compression_ratio",
        "answers_kept",
        "slope_bytes_per_hour",
        "rss_slope_bytes_per_hour",
        "ttft_ratio_end_to_start",
        "recall_ms_at_100k",
        "bytes_per_hour",
        "methods",
        "machine",
    )
    assert set(wanted) <= told.keys() and all(key in MemoryBench.about for key in told)
    target = next(row for row in told["methods"] if (row["name"], row["num_frames"]) == (TARGET, 16))
    assert (told["compression_ratio"], told["answers_kept"]) == (target["compression_ratio"], target["answers_kept"])
    assert set(told["slope_bytes_per_hour"]) == set(TIERS) and not math.isnan(told["recall_ms_at_100k"])
    by_tier = told["bytes_per_hour"]["LLaVA-OneVision-7B"]
    assert {"T0", "T1 plain", "T1 novel+adaptive", "ReKV at 0.5 fps"} <= by_tier.keys()
    table = MemoryBench().table(result)
    assert all(f"\n{tier} " in table for tier in TIERS) and f"\n{TARGET} " in table and "first token" in table

    pytest.importorskip("matplotlib")
    measured, figure = tmp_path / "memory.json", tmp_path / "memory.png"
    measured.write_text(json.dumps(result))
    subprocess.run([sys.executable, str(PLOT), str(measured), str(figure)], check=True, timeout=120)
    assert figure.read_bytes().startswith(b"\x89PNG")

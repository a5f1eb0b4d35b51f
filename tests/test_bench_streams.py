"""`millpond bench streams`: its parts on small sizes, its keys, and what must hold of its figures."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import ray
import torch

from millpond.encoders import VideoLLM
from millpond.pipeline import Engine, bench_streams
from millpond.pipeline.bench_models import MODEL_SHAPES, make_llava, make_smolvlm, make_streams_model
from millpond.pipeline.bench_shapes import BUILT_IN_SHAPE
from millpond.pipeline.bench_streams import StreamsBench
from millpond.pipeline.bench_streams_batch import BatchPlan, measure_batch
from millpond.pipeline.bench_streams_latency import Camera, LatencyPlan, latency_plans, measure_latency, percentiles
from millpond.pipeline.bench_streams_packed import PackedPlan, measure_packed, packed_plans
from millpond.pipeline.bench_streams_ray import RayPlan, is_view, measure_ray
from millpond.stream import Frame

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 400,
}


@pytest.fixture(scope="module")
def mini() -> VideoLLM:
    return make_streams_model(BUILT_IN_SHAPE)


def small(kind: str) -> VideoLLM:
    if kind == "smolvlm":
        return make_smolvlm({**TOWER, "image_size": 64, "patch_size": 8}, WORDS, join=2)
    return make_llava({**TOWER, "image_size": 56, "patch_size": 8}, WORDS)


def check_points(points: list[dict[str, Any]], plan: PackedPlan) -> None:
    assert [point["num_streams"] for point in points] == list(plan.num_streams)
    for point in points:
        assert point["num_frames"] >= max(point["num_streams"], plan.num_frames // 2)
        for key in ("packed_fps", "single_fps", "packed_answers_per_s", "single_answers_per_s"):
            assert point[key] > 0
        for key in ("speedup", "answers_speedup"):
            low, high = point[f"{key}_range"]
            assert 0 < low <= point[key] <= high


def test_packed_and_single_on_the_built_in_model(mini: VideoLLM) -> None:
    plan = PackedPlan(num_streams=(1, 3), num_frames=6, recent_frames=2, num_tokens=2)
    row = measure_packed(mini, plan, repeats=2)
    check_points(row["points"], plan)
    assert row["shape"] == BUILT_IN_SHAPE and row["num_parameters"] > 1e6


@pytest.mark.parametrize("kind", ["smolvlm", "llava"])
def test_published_shapes_are_measured_alike(kind: str) -> None:
    plan = PackedPlan(num_streams=(2,), num_frames=4, recent_frames=2, num_tokens=3, keep_tokens=4)
    check_points(measure_packed(small(kind), plan, repeats=1)["points"], plan)


def test_both_sides_get_the_same_frames_and_only_one_is_packed(mini: VideoLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    read: dict[int, list[tuple[int, list[float]]]] = {}
    real = Engine.read_pending

    def noted(engine: Engine, sessions: Any = None) -> None:
        times = [frame.pts_s for session in sessions for frame in session.intake.pending]
        if times:
            read.setdefault(id(engine), []).append((len(sessions), times))
        real(engine, sessions)

    monkeypatch.setattr(Engine, "read_pending", noted)
    measure_packed(mini, PackedPlan(num_streams=(4,), num_frames=8, recent_frames=1, num_tokens=0), repeats=1)
    packed, single = sorted(read.values(), key=lambda calls: -max(num for num, _ in calls))
    assert {num for num, _ in single} == {1}
    assert max(num for num, _ in packed) == 4
    assert sorted(t for _, times in packed for t in times) == sorted(t for _, times in single for t in times)


@pytest.mark.parametrize("kind", ["smolvlm", "llava"])
def test_random_models_answer_in_as_many_tokens_as_they_may(kind: str) -> None:
    with Engine(model=small(kind)) as engine:
        session = engine.session()
        session.push(Frame(np.zeros((48, 64, 3), np.uint8), 0.0))
        assert session.ask("What is there?").num_tokens == engine.config.max_new_tokens


def test_shapes_are_those_that_are_published() -> None:
    """On the meta device: 8 billion numbers are not made."""
    made = {name: _count(name) for name in MODEL_SHAPES if name != BUILT_IN_SHAPE}
    assert made == {
        "smolvlm2-256m": pytest.approx(256e6, rel=0.1),
        "llava-onevision-8b": pytest.approx(8.03e9, rel=0.02),
    }


def _count(name: str) -> int:
    import millpond.pipeline.bench_models as models

    def on_meta(kind: Any, config: Any) -> Any:
        with torch.device("meta"):
            return kind(config)

    patch = pytest.MonkeyPatch()
    patch.setattr(models, "_made", on_meta)
    try:
        return make_streams_model(name).spec.num_parameters
    finally:
        patch.undo()


# Latency.


def test_a_camera_waits_for_nobody() -> None:
    pictures = [np.full((8, 8, 3), level, np.uint8) for level in (0, 1)]
    with Camera(pictures, rate_hz=50.0, offset_s=0.0, stream_id="camera") as camera:
        frames: Iterator[Frame] = iter(camera)
        first = next(frames)
        time.sleep(0.2)  # a slow reader
        late = [next(frames) for _ in range(5)]
    assert [frame.index for frame in (first, *late)] == list(range(6))
    for frame in (first, *late):
        assert frame.wall_s == camera.captured_s(frame.pts_s) == pytest.approx(camera.began_s + frame.index / 50)


def test_glass_to_token(mini: VideoLLM) -> None:
    plan = LatencyPlan(2, rate_hz=4.0, questions_per_s=8.0, length_s=1.5, warm_s=0.3, num_tokens=4)
    row = measure_latency(mini, plan)
    assert row["num_questions"] >= 1
    for key in ("glass_to_token_s", "question_to_token_s", "age_s"):
        assert 0 < row[key]["p50"] <= row[key]["p95"] <= row[key]["p99"]
    assert 0 <= row["drop_share"] <= 1


def test_a_model_that_is_too_slow_drops_frames_and_they_are_counted(
    mini: VideoLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Engine.read_pending

    def slow(engine: Engine, sessions: Any = None) -> None:
        time.sleep(0.25)
        real(engine, sessions)

    monkeypatch.setattr(Engine, "read_pending", slow)
    plan = LatencyPlan(1, rate_hz=40.0, questions_per_s=1.0, length_s=2.0, warm_s=0.3, num_tokens=2)
    row = measure_latency(mini, plan)
    assert row["drop_share"] > 0.5
    assert row["glass_to_token_s"]["p50"] > 0.2


def test_percentiles() -> None:
    assert percentiles(list(range(101))) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}


# Other processes.


@pytest.mark.slow
def test_ray_beside_one_process(mini: VideoLLM) -> None:
    (row,) = measure_ray([mini], RayPlan(num_streams=2, quick_rounds=2, num_warm=1), repeats=1)
    assert row["is_view"], "frames were copied on their way"
    assert min(row[f"{way}_s_per_frame"] for way in ("model", "process", "ray")) > 0
    assert row["hand_over_s"] > 0
    assert not ray.is_initialized()


@pytest.mark.slow
def test_batches_with_workers() -> None:
    (row,) = measure_batch(BatchPlan(num_videos=1, length_s=4, num_workers=(1,)), repeats=1)
    assert row["hours_per_hour"] > row["hours_per_hour_with_start"] > 0
    assert row["video_s"] == 4


def test_a_picture_with_memory_of_its_own_is_no_view() -> None:
    own = np.zeros((2, 2, 3), np.uint8)
    assert not is_view(own) and not is_view(own[:1])
    shared = np.frombuffer(bytes(12), np.uint8).reshape(2, 2, 3)
    assert is_view(shared) and is_view(shared[:1])


# The whole.


def test_keys_and_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other processes take is made up here, and measured above."""
    plan = PackedPlan(num_streams=(1, 8), num_frames=8, recent_frames=1, num_tokens=1)
    monkeypatch.setattr(bench_streams, "packed_plans", lambda model: (plan,))
    monkeypatch.setattr(
        bench_streams, "latency_plans", lambda model: (LatencyPlan(1, length_s=0.3, warm_s=0.1, num_tokens=1),)
    )
    seconds = {f"{way}_s_per_frame": 0.1 for way in ("model", "process", "ray")}
    from_ray = {"shape": "x", "num_streams": 8, **seconds, "ray_overhead_share": 0.0, "ray_overhead_range": [0, 0]}
    monkeypatch.setattr(bench_streams, "measure_ray", lambda *_: [{**from_ray, "hand_over_s": 0.001, "is_view": True}])
    worked = {"num_workers": 1, "hours_per_hour": 2.0, "hours_per_hour_with_start": 1.0}
    monkeypatch.setattr(bench_streams, "measure_batch", lambda *_, **__: [worked])
    bench = StreamsBench()
    result = json.loads(json.dumps(bench.run(model=BUILT_IN_SHAPE, repeats=1)))
    keys = {"aggregate_fps", "packed_speedup", "ray_overhead_share", "glass_to_token_s", "drop_share"}
    assert result.keys() >= keys
    assert all(key in bench.about for key in result)
    assert list(result["aggregate_fps"]) == list(result["packed_speedup"]) == ["1", "8"]
    assert result["glass_to_token_s"].keys() == {"p50", "p95", "p99"}
    table = bench.table(result)
    assert BUILT_IN_SHAPE in table and all(len(line) < 170 for line in table.splitlines())


def test_plans_fit_the_issue(mini: VideoLLM) -> None:
    assert tuple(packed_plans(mini)[0].num_streams) == (1, 2, 4, 8, 16, 32)
    assert 8 in {plan.num_streams for plan in latency_plans(mini)}


@pytest.mark.parametrize("wrong", [{"num_streams": ()}, {"num_streams": (0,)}, {"num_frames": 0}])
def test_packed_plans_that_measure_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs streams and frames; got"):
        PackedPlan(**wrong)


@pytest.mark.parametrize("wrong", [{"num_streams": 0}, {"num_rounds": 0}, {"quick_rounds": 0}, {"num_warm": 0}])
def test_ray_plans_that_measure_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be 1 or more; got 0"):
        RayPlan(**wrong)


@pytest.mark.parametrize("wrong", [{"num_videos": 0}, {"length_s": 0}, {"num_workers": ()}])
def test_batch_plans_that_measure_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a batch needs videos .* got"):
        BatchPlan(**wrong)


@pytest.mark.parametrize("name", ["num_streams", "rate_hz", "questions_per_s", "length_s", "warm_s", "num_tokens"])
def test_latency_plans_that_measure_nothing_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be more than 0; got 0"):
        LatencyPlan(**{"num_streams": 1, name: 0})

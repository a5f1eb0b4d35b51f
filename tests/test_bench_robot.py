"""`millpond bench robot`: its parts on small sizes, its keys, and what must hold of its figures."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from millpond.encoders import VideoLLM, load_model
from millpond.pipeline import Answer, Question, Timing, bench_robot, bench_robot_loop
from millpond.pipeline.bench_robot import RobotBench, case_name
from millpond.pipeline.bench_robot_loop import LoopPlan, Ticks, Used, measure_loops, run_loop
from millpond.pipeline.bench_robot_model import save_llava
from millpond.pipeline.bench_robot_scenes import HEIGHT, WIDTH, fixed_scene, to_and_fro, wrist_scene
from millpond.pipeline.bench_robot_vit import measure_vit
from millpond.pipeline.robot import NoMemory, StaleView
from millpond.stream.change import ChangeRule

from .reuse_clips import load_tiny

PLAN = LoopPlan(
    rates_hz=(10.0, 30.0), num_cameras=(1, 3), camera_rate_hz=10.0, length_s=0.3, warm_s=0.0, num_pictures=4
)


class Instant(NoMemory):
    """Answers at once, so that what is looked at is the loop."""

    num_asked = 0

    def ask(self, camera_id: str, question: Question) -> Future[Answer]:
        Instant.num_asked += 1
        time.sleep(0.01)
        future: Future[Answer] = Future()
        future.set_result(Answer(question.text, "there", 0.0, 0.0, (), Timing(0.0, 0.0), ()))
        return future


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoLLM:
    return load_tiny("llava_onevision", tmp_path_factory.mktemp("model"))


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, wait_s: float) -> None:
        self.now_s += wait_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(bench_robot_loop, "time", clock)
    return clock


def test_a_tick_that_is_in_time_is_not_missed(clock: Clock) -> None:
    def look() -> Used:
        clock.sleep(0.3)
        return Used(0.25)

    ticks = run_loop(look, rate_hz=2.0, length_s=2.0)
    assert (ticks.num_ticks, ticks.num_missed, ticks.ages_s) == (4, 0, [0.25] * 4)
    assert ticks.late_s == pytest.approx([0.0] * 4) and clock.now_s == pytest.approx(101.8)


def test_ticks_whose_time_is_over_are_missed_and_not_made_up_for(clock: Clock) -> None:
    began_s: list[float] = []

    def slow() -> Used:
        began_s.append(round(clock.now_s - 100.0, 3))
        clock.sleep(0.25 if len(began_s) == 2 else 0.0)
        return Used(0.25)

    ticks = run_loop(slow, rate_hz=10.0, length_s=0.6)
    assert began_s == [0.0, 0.1, 0.35, 0.4, 0.5], "0.2 is left out, 0.3 begins late"
    assert (ticks.num_ticks, ticks.num_missed) == (6, 2)
    assert ticks.late_s == pytest.approx([0, 0, 0.05, 0, 0], abs=1e-6)


def test_a_view_that_is_not_fresh_or_not_there_is_a_missed_tick(clock: Clock) -> None:
    given = iter([Used(0.1), Used(9.0, is_fresh=False), None])

    def look() -> Used:
        used = next(given)
        if used is None:
            raise StaleView("nothing")
        return used

    ticks = run_loop(look, rate_hz=1.0, length_s=3.0)
    assert (ticks.num_ticks, ticks.num_missed, ticks.ages_s) == (3, 2, [0.1, 9.0])
    assert Ticks(num_ticks=3, num_missed=3).row()["age_s"] == {"p50": None, "p95": None, "p99": None}


def test_loops_are_measured_alone_asked_and_beside_one_that_encodes_for_itself(model: VideoLLM) -> None:
    Instant.num_asked = 0
    measured = measure_loops(model, PLAN, 3, Instant, repeats=2, budget_tokens=5)
    assert measured.num_answers >= 4 and Instant.num_asked == measured.num_answers + 1
    assert measured.tokens_kept == 5 < measured.num_places
    for part in (measured.alone, measured.asked, measured.inline):
        assert list(part) == [10.0, 30.0]
        for rate_hz, row in part.items():
            assert row["ticks"] == 2 * round(0.3 * rate_hz) and 0 <= row["missed"] <= row["ticks"]
            assert 0 <= row["age_s"]["p50"] <= row["age_s"]["p95"] <= row["age_s"]["p99"]


def test_a_question_that_fails_fails_the_measurement(model: VideoLLM) -> None:
    class Failing(Instant):
        def ask(self, camera_id: str, question: Question) -> Future[Answer]:
            if Instant.num_asked:
                failed: Future[Answer] = Future()
                failed.set_exception(RuntimeError("no answer"))
                return failed
            return super().ask(camera_id, question)

    Instant.num_asked = 0
    with pytest.raises(RuntimeError, match="no answer"):
        measure_loops(model, PLAN, 1, Failing, repeats=1)


def test_scenes_stand_still_and_move_as_they_say() -> None:
    fixed, wrist = fixed_scene(4), wrist_scene(4)
    shares = []
    for pictures in (fixed, wrist):
        assert all(picture.shape == (HEIGHT, WIDTH, 3) and picture.dtype == np.uint8 for picture in pictures)
        detector = ChangeRule().start((12, 16), (1.0, 1.0))
        detector.compare([pictures[0]])
        detector.encoded(None)
        shares.append(detector.compare([pictures[3]]).share)
    assert 0 < shares[0] < 0.3 and 0.7 < shares[1] < 1
    assert to_and_fro("fixed", 4) is to_and_fro("fixed", 4) and len(to_and_fro("fixed", 4)) == 6
    around = to_and_fro("fixed", 4)
    assert (around[4] == fixed[2]).all() and (around[5] == fixed[1]).all()


def test_what_reuse_saves_is_measured_on_every_frame_of_both(model: VideoLLM) -> None:
    rows = measure_vit(model, num_frames=5, repeats=2)
    assert list(rows) == ["fixed", "wrist"]
    for row in rows.values():
        assert row["num_frames"] == 4 and row["dense_s"] > 0 and row["delta_s"] > 0
        low, high = row["saved_range"]
        assert low <= row["saved"] <= high < 1 and 0 <= row["recomputed_share"] <= 1


def test_a_saved_shape_is_loaded_by_two(tmp_path: Path) -> None:
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
    }
    text = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    folder = save_llava(tmp_path / "model", vision, text)
    one, other = (load_model(folder, device="cpu", dtype="bfloat16") for _ in range(2))
    assert one.fingerprint == other.fingerprint and one.spec.dtype == torch.bfloat16
    assert one.spec.kv.num_layers == 2


CASES = [
    case_name(rate_hz, num, is_asked=is_asked) for num in (1, 3) for is_asked in (False, True) for rate_hz in (10, 30)
]


def check(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result)) == result
    for case in CASES:
        assert result[f"age_s_{case}"].keys() == {"p50", "p95", "p99"}
        assert 0 <= result["missed_ticks"][case] <= result["num_ticks"][case]
    for key in ("tokens_kept", "vit_saved_fixed", "vit_saved_wrist", "missed_ticks", "inline", "memory"):
        assert key in result and key in RobotBench.about, key
    for case, ratio in result["p99_with_question_ratio"].items():
        assert ratio == result[f"age_s_{case}_with_question"]["p99"] / result[f"age_s_{case}"]["p99"]
    assert 0 < result["tokens_kept"] <= result["num_places"]
    assert set(result["memory"]) == {"process", "thread"}


def test_case_names_are_those_of_the_help() -> None:
    assert CASES[0] == "10hz" and CASES[3] == "30hz_with_question"
    assert case_name(50.0, 3, is_asked=True) == "50hz_three_cameras_with_question"


def test_the_whole_is_measured_with_a_memory_that_answers_at_once(
    model: VideoLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_robot, "ProcessMemory", lambda config: Instant())
    monkeypatch.setattr(bench_robot, "HubMemory", lambda engine: Instant())
    monkeypatch.setattr(bench_robot, "Engine", lambda config: None)
    monkeypatch.setattr(bench_robot, "load_model", lambda path, dtype: model)
    bench = RobotBench(loops=PLAN, vit_frames=4, held_rate_hz=10.0)
    result = bench.run(model="small", repeats=1)
    check(result)
    assert list(result["models"]) == ["small"]
    table = bench.table(result)
    assert "small: age of the view when it is used" in table and "10hz_three_cameras" in table
    with pytest.raises(ValueError, match="there must be one repeat or more; got 0"):
        bench.run(model="small", repeats=0)


@pytest.mark.slow
def test_the_whole_is_measured_on_the_built_in_model() -> None:
    bench = RobotBench(loops=PLAN, vit_frames=4, held_rate_hz=10.0)
    result = bench.run(model="millpond/mini", repeats=1)
    check(result)
    assert result["answers"] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length_s": 0.0}, "length_s must be above 0; got 0.0"),
        ({"rates_hz": ()}, "a plan needs a rate at least"),
        ({"num_cameras": (1, 4)}, "1 to 3 cameras"),
    ],
)
def test_plans_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoopPlan(**settings)

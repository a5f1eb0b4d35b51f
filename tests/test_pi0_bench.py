"""The benchmark of pi0: its figures hang together, on a small shape; the real shape's sizes are the published ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from millpond.pipeline.bench_robot_policy import LANES, PolicyPlan, RobotPolicyBench, policy_rows
from millpond.pipeline.bench_robot_policy_model import count_parameters, lack_of_room, make_pi0

NUM_VISUAL = 2 * 64


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return policy_rows(PolicyPlan("pi0-small", num_cameras=2, num_words=6, num_blocks=2), repeats=1, device="cpu")


def test_a_run_is_json_and_a_table(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result)) == result
    table = RobotPolicyBench().table(result)
    assert "transformers" in table and "default:" in table and all(lane.name in table for lane in LANES)


def test_off_is_transformers_own(result: dict[str, Any]) -> None:
    assert result["same_actions"] and result["largest_difference"] == 0.0
    assert result["theirs_s"] > 0


def test_figures_hang_together(result: dict[str, Any]) -> None:
    stages = result["stages"]
    assert sum(one["share"] for one in stages.values()) == pytest.approx(1)
    assert sum(one["s"] for one in stages.values()) == pytest.approx(result["chunk_s"])
    rows = {row["saving"]: row for row in result["rows"]}
    assert list(rows) == [lane.name for lane in LANES]
    assert rows["none"]["visual_computed_mean"] == NUM_VISUAL and rows["none"]["saved_flops_share"] == 0
    for name, share in (("vla_pruner_50", 0.5), ("vla_pruner_25", 0.25)):
        by_layer = rows[name]["visual_computed_by_layer"]
        assert by_layer == [NUM_VISUAL] * 3 + [round(share * NUM_VISUAL)] * 3
        assert 0 < rows[name]["saved_flops_share"] < rows[name]["saved_prefix_flops_share"] < 1 - share
    assert rows["vla_pruner_25"]["saved_flops_share"] > rows["vla_pruner_50"]["saved_flops_share"]
    assert rows["vla_cache_fixed"]["visual_computed_mean"] < NUM_VISUAL
    assert rows["vla_cache_fixed"]["visual_computed_mean"] <= rows["vla_cache_wrist"]["visual_computed_mean"]
    assert set(result["tower_reuse"]) == {"fixed", "wrist"}
    assert result["vit_saved_fixed"] == result["tower_reuse"]["fixed"]["vit_saved"]


def test_the_real_shape_is_pi0s() -> None:
    model = make_pi0("pi0", torch.device("meta"))
    vision, words = model.config.vlm_config.vision_config, model.config.vlm_config.text_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.image_size // vision.patch_size) == (1152, 27, 16)
    assert (words.hidden_size, words.num_hidden_layers, words.intermediate_size) == (2048, 18, 16384)
    assert (model.config.chunk_size, model.config.num_inference_steps) == (50, 10)
    assert count_parameters("pi0") == pytest.approx(3.5e9, rel=0.02)
    assert next(model.parameters()).dtype == torch.bfloat16


def test_a_model_without_room_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "billion parameters in bfloat16" in lack_of_room(10**15, torch.device("cpu"))
    from millpond.pipeline import bench_robot_policy

    monkeypatch.setattr(bench_robot_policy, "lack_of_room", lambda *_: "too large")
    made = policy_rows(PolicyPlan("pi0-small"), repeats=1, device="cpu")
    assert made["left_out"] == "too large" and "left out: too large" in RobotPolicyBench().table(made)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="no shape of pi0 is named 'pi1'; there are: pi0, pi0-small"):
        policy_rows(PolicyPlan("pi1"), repeats=1)
    with pytest.raises(ValueError, match="one repeat or more; got 0"):
        policy_rows(repeats=0)
    with pytest.raises(ValueError, match="num_cameras must be 1 or more; got 0"):
        PolicyPlan(num_cameras=0)

"""`millpond bench real`: sizes as published, weights in bfloat16, figures of all sides that agree, models let go."""

from __future__ import annotations

import json
import subprocess
import weakref
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from millpond.encoders import VideoLLM
from millpond.pipeline import bench_real
from millpond.pipeline.bench import BENCHES
from millpond.pipeline.bench_real import ON_CPU, ON_GPU, RealBench, RealPlan, commit
from millpond.pipeline.bench_real_language import (
    QUESTION,
    Ours,
    Transformers,
    measure_language,
    transformers_attention,
)
from millpond.pipeline.bench_real_models import PeakMemory, count_parameters, make_real, room_for
from millpond.pipeline.bench_real_shapes import REAL_SHAPES, RealShape
from millpond.pipeline.bench_real_tower import moving_clips, to_and_fro
from millpond.pipeline.bench_shapes import Clip

from .clips import VIDEOS
from .small_real_shapes import SMALLER, frames_of, small
from .tiny_models import spread

CPU = torch.device("cpu")
NAMES = [shape.name for shape in REAL_SHAPES]
SMALL_PLAN = RealPlan(
    num_blocks=4, prefill_frames=4, num_decoded=2, num_streams=2, stream_frames=4, recent_frames=2, num_answers=2
)


@pytest.fixture(scope="module", params=sorted(SMALLER))
def model(request: pytest.FixtureRequest) -> VideoLLM:
    return make_real(small(request.param), CPU)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    shapes = (small("smolvlm2-256m"), small("qwen2.5-vl-3b"), REAL_SHAPES[-1])
    bench = RealBench(device="cpu", shapes=shapes, plan=SMALL_PLAN, cpu_bytes=6 * 2**30)
    return bench.run(model="default", repeats=2)


# Sizes.


def test_all_that_the_issue_names_is_there() -> None:
    assert NAMES == [
        "smolvlm2-256m",
        "llava-onevision-0.5b",
        "llava-onevision-7b",
        "qwen2.5-vl-3b",
        "qwen2.5-vl-7b",
        "qwen3-vl-8b",
    ]
    for name in NAMES:
        assert name in RealBench.about


@pytest.mark.parametrize("shape", REAL_SHAPES, ids=NAMES)
def test_sizes_are_those_that_are_published(shape: RealShape) -> None:
    """To the last parameter where that is known; no number of them is made."""
    published = {"llava-onevision-0.5b": 893.6e6, "llava-onevision-7b": 8.031e9}
    made = count_parameters(shape)
    if shape.num_parameters is None:
        assert made == pytest.approx(published[shape.name], rel=1e-3)
        assert made / 1e9 == pytest.approx(float(shape.size_words.removesuffix("B")), abs=0.05)
    else:
        assert made == shape.num_parameters


def test_shapes_of_no_family_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs one of the families .*qwen3_vl.*; got 'resnet'"):
        replace(REAL_SHAPES[0], family="resnet")
    with pytest.raises(ValueError, match="must have a parameter or more; got 0"):
        replace(REAL_SHAPES[0], num_parameters=0)


# Models.


def test_a_model_is_made_in_bfloat16_and_nothing_of_it_in_float32(model: VideoLLM) -> None:
    parts: Any = model
    assert {parameter.dtype for parameter in parts.model.parameters()} == {torch.bfloat16}
    assert model.spec.dtype == torch.bfloat16
    assert torch.get_default_dtype() == torch.float32
    assert not model.stop_ids


@pytest.mark.parametrize("name", sorted(SMALLER))
def test_drawing_a_model_makes_no_larger_copy(name: str) -> None:
    """Of no weight is there a float32 tensor at any time: converting is what would make one, or be made from one."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: list[tuple[int, ...]] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32 and tensor.ndim >= 2:
                    seen.append(tuple(tensor.shape))
            return out

    with Watch():
        made: Any = make_real(small(name), CPU)
    weights = {tuple(parameter.shape) for parameter in made.model.parameters() if parameter.ndim >= 2}
    assert weights and not weights & set(seen)


def test_the_same_weights_are_drawn_each_time_and_others_stay_as_random() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first = make_real(small("smolvlm2-256m"), CPU)
    assert torch.equal(torch.rand(3), wanted)
    assert make_real(small("smolvlm2-256m"), CPU).fingerprint == first.fingerprint


def test_what_does_not_fit_is_known_before_it_is_made() -> None:
    large, little = REAL_SHAPES[-1], REAL_SHAPES[0]
    assert room_for(little, CPU, cpu_bytes=2**31, feature_bytes=0).fits
    room = room_for(large, CPU, cpu_bytes=2**31, feature_bytes=0)
    assert not room.fits
    assert "8.77 billion" in room.reason and "2.0 GiB" in room.reason and "17.8 GiB" in room.reason
    assert not room_for(little, CPU, cpu_bytes=2**31, feature_bytes=2**20 * 64).fits


def test_more_memory_is_seen_as_a_higher_peak_and_forgotten() -> None:
    peak = PeakMemory(CPU)
    before = peak.num_bytes
    if before is None:
        pytest.skip("this system does not tell a process its peak")
    held = torch.ones(64, 2**20)  # 256 MiB
    with_it = peak.num_bytes
    del held
    after = peak.num_bytes
    peak.restart()
    restarted = peak.num_bytes
    assert with_it is not None and after is not None and restarted is not None
    assert with_it - before > 200 * 2**20
    assert after > with_it - 2**22  # the system counts in batches
    assert restarted < after - 200 * 2**20


# Sides.


def test_transformers_computes_the_same_as_we_do(model: VideoLLM) -> None:
    """Else a ratio of their times would say nothing. In float32, where rounding hides nothing."""
    rounded: Any = make_real(small(model.spec.name), CPU)
    spread(rounded.model.float())  # so large that attention depends on places
    words = rounded.tokenizer, rounded.chat_template
    exact = type(rounded)(rounded.model, *words, name=rounded.spec.name, settings=rounded.settings)
    tokens = exact.see(frames_of(4))
    ids = exact.question(QUESTION).ids
    ours = Ours(exact)
    ours.prefill(tokens)
    steps = [ours.step(ids), ours.step((7,)), ours.step((8,))]
    with transformers_attention(exact):
        theirs = Transformers(exact)
        theirs.prefill(tokens)
        for wanted, got in zip(steps, [theirs.step(ids), theirs.step((7,)), theirs.step((8,))], strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert exact.text_model.config._attn_implementation == "millpond"


def test_attention_is_given_back_where_transformers_fails(model: VideoLLM) -> None:
    parts: Any = model
    with pytest.raises(KeyError), transformers_attention(model):
        assert parts.text_model.config._attn_implementation == "sdpa"
        raise KeyError
    assert parts.text_model.config._attn_implementation == "millpond"


def test_a_quarter_of_the_tokens_is_read(model: VideoLLM) -> None:
    read = measure_language(model, frames_of(4), 1, 1, PeakMemory(CPU))
    assert read.prefill["num_frames"] == 4
    share = read.prefill["quarter_tokens"] / read.prefill["num_tokens"]
    assert 0.15 < share < 0.4


@pytest.mark.parametrize(("num_frames", "num_decoded", "repeats"), [(0, 1, 1), (2, 0, 1), (2, 1, 0)])
def test_reading_nothing_is_refused(num_frames: int, num_decoded: int, repeats: int) -> None:
    made = make_real(small("smolvlm2-256m"), CPU)
    with pytest.raises(ValueError, match=f"at least; got {num_frames}, {num_decoded} and {repeats}"):
        measure_language(made, frames_of(num_frames), num_decoded, repeats, PeakMemory(CPU))


# Clips.


def test_little_changes_in_one_clip_and_much_in_the_other() -> None:
    little, much = moving_clips(10)
    assert (little.change, much.change) == ("little", "much")
    assert little.changed_share < 0.2 and much.changed_share > 0.7
    for one in (little, much):
        assert len(one.clip.frames) == 10
        assert one.clip.frames[0].rgb_HW3.shape == (480, 640, 3)
    again = moving_clips(10)[1].clip.frames
    assert all((a.rgb_HW3 == b.rgb_HW3).all() for a, b in zip(much.clip.frames, again, strict=True))


def test_the_camera_goes_to_and_fro_without_end() -> None:
    frames = moving_clips(140)[1].clip.frames
    assert [frame.index for frame in frames] == list(range(140))
    assert all((a.rgb_HW3 != b.rgb_HW3).any() and a.pts_s < b.pts_s for a, b in pairwise(frames))
    assert (frames[0].rgb_HW3 == frames[64].rgb_HW3).all()  # 1,280 pixels of way, 20 a frame


def test_short_recordings_run_to_and_fro() -> None:
    short = Clip("short", 2.0, tuple(frames_of(3)))
    numbers = [
        next(number for number, given in enumerate(short.frames) if given.rgb_HW3 is frame.rgb_HW3)
        for frame in to_and_fro(short, 7).frames
    ]
    assert numbers == [0, 1, 2, 1, 0, 1, 2]
    assert to_and_fro(short, 2).frames[-1].pts_s == 0.5
    with pytest.raises(ValueError, match="short must have two frames or more at 2 fps; got 1"):
        to_and_fro(Clip("short", 2.0, tuple(frames_of(1))), 4)


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
def test_of_recordings_those_with_least_and_most_change_are_taken() -> None:
    little, much = moving_clips(6, VIDEOS)
    assert little.clip.name == "vtest.avi"
    assert much.clip.name != "vtest.avi" and much.changed_share > little.changed_share


def test_clips_that_are_too_short_or_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two frames or more to change; got num_frames=1"):
        moving_clips(1)
    with pytest.raises(ValueError, match="which is none"):
        moving_clips(4, tmp_path / "none")


# The whole.


def test_keys_and_figures_agree(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result)) == result
    assert result["repeats"] == 2 and result["machine"]
    assert result["command"] == "millpond bench real --model default --repeats 2"
    assert [row["name"] for row in result["rows"]] == ["smolvlm2-256m", "qwen2.5-vl-3b"]
    for row in result["rows"]:
        assert row["num_parameters"] > 1e4 and row["dtype"] == "bfloat16"
        assert [clip["change"] for clip in row["clips"]] == ["little", "much"]
        for clip in row["clips"]:
            assert clip["speedup_stc"] == clip["dense_s"] / clip["stc_s"]
            assert clip["speedup_delta"] == clip["dense_s"] / clip["delta_s"]
            assert clip["stc_every"] in (2, 4) and 0 <= clip["recomputed_share"] <= 1
        assert row["clips"][0]["recomputed_share"] < row["clips"][1]["recomputed_share"]
        groups = [row["prefill"], row["decode"], row["streams"], *row["clips"]]
        ranges = [(group, key) for group in groups for key in group if key.endswith("_range")]
        assert len(ranges) == 2 + 2 + 2 + 4
        for group, key in ranges:
            low, high = group[key]
            assert 0 < low <= group[key.removesuffix("_range")] <= high
        assert row["prefill"]["quarter_tokens"] < row["prefill"]["num_tokens"]
        assert row["streams"]["num_streams"] == 2
        memory = row["peak_memory"]
        if memory["weights"] is not None:
            assert memory["delta_over_dense"] == memory["tower"]["delta"] / memory["tower"]["dense"]
            peaks = [*memory["tower"].values(), *memory["prefill"].values(), memory["streams"]]
            assert min(peaks) >= 2 * row["num_parameters"]


def test_what_does_not_fit_is_listed_with_the_reason(result: dict[str, Any]) -> None:
    (left,) = result["left_out"]
    assert (left["name"], left["num_parameters"]) == ("qwen3-vl-8b", 8_767_123_696)
    assert "8.77 billion parameters" in left["reason"] and "may be taken" in left["reason"]


def test_every_key_is_said_in_the_help(result: dict[str, Any]) -> None:
    assert BENCHES["real"] is RealBench
    row = result["rows"][0]
    parts = (row["prefill"], row["decode"], row["streams"], row["clips"][0], row["peak_memory"])
    for key in (*result, *row, *result["left_out"][0], *(key for part in parts for key in part)):
        assert key.removesuffix("_range") in RealBench.about, key


def test_the_table_shows_every_model_and_what_is_left_out(result: dict[str, Any]) -> None:
    table = RealBench().table(result)
    assert result["machine"] in table and result["commit"] in table and result["command"] in table
    for row in result["rows"]:
        assert row["name"] in table and row["checkpoint"] in table
        for clip in row["clips"]:
            assert f"{clip['speedup_delta']:.2f}x" in table
    assert f"qwen3-vl-8b: not measured: {result['left_out'][0]['reason']}" in table
    assert RealBench().table(result | {"rows": []}).startswith("median of 2 passes")


def test_each_model_is_gone_before_the_next_and_one_that_runs_out_of_memory_is_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[weakref.ref[VideoLLM]] = []
    alive: list[int] = []

    def noted(shape: RealShape, device: torch.device) -> VideoLLM:
        alive.append(sum(ref() is not None for ref in made))
        model = make_real(shape, device)
        made.append(weakref.ref(model))
        if shape.name.startswith("llava"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore words.")
        return model

    monkeypatch.setattr(bench_real, "make_real", noted)
    shapes = (small("smolvlm2-256m"), small("llava-onevision-0.5b"), small("qwen3-vl-8b"))
    result = RealBench(device="cpu", shapes=shapes, plan=SMALL_PLAN).run(model="default", repeats=1)
    assert alive == [0, 0, 0]
    assert sum(ref() is not None for ref in made) == 0
    assert [row["name"] for row in result["rows"]] == ["smolvlm2-256m", "qwen3-vl-8b"]
    (left,) = result["left_out"]
    assert left["name"] == "llava-onevision-0.5b" and left["num_parameters"] > 1e4
    assert left["reason"] == "it ran out of memory: CUDA out of memory. Tried to allocate 2 GiB."


def test_one_shape_is_chosen_by_its_name_and_a_wrong_name_lists_them() -> None:
    result = RealBench(device="cpu", cpu_bytes=2**20).run(model="qwen2.5-vl-3b", repeats=1)
    assert [left["name"] for left in result["left_out"]] == ["qwen2.5-vl-3b"]
    with pytest.raises(ValueError, match=r"got 'gpt-2'; there are: smolvlm2-256m, .*qwen3-vl-8b"):
        RealBench().run(model="gpt-2", repeats=1)


def test_the_plans_fit_the_issue() -> None:
    assert ON_CPU.num_streams == ON_GPU.num_streams == 8


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num_blocks": 6}, "num_blocks must be a multiple of 4, above 0; got 6"),
        ({"num_blocks": 0}, "num_blocks must be a multiple of 4, above 0; got 0"),
        ({"prefill_frames": 0}, "prefill_frames must be 1 or more; got 0"),
        ({"num_decoded": 0}, "num_decoded must be 1 or more; got 0"),
        ({"num_streams": 0}, "num_streams must be 1 or more; got 0"),
        ({"num_answers": 0}, "num_answers must be 1 or more; got 0"),
        ({"stream_frames": 15}, "stream_frames must be two of each of 8 streams or more, .* got 15"),
    ],
)
def test_plans_that_measure_nothing_are_refused(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RealPlan(**wrong)


def test_the_commit_is_that_of_the_checkout() -> None:
    folder = str(Path(bench_real.__file__).parent)
    asked = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    said = commit()
    if said.startswith("version "):
        assert not (Path(folder).parent / ".git").exists()
    else:
        assert len(said) >= 7 and asked.stdout.startswith(said.removesuffix("+"))

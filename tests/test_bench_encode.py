"""`millpond bench`, encoding: what reuse costs and keeps, and where a frame's time goes. Figures that agree."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from millpond.pipeline.bench_profile import STAGES, ProfileBench, Stopwatch
from millpond.pipeline.bench_reuse import ReuseBench
from millpond.pipeline.bench_shapes import hard_clips, make_model, real_clips

from .clips import VIDEOS

ASKED_FOR = {"clip", "fps", "shape", "dense_s", "stc_s", "delta_s", "speedup_stc", "speedup_delta"}
ASKED_FOR |= {"recomputed_share", "cosine_mean", "cosine_p01"}
KEYS = ASKED_FOR | {"dtype", "num_frames", "delta_median_s", "blocks", "stc_every", "speedup_delta_range"}
KEYS |= {f"stc{every}_{name}" for every in (2, 4) for name in ("s", "cosine_mean", "cosine_p01")}
BUILT_IN = "millpond/mini"


@pytest.fixture(scope="module")
def reuse() -> dict[str, Any]:
    return ReuseBench(max_quick_frames=8, max_frames=8, hard_frames=8).run(model=BUILT_IN, repeats=2)


@pytest.fixture(scope="module")
def profile() -> dict[str, Any]:
    return ProfileBench(max_frames=3).run(model=BUILT_IN, repeats=1)


def test_reuse_gives_a_row_for_each_clip(reuse: dict[str, Any]) -> None:
    assert json.loads(json.dumps(reuse)) == reuse
    assert reuse.keys() == {"rows", "repeats", "machine"}
    clips = [(row["clip"], row["fps"]) for row in reuse["rows"]]
    assert clips == [
        ("shapes-1", 2.0),
        ("shapes-1", 10.0),
        ("shapes-2", 2.0),
        ("noise", 2.0),
        ("alternating", 2.0),
        ("still", 2.0),
    ]
    for row in reuse["rows"]:
        assert row.keys() == KEYS
        assert (row["shape"], row["dtype"], row["num_frames"]) == (BUILT_IN, "float32", 8)


def test_reuse_figures_agree_with_each_other(reuse: dict[str, Any]) -> None:
    for row in reuse["rows"]:
        assert row["speedup_stc"] == row["dense_s"] / row["stc_s"]
        assert row["speedup_delta"] == row["dense_s"] / row["delta_s"]
        assert row["stc_s"] == min(row["stc2_s"], row["stc4_s"]) == row[f"stc{row['stc_every']}_s"]
        assert min(row["dense_s"], row["stc_s"], row["delta_s"], row["delta_median_s"]) > 0
        low, high = row["speedup_delta_range"]
        assert low <= row["speedup_delta"] <= high
        assert 0 <= row["recomputed_share"] <= 1
        assert sum(row["blocks"].values()) == row["num_frames"]
        for name in ("", "stc2_", "stc4_"):
            assert -1 <= row[f"{name}cosine_p01"] <= row[f"{name}cosine_mean"] + 1e-6
            assert row[f"{name}cosine_mean"] <= 1 + 1e-6


def test_what_is_known_of_hard_clips_is_measured(reuse: dict[str, Any]) -> None:
    rows = {row["clip"]: row for row in reuse["rows"]}
    # Dense only where the machine stalled so long that copying seemed slow.
    blocks = rows["still"]["blocks"]
    assert blocks["partial"] == blocks["full"] == 0
    assert rows["still"]["recomputed_share"] == blocks["dense"] / 8
    assert rows["noise"]["recomputed_share"] == 1
    assert rows["still"]["cosine_p01"] > 1 - 1e-5 and rows["noise"]["cosine_p01"] > 1 - 1e-5
    # A share of 25 % cannot follow noise: a cosine that said so would not be of these tokens.
    assert rows["noise"]["stc4_cosine_mean"] < rows["noise"]["stc2_cosine_mean"] < 1 - 1e-4


def test_the_reuse_table_has_a_line_for_each_row(reuse: dict[str, Any]) -> None:
    lines = ReuseBench().table(reuse).splitlines()
    assert len(lines) == 2 + len(reuse["rows"])
    for line, row in zip(lines[2:], reuse["rows"], strict=True):
        assert row["clip"] in line and f"{row['speedup_delta']:.2f}x" in line


def test_every_key_is_said_in_the_help(reuse: dict[str, Any], profile: dict[str, Any]) -> None:
    for key in (ASKED_FOR | reuse.keys()) - {"repeats"}:
        assert key in ReuseBench.about
    for key in (*profile, *profile["rows"][0], *STAGES):
        assert key in ProfileBench.about


def test_a_profile_adds_up_to_the_time_that_passed(profile: dict[str, Any]) -> None:
    assert json.loads(json.dumps(profile)) == profile
    assert [(row["shape"], row["reuse"]) for row in profile["rows"]] == [(BUILT_IN, "none"), (BUILT_IN, "delta")]
    for row in profile["rows"]:
        assert tuple(row["stages"]) == STAGES
        assert row["num_frames"] == 3
        assert sum(stage["s"] for stage in row["stages"].values()) == pytest.approx(row["wall_s"])
        assert sum(stage["share"] for stage in row["stages"].values()) == pytest.approx(1)
        for name in ("decode", "pixels", "tower", "head", "language", "memory", "reuse"):
            assert row["stages"][name]["s"] > 0, name
        assert row["stages"]["other"]["s"] >= 0
    before, after = profile["rows"]
    assert before["stages"]["change map"]["s"] == 0 < after["stages"]["change map"]["s"]


def test_the_profile_table_has_a_line_for_each_stage(profile: dict[str, Any]) -> None:
    lines = ProfileBench().table(profile).splitlines()
    for stage in (*STAGES, "all"):
        assert sum(line.strip().startswith(f"{stage} ") for line in lines) == 1


def test_time_counts_for_the_innermost_stage() -> None:
    watch = Stopwatch(lambda: None)
    inner = watch.timed("inner", lambda: time.sleep(0.02))
    outer = watch.timed("outer", lambda: (inner(), inner()))
    started_s = time.perf_counter()
    outer()
    took_s = time.perf_counter() - started_s
    assert watch.seconds["inner"] >= 0.04
    assert sum(watch.seconds.values()) <= took_s
    assert watch.seconds["outer"] < took_s - 0.04 + 1e-9


def test_a_failing_call_is_timed_too_and_fails() -> None:
    watch = Stopwatch(lambda: None)

    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        watch.timed("bad", fail)()
    watch.timed("good", lambda: None)()
    assert list(watch.seconds) == ["bad", "good"]


def test_a_profile_leaves_the_model_as_it_was() -> None:
    model = make_model(BUILT_IN)
    from millpond.pipeline.bench_profile import _watched

    before = set(vars(model)), set(vars(model.tower))
    with _watched(model, Stopwatch(lambda: None)):
        assert set(vars(model)) != before[0]
    assert (set(vars(model)) - {"tower"}, set(vars(model.tower))) == (before[0] - {"tower"}, before[1])


def test_clips_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got '/no/such', which is none"):
        real_clips(Path("/no/such"), 4)
    (tmp_path / "README.md").write_text("words")
    with pytest.raises(ValueError, match=r"no file in .* is a recording; got 1 files"):
        ReuseBench().run(model=BUILT_IN, repeats=1, clips=tmp_path)


def test_a_clip_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="noise must have 5 frames or more at 2 fps to be measured; got 3"):
        ReuseBench(hard_frames=2, max_quick_frames=8, max_frames=8).run(model=BUILT_IN, repeats=1)


def test_hard_clips_are_what_they_are_called() -> None:
    noise, alternating, still = hard_clips(4)
    assert (noise.frames[0].rgb_HW3 != noise.frames[1].rgb_HW3).mean() > 0.9
    assert (alternating.frames[0].rgb_HW3 == alternating.frames[2].rgb_HW3).all()
    assert (alternating.frames[0].rgb_HW3 != alternating.frames[1].rgb_HW3).any()
    assert all((still.frames[0].rgb_HW3 == frame.rgb_HW3).all() for frame in still.frames)


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
def test_the_start_of_every_recording_is_taken() -> None:
    clips = real_clips(VIDEOS, 5)
    assert {clip.name for clip in clips} == {"Megamind.avi", "box.mp4", "cup.mp4", "tree.avi", "vtest.avi"}
    assert [clip.fps for clip in clips if clip.name == "vtest.avi"] == [2.0, 10.0]
    assert all(len(clip.frames) == 5 for clip in clips)

"""What reuse in the tower, VLA-Pruner and VLA-Cache save of a chunk of pi0's actions, at its real shape."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

import torch

from ..encoders.policies import Chunk, PI0Policy, PolicyRun, Saving
from ..encoders.policies.base import NoSaving
from ..encoders.policies.eyes import PI0Eyes
from ..encoders.policies.flops import chunk_flops
from ..encoders.policies.vla_cache import VLACache
from ..encoders.policies.vla_pruner import VLAPruner
from .bench import Bench
from .bench_real_models import PeakMemory
from .bench_real_tower import measure_tower
from .bench_robot_policy_model import (
    DTYPE,
    Asked,
    Scene,
    ask,
    count_parameters,
    lack_of_room,
    make_pi0,
    observe,
    scenes,
)
from .bench_shapes import machine, wait_for

# Shapes: C cameras, 3 colours, H rows, W columns.

_RATE_HZ = 50.0  # at which pi0's steps are carried out
_OURS_OFF = "none"


@dataclass(frozen=True)
class PolicyPlan:
    """How much is measured.

    shape: of PI0_SHAPES. num_cameras: pi0_base has three. num_words: of the prompt, lerobot's most.
    num_blocks: frames that each reuser sees of each clip.
    """

    shape: str = "pi0"
    num_cameras: int = 3
    num_words: int = 48
    num_blocks: int = 8

    def __post_init__(self) -> None:
        for name in ("num_cameras", "num_words", "num_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more; got {getattr(self, name)}")


class Lane(NamedTuple):
    """One way of driving the policy, over one kind of scene. VLA-Pruner with a window of one chunk: a longer one costs
    no more once it is full, and fills later."""

    name: str
    saving: Saving
    kind: str = "fixed"


LANES = (
    Lane(_OURS_OFF, NoSaving()),
    Lane("vla_pruner_50", VLAPruner(keep_share=0.5, window=1)),
    Lane("vla_pruner_25", VLAPruner(keep_share=0.25, window=1)),
    Lane("vla_cache_fixed", VLACache()),
    Lane("vla_cache_wrist", VLACache(), "wrist"),
)


def policy_rows(
    plan: PolicyPlan | None = None, *, repeats: int = 3, clips: Path | None = None, device: str | None = None
) -> dict[str, Any]:
    """Measures, and returns one JSON-ready object; see RobotPolicyBench.about for its keys.

    clips: a folder of recordings; None: synthetic ones. device: None: a GPU where there is one.
    Where the model has no room, the object says so under `left_out`, and has no figures.
    """
    if repeats < 1:
        raise ValueError(f"there must be one repeat or more; got {repeats}")
    plan = plan or PolicyPlan()
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    num_parameters = count_parameters(plan.shape)
    about = {
        "shape": plan.shape,
        "num_parameters": num_parameters,
        "dtype": str(DTYPE).removeprefix("torch."),
        "num_cameras": plan.num_cameras,
        "num_words": plan.num_words,
        "repeats": repeats,
        "machine": machine(on),
    }
    if reason := lack_of_room(num_parameters, on):
        return {**about, "left_out": reason}
    peak = PeakMemory(on)
    policy = PI0Policy(make_pi0(plan.shape, on))
    eyes = PI0Eyes(policy)
    shown = scenes(
        eyes, num_cameras=plan.num_cameras, num_moments=1 + repeats, num_blocks=plan.num_blocks, folder=clips
    )
    asked = ask(policy, plan.num_cameras, plan.num_words)
    measured = _Measured(policy, asked, {scene.kind: scene for scene in shown}, repeats)
    towers = {scene.kind: measure_tower(eyes, scene.moving, plan.num_blocks, repeats) for scene in shown}
    return {**about, **_figures(policy, plan, measured, towers), "peak_memory_bytes": peak.num_bytes}


class _Measured:
    """All lanes, and transformers' own way, moment after moment, in another order each time; the first is in no
    figure: it fills caches and histories."""

    def __init__(self, policy: PI0Policy, asked: Asked, shown: Mapping[str, Scene], repeats: int) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.chunks: dict[str, Chunk] = {}
        self.lanes = [lane for lane in LANES if lane.kind in shown]
        self.is_same, self.largest_difference = True, 0.0
        runs = {lane.name: policy.start(lane.saving) for lane in self.lanes}
        for moment in range(1 + repeats):
            seen = {}
            for kind, scene in shown.items():
                pixels = scene.pixels_C3HW[moment]
                seen[kind] = observe(asked, pixels, self._timed(policy, moment, "tower", policy.see, pixels))
            theirs = None
            for name in Random(moment).sample(["theirs", *runs], 1 + len(runs)):
                if name == "theirs":
                    theirs = self._timed(
                        policy, moment, name, _theirs, policy, asked, shown["fixed"].pixels_C3HW[moment]
                    )
                    continue
                lane = next(lane for lane in self.lanes if lane.name == name)
                self._act(policy, moment, lane, runs[name], seen[lane.kind], asked)
            if theirs is not None:
                apart = (theirs[0] - self.chunks[_OURS_OFF].actions_AJ).abs().max()
                self.largest_difference = max(self.largest_difference, float(apart))
                self.is_same &= torch.equal(theirs[0], self.chunks[_OURS_OFF].actions_AJ)

    def _act(self, policy: PI0Policy, moment: int, lane: Lane, run: PolicyRun, observation: Any, asked: Asked) -> None:
        read = self._timed(policy, moment, f"{lane.name} prefix", policy.read, run, observation)
        self.chunks[lane.name] = self._timed(
            policy, moment, f"{lane.name} denoising", lambda: policy.denoise(run, read, noise_1AJ=asked.noise_1AJ)
        )

    def _timed(self, policy: PI0Policy, moment: int, name: str, call: Callable[..., Any], *args: Any) -> Any:
        wait_for(policy.device)
        started_s = time.perf_counter()
        made = call(*args)
        wait_for(policy.device)
        if moment:
            self.seconds[name].append(time.perf_counter() - started_s)
        return made


def _theirs(policy: PI0Policy, asked: Asked, pixels_C3HW: Any) -> Any:
    """transformers' own actions, pictures and all."""
    with torch.inference_mode():
        return policy.model.sample_actions(
            state=asked.state_1S,
            input_ids=asked.ids_1T,
            pixel_values=pixels_C3HW[None],
            noise=asked.noise_1AJ,
            pixel_attention_mask=torch.ones(1, pixels_C3HW.shape[0], dtype=torch.bool, device=policy.device),
        )


def _figures(
    policy: PI0Policy, plan: PolicyPlan, measured: _Measured, towers: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    took = {name: median(seconds) for name, seconds in measured.seconds.items()}
    stages = {
        "tower": took["tower"],
        "prefix": took[f"{_OURS_OFF} prefix"],
        "denoising": took[f"{_OURS_OFF} denoising"],
    }
    chunk_s = sum(stages.values())
    rows = [_row(policy, plan, measured, lane, took, chunk_s) for lane in measured.lanes]
    reuse = {kind: _reuse(plan, figures, chunk_s) for kind, figures in towers.items()}
    result = {
        "chunk_s": chunk_s,
        "theirs_s": took["theirs"],
        "wall_ratio": chunk_s / took["theirs"],
        "same_actions": measured.is_same,
        "largest_difference": measured.largest_difference,
        "stages": {name: {"s": s, "share": s / chunk_s, "flops": rows[0]["flops"][name]} for name, s in stages.items()},
        "rows": rows,
        "tower_reuse": reuse,
        **{f"vit_saved_{kind}": figures["vit_saved"] for kind, figures in reuse.items()},
        "actions_age_s": {
            "first": chunk_s,
            "last": chunk_s + (policy.chunk_size - 1) / _RATE_HZ,
            "last_if_replanned_at_once": 2 * chunk_s,
        },
    }
    return {**result, "default": _default(result)}


def _row(
    policy: PI0Policy, plan: PolicyPlan, measured: _Measured, lane: Lane, took: Mapping[str, float], chunk_s: float
) -> dict[str, Any]:
    chunk, whole = measured.chunks[lane.name], measured.chunks[_OURS_OFF]
    config = policy.model.config
    cost, full = (chunk_flops(config, one, policy.num_steps, num_cameras=plan.num_cameras) for one in (chunk, whole))
    prefix_s, denoising_s = took[f"{lane.name} prefix"], took[f"{lane.name} denoising"]
    mine_s = took["tower"] + prefix_s + denoising_s
    pairs = zip(measured.seconds[f"{_OURS_OFF} prefix"], measured.seconds[f"{lane.name} prefix"], strict=True)
    speedups = sorted(off_s / on_s for off_s, on_s in pairs)
    num_visual = plan.num_cameras * policy.tokens_per_camera
    rows = [num_visual - (whole.rows_per_layer[0] - computed) for computed in chunk.rows_per_layer]
    return {
        "saving": lane.name,
        "camera": lane.kind,
        "num_visual": num_visual,
        "visual_computed_by_layer": rows,
        "visual_computed_mean": sum(rows) / len(rows),
        "slots_last_layer": chunk.slots_per_layer[-1],
        "prefix_s": prefix_s,
        "denoising_s": denoising_s,
        "chunk_s": mine_s,
        "prefix_speedup": speedups[(len(speedups) - 1) // 2],
        "prefix_speedup_range": [speedups[0], speedups[-1]],
        "saved_wall_share": 1 - mine_s / chunk_s,
        "flops": {"tower": cost.tower, "prefix": cost.prefix, "denoising": cost.denoising, "total": cost.total},
        "saved_flops_share": 1 - cost.total / full.total,
        "saved_prefix_flops_share": 1 - cost.prefix / full.prefix,
    }


def _reuse(plan: PolicyPlan, figures: Mapping[str, Any], chunk_s: float) -> dict[str, Any]:
    saved_s = plan.num_cameras * (figures["dense_s"] - figures["delta_s"])
    return {**figures, "vit_saved": 1 - figures["delta_s"] / figures["dense_s"], "saved_wall_share": saved_s / chunk_s}


def _default(result: Mapping[str, Any]) -> dict[str, str]:
    """What follows from the figures for somebody who sets nothing."""
    by_name = {row["saving"]: row for row in result["rows"]}
    ages = result["actions_age_s"]
    reuse = ", ".join(f"{figures['saved_wall_share']:.0%} ({kind})" for kind, figures in result["tower_reuse"].items())
    saved = ", ".join(f"{row['saved_wall_share']:.0%} ({name})" for name, row in by_name.items() if name != _OURS_OFF)
    return {
        "tower_reuse": "delta"
        if any(figures["vit_saved"] > 0 for figures in result["tower_reuse"].values())
        else "none",
        "saving": _OURS_OFF,
        "because": (
            f"reuse in the tower saves {reuse} of a chunk, and computes what changed; savings in the prefix save "
            f"{saved} of it, and show the policy what it was not trained on, whose price in success random weights "
            f"cannot tell; the last step of a chunk is {ages['last']:.2f} s old at {_RATE_HZ:g} Hz, of which the "
            f"chunk's making is {ages['first']:.2f} s, and {ages['last_if_replanned_at_once']:.2f} s old where the "
            "next chunk is begun at once"
        ),
    }


class RobotPolicyBench(Bench):
    """pi0 at its real shape, random weights in bfloat16, alone on the machine."""

    about = (
        "robot_policy: what is saved of a chunk of pi0's actions (3 cameras of 256 tokens and 48 words, bfloat16, "
        "random weights). Keys: chunk_s (tower, prefix, denoising), theirs_s (transformers' sample_actions on the "
        "same pictures, in the same run), wall_ratio, same_actions (to the bit), stages (s, share, flops of the "
        "three), rows (by saving: none, VLA-Pruner at half and a quarter of the tokens, VLA-Cache with fixed and with "
        "wrist cameras: prefix_s, denoising_s, prefix_speedup, visual_computed_mean of num_visual, saved_flops_share "
        "and saved_wall_share of the whole chunk), tower_reuse (by kind of camera: dense_s, delta_s, stc_s of a "
        "frame), vit_saved_fixed, vit_saved_wrist, actions_age_s (at 50 Hz), default (what follows), "
        "peak_memory_bytes; left_out where the model has no room."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """model: "default": pi0's real shape; or a row of PI0_SHAPES."""
        return policy_rows(PolicyPlan("pi0" if model == "default" else model), repeats=repeats, clips=clips)

    def table(self, result: dict[str, Any]) -> str:
        title = (
            f"{result['shape']}, {result['num_parameters'] / 1e9:.2f} G parameters, {result['dtype']}, "
            f"{result['num_cameras']} cameras, {result['num_words']} words, median of {result['repeats']}; "
            f"{result['machine']}"
        )
        if "left_out" in result:
            return f"{title}\nleft out: {result['left_out']}"
        stages = ", ".join(f"{name} {one['s']:.3f} s ({one['share']:.0%})" for name, one in result["stages"].items())
        lines = [
            title,
            f"a chunk: {result['chunk_s']:.3f} s ({stages}); transformers {result['theirs_s']:.3f} s; "
            f"the same actions: {'yes' if result['same_actions'] else 'NO'}",
            f"  {'saving':16} {'tokens':>12} {'prefix':>9} {'speedup':>8} {'denoising':>10} {'FLOPs':>7} {'wall':>7}",
        ]
        for row in result["rows"]:
            lines.append(
                f"  {row['saving']:16} {row['visual_computed_mean']:6.0f} of {row['num_visual']:3d} "
                f"{row['prefix_s']:8.3f}s {row['prefix_speedup']:7.2f}x {row['denoising_s']:9.3f}s "
                f"{0 - row['saved_flops_share']:+7.1%} {0 - row['saved_wall_share']:+7.1%}"
            )
        for kind, figures in result["tower_reuse"].items():
            lines.append(
                f"  tower, {kind}: a frame dense {figures['dense_s']:.3f} s, delta {figures['delta_s']:.3f} s "
                f"({0 - figures['vit_saved']:+.0%}), {0 - figures['saved_wall_share']:+.1%} of a chunk"
            )
        return "\n".join([*lines, f"default: {result['default']['because']}"])


if __name__ == "__main__":
    import argparse

    _parser = argparse.ArgumentParser(description=RobotPolicyBench.about)
    _parser.add_argument("--shape", default="pi0")
    _parser.add_argument("--repeats", type=int, default=3)
    _parser.add_argument("--clips", type=Path)
    _given = _parser.parse_args()
    print(json.dumps(policy_rows(PolicyPlan(_given.shape), repeats=_given.repeats, clips=_given.clips)))

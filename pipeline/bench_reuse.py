"""`millpond bench reuse`: what each reuser takes for a frame beside the dense tower, and how near its features come."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..encoders import FrameTokens, VideoLLM
from ..encoders.reuse.base import Reuser, ReuseStats, Seer
from ..encoders.reuse.delta import DeltaReuse
from ..encoders.reuse.stc import STCCacher
from ..stream import Frame
from .bench import Bench
from .bench_shapes import SHAPES, Clip, hard_clips, machine, make_model, real_clips, synthetic_clips, wait_for

# Shapes: T tokens of a frame, D channels of the language model.

_STC_EVERY = (2, 4)
_LONGEST_CYCLE = max(_STC_EVERY)
_BLOCKS = ("copied", "partial", "full", "dense")
_QUICK_S = 0.1  # a dense frame that takes less is quick: every method then sees every frame


class Taken(NamedTuple):
    """What one pass over a clip gave.

    seconds, cosine_T: by method, of each timed frame, and of each token of those that were compared with dense.
    recomputed_share, blocks: how delta took the timed frames.
    """

    seconds: dict[str, list[float]]
    cosine_T: dict[str, Tensor]
    recomputed_share: float
    blocks: dict[str, int]


@dataclass(frozen=True)
class ReuseBench(Bench):
    """Dense, stc and delta on the same frames, in turn frame by frame, so that what disturbs one disturbs all.

    max_frames, max_quick_frames: timed frames of a clip, where the dense tower is slow and where it is quick.
    stc_frames: timed frames of stc where the tower is slow: whole cycles at the start of the clip.
    dense_every: and of dense: those of stc, and every so many-th.
    hard_frames: timed frames of noise, of two pictures in turn, and of a still picture.
    """

    max_frames: int = 40
    max_quick_frames: int = 240
    stc_frames: int = 8
    dense_every: int = 4
    hard_frames: int = 16

    about = (
        "reuse: wall time of a frame from its pixels to its tokens: dense (the whole tower), stc (a whole frame "
        "every 2nd or 4th, 25 % of the others) and delta with its defaults, one frame at a time, interleaved frame "
        "by frame; and cosine of the tokens to dense. The first frame of a clip is in no figure. Towers so400m-384 "
        "and b-512 with random weights in bfloat16 and the built-in one; --model takes one of them, or a checkpoint. "
        "Every recording in the folder of clips at 2 fps, vtest.avi at 10 fps too; synthetic ones where there is no "
        "folder; besides noise, two pictures in turn, and a still picture. Keys: rows, each with clip, fps, shape, "
        "dtype, num_frames; dense_s (median), stc_s (mean over whole cycles, the faster of stc2_s and stc4_s; "
        "stc_every says which), delta_s (mean), delta_median_s; speedup_stc, speedup_delta (dense_s over theirs); "
        "recomputed_share (of patches, delta) and blocks (how many delta copied, computed in part, in full to keep, "
        "dense); cosine_mean, cosine_p01 (delta; worst 1 % of tokens), the same as stc2_ and stc4_; and "
        "speedup_delta_range (lowest and highest of all passes). A row is the pass whose speedup_delta is the median "
        "of all. repeats (passes), machine."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """model: "default" measures all of SHAPES.

        clips: a folder with recordings.
        """
        rows: list[dict[str, Any]] = []
        for shape in SHAPES if model == "default" else (model,):
            made = make_model(shape)
            for clip, plan in self._clips(made, clips):
                passes = [_figures(_one_pass(made, clip.frames, plan)) for _ in range(repeats)]
                passes.sort(key=lambda figures: figures["speedup_delta"])
                speedups = [figures["speedup_delta"] for figures in passes]
                where = {"clip": clip.name, "fps": clip.fps, "shape": shape}
                what = {"dtype": str(made.spec.dtype).removeprefix("torch."), "num_frames": len(clip.frames) - 1}
                spread = {"speedup_delta_range": [speedups[0], speedups[-1]]}
                rows.append({**where, **what, **passes[(len(passes) - 1) // 2], **spread})
        return {"rows": rows, "repeats": repeats, "machine": machine(made.spec.device)}

    def table(self, result: dict[str, Any]) -> str:
        lines = [
            f"seconds a frame, median of {result['repeats']}; {result['machine']}",
            f"{'shape':14} {'clip':14} {'fps':>4} {'frames':>6} {'dense':>8} {'stc':>8} {'delta':>8}"
            f" {'stc':>7} {'delta':>7} {'computed':>8} {'cosine':>7} {'worst 1%':>8}",
        ]
        for row in result["rows"]:
            lines.append(
                f"{row['shape']:14.14} {row['clip']:14.14} {row['fps']:4g} {row['num_frames']:6d}"
                f" {row['dense_s']:8.4f} {row['stc_s']:8.4f} {row['delta_s']:8.4f}"
                f" {row['speedup_stc']:6.2f}x {row['speedup_delta']:6.2f}x {row['recomputed_share']:8.1%}"
                f" {row['cosine_mean']:7.4f} {row['cosine_p01']:8.4f}"
            )
        return "\n".join(lines)

    def _clips(self, model: VideoLLM, folder: Path | None) -> list[tuple[Clip, _Plan]]:
        """What is measured, and which frames of it by which method."""
        hard = hard_clips(1 + self.hard_frames)
        is_quick = _dense_s(model, hard[0].frames[:3]) < _QUICK_S
        num_frames = 1 + (self.max_quick_frames if is_quick else self.max_frames)
        easy = synthetic_clips(num_frames) if folder is None else real_clips(folder, num_frames)
        every = _Plan(stc_frames=num_frames, dense_every=1)
        some = every if is_quick else _Plan(stc_frames=self.stc_frames, dense_every=self.dense_every)
        # Two methods that do the same are told apart by a per cent or two: hard clips are measured on every frame.
        few = every if is_quick else _Plan(stc_frames=self.stc_frames, dense_every=1)
        planned = [(clip, some) for clip in easy] + [(clip, few) for clip in hard]
        for clip, _ in planned:
            if len(clip.frames) <= _LONGEST_CYCLE:
                raise ValueError(
                    f"{clip.name} must have {_LONGEST_CYCLE + 1} frames or more at {clip.fps:g} fps to be measured; "
                    f"got {len(clip.frames)}; take a longer one"
                )
        return planned


class _Plan(NamedTuple):
    stc_frames: int
    dense_every: int


class _Method:
    """One way to see a stream, with its own state."""

    def __init__(self, model: VideoLLM, reuser: Reuser | None) -> None:
        self._model = model
        self._seer: Seer[Any] | None = None if reuser is None else reuser.over(model)
        self.run = None if self._seer is None else self._seer.start()

    def see(self, frame: Frame) -> FrameTokens:
        if self._seer is None:
            return self._model.see([frame])[0]
        return self._seer.see([(self.run, [frame])])[0][0].tokens


def _dense_s(model: VideoLLM, frames: Sequence[Frame]) -> float:
    """What a dense frame takes where nothing disturbs it and all is warm."""
    took_s = []
    for frame in frames:
        started_s = time.perf_counter()
        model.see([frame])
        wait_for(model.spec.device)
        took_s.append(time.perf_counter() - started_s)
    return min(took_s)


def _one_pass(model: VideoLLM, frames: Sequence[Frame], plan: _Plan) -> Taken:
    """All methods over one clip, taking turns at each frame."""
    methods = {"dense": _Method(model, None)}
    methods |= {f"stc{every}": _Method(model, STCCacher(every_blocks=every)) for every in _STC_EVERY}
    methods["delta"] = _Method(model, DeltaReuse())
    stats = methods["delta"].run.stats
    num_timed = len(frames) - 1
    num_stc = min(plan.stc_frames, num_timed) // _LONGEST_CYCLE * _LONGEST_CYCLE
    seconds: dict[str, list[float]] = defaultdict(list)
    cosines: dict[str, list[Tensor]] = defaultdict(list)
    before = ReuseStats()
    for number, frame in enumerate(frames):
        has_stc, is_compared = number <= num_stc, number % plan.dense_every == 0
        due = [name for name in methods if name == "delta" or (has_stc if name != "dense" else has_stc or is_compared)]
        # In another order each time: who comes later finds the frame, and the weights, in the processor's caches.
        seen: dict[str, Tensor] = {}
        for name in Random(number).sample(due, len(due)):
            started_s = time.perf_counter()
            tokens = methods[name].see(frame)
            wait_for(model.spec.device)
            took_s = time.perf_counter() - started_s
            seen[name] = _on_grid(tokens)
            if number:
                seconds[name].append(took_s)
        if not number:
            before = replace(stats)
            continue
        for name in due:
            if name.startswith("stc") or (name == "delta" and is_compared):
                cosines[name].append(F.cosine_similarity(seen[name], seen["dense"], dim=-1))
    return Taken(
        seconds,
        {name: torch.cat(parts).cpu() for name, parts in cosines.items()},
        (stats.num_recomputed - before.num_recomputed) / (stats.num_patches - before.num_patches),
        {kind: getattr(stats, f"num_{kind}") - getattr(before, f"num_{kind}") for kind in _BLOCKS},
    )


def _on_grid(tokens: FrameTokens) -> Tensor:
    """The rows that show a part of the picture, float32: one that a family appends is the same for all."""
    num_places = tokens.grid_hw[0] * tokens.grid_hw[1]
    return tokens.x_TD[tokens.kept_T.to(tokens.x_TD.device) < num_places].float()


def _figures(taken: Taken) -> dict[str, Any]:
    """One row's figures of one pass."""
    dense_s, delta_s = median(taken.seconds["dense"]), mean(taken.seconds["delta"])
    stc_s = {every: mean(taken.seconds[f"stc{every}"]) for every in _STC_EVERY}
    best = min(stc_s, key=lambda every: stc_s[every])
    figures: dict[str, Any] = {
        "dense_s": dense_s,
        "stc_s": stc_s[best],
        "delta_s": delta_s,
        "speedup_stc": dense_s / stc_s[best],
        "speedup_delta": dense_s / delta_s,
        "recomputed_share": taken.recomputed_share,
        "blocks": taken.blocks,
        "delta_median_s": median(taken.seconds["delta"]),
        "stc_every": best,
        **{f"stc{every}_s": seconds for every, seconds in stc_s.items()},
    }
    for name, cosine_T in taken.cosine_T.items():
        prefix = "" if name == "delta" else f"{name}_"
        figures[f"{prefix}cosine_mean"] = float(cosine_T.mean())
        figures[f"{prefix}cosine_p01"] = _worst_hundredth(cosine_T)
    return figures


def _worst_hundredth(cosine_T: Tensor) -> float:
    """The value that 1 % of the tokens fall below. (torch.quantile takes 16 million values at most.)"""
    return float(cosine_T.sort().values[len(cosine_T) // 100])

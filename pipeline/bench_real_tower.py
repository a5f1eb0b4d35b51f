"""A frame's way through the vision tower, dense, with STC-Cacher and with delta: seconds and memory, side by side."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import Any, NamedTuple

import numpy as np

from ..encoders import VisionHalf
from ..encoders.reuse import Reuser, ReuseStats, SeerRun
from ..encoders.reuse.base import blocks_of, tower_of
from ..encoders.reuse.delta import DeltaReuse
from ..encoders.reuse.none import NoReuse
from ..encoders.reuse.stc import STCCacher
from ..stream import Frame, RateSampler, open_source
from ..stream.change import ChangeRule
from .bench_real_models import PeakMemory
from .bench_shapes import Clip, real_clips, wait_for

# Shapes: H rows and W columns of a picture, 3 colours.

STC_EVERY = (2, 4)
LONGEST_CYCLE = max(STC_EVERY)
_FPS = 2.0
# Something moves in it nearly all the time.
_STILL = f"synthetic://shapes?seed=7&duration_s=13&rate_hz={_FPS:g}&width=640&height=480"
_GRID = 24, 32  # in which the change of a clip is looked for
_STEP_PX = 20  # that the camera turns from one frame to the next
_TEXTURE_PX, _TEXTURE_LEVELS = 8, 64

_METHODS: dict[str, Reuser] = {
    "dense": NoReuse(),
    **{f"stc{every}": STCCacher(every_blocks=every) for every in STC_EVERY},
    "delta": DeltaReuse(),
}


class Moving(NamedTuple):
    """A clip, how much moves in it beside the others, and the share of its patches that change between frames."""

    change: str
    clip: Clip
    changed_share: float


def moving_clips(num_frames: int, folder: Path | None = None) -> list[Moving]:
    """A clip in which little changes, and one in which much does.

    folder: of recordings: those of them in which least and most changes; one alone counts as little, and short ones
        run to and fro. None: a world of moving shapes, and a picture that a camera turns over.
    """
    if num_frames < 2:
        raise ValueError(f"clips need two frames or more to change; got num_frames={num_frames}")
    if folder is None:
        clips = _synthetic_clips(num_frames)
    else:
        clips = [to_and_fro(clip, num_frames) for clip in real_clips(folder, num_frames)]
    by_share = sorted(((_changed_share(clip.frames), number) for number, clip in enumerate(clips)))
    chosen = {"little": by_share[0]} | ({"much": by_share[-1]} if len(clips) > 1 else {})
    return [Moving(change, clips[number], share) for change, (share, number) in chosen.items()]


def to_and_fro(clip: Clip, num_frames: int) -> Clip:
    """As many frames of a clip as are asked for: at its end it runs backwards, and at its beginning forwards again."""
    there = clip.frames
    if len(there) < 2:
        raise ValueError(f"{clip.name} must have two frames or more at {clip.fps:g} fps; got {len(there)}")
    endless = cycle([*there, *there[-2:0:-1]])
    frames = (
        Frame(frame.rgb_HW3, number / clip.fps, frame.stream_id, number)
        for number, frame in enumerate(islice(endless, num_frames))
    )
    return clip._replace(frames=tuple(frames))


def measure_tower(model: VisionHalf, moving: Moving, num_blocks: int, repeats: int) -> dict[str, Any]:
    """All methods on the same blocks, in turn, several times over. What stands for all is the pass whose
    speedup_delta is the median of all."""
    passes = [_one_pass(model, moving.clip.frames, num_blocks, repeat) for repeat in range(repeats)]
    passes.sort(key=lambda figures: figures["speedup_delta"])
    ranges = {
        f"{key}_range": [min(one[key] for one in passes), max(one[key] for one in passes)]
        for key in ("speedup_stc", "speedup_delta")
    }
    first = moving.clip.frames[0]
    return {
        "clip": moving.clip.name,
        "picture": f"{first.width}x{first.height}",
        "num_patches": tower_of(model, "a benchmark of towers").layout(first.height, first.width).num_patches,
        "change": moving.change,
        "changed_share": moving.changed_share,
        **passes[(len(passes) - 1) // 2],
        **ranges,
    }


def measure_tower_memory(model: VisionHalf, frames: Sequence[Frame], peak: PeakMemory) -> dict[str, int | None]:
    """The most that each method takes alone, weights included, over a whole cycle of its blocks."""
    taken: dict[str, int | None] = {}
    for name in ("dense", "stc", "delta"):
        seer = _METHODS[f"stc{LONGEST_CYCLE}" if name == "stc" else name].over(model)
        run = seer.start()
        peak.restart()
        for block in blocks_of(model, frames)[: 1 + LONGEST_CYCLE]:
            seer.see([(run, block)])
        taken[name] = peak.num_bytes
    return taken


def _one_pass(model: VisionHalf, frames: Sequence[Frame], num_blocks: int, repeat: int) -> dict[str, Any]:
    """The first block is in no figure: it is computed whole by all."""
    seers = {name: reuser.over(model) for name, reuser in _METHODS.items()}
    runs: dict[str, SeerRun] = {name: seer.start() for name, seer in seers.items()}
    seconds: dict[str, list[float]] = defaultdict(list)
    stats, before = runs["delta"].stats, ReuseStats()
    for number, block in enumerate(blocks_of(model, frames)[: 1 + num_blocks]):
        # In another order each time: who comes later finds frame and weights in the processor's caches.
        for name in Random(1000 * repeat + number).sample(sorted(seers), len(seers)):
            started_s = time.perf_counter()
            seers[name].see([(runs[name], block)])
            wait_for(model.spec.device)
            if number:
                seconds[name].append((time.perf_counter() - started_s) / len(block))
        if not number:
            before = replace(stats)
    # Dense by its median, and the others by their means, their slow blocks included.
    dense_s, delta_s = median(seconds["dense"]), mean(seconds["delta"])
    by_every = {every: mean(seconds[f"stc{every}"]) for every in STC_EVERY}
    best = min(by_every, key=lambda every: by_every[every])
    return {
        "dense_s": dense_s,
        "stc_s": by_every[best],
        "stc_every": best,
        "delta_s": delta_s,
        "speedup_stc": dense_s / by_every[best],
        "speedup_delta": dense_s / delta_s,
        "recomputed_share": (stats.num_recomputed - before.num_recomputed) / (stats.num_patches - before.num_patches),
    }


def _synthetic_clips(num_frames: int) -> list[Clip]:
    """A still camera's, and what one sees that turns to and fro over the last picture of it, with grain."""
    with open_source(_STILL) as source:
        still = Clip("shapes-7", _FPS, tuple(source.sampled(RateSampler(_FPS))))
    rgb_HW3 = still.frames[-1].rgb_HW3
    height, width = rgb_HW3.shape[:2]
    rng = np.random.default_rng(0)
    grain = rng.integers(-_TEXTURE_LEVELS, _TEXTURE_LEVELS, (height // _TEXTURE_PX, width // _TEXTURE_PX, 1))
    grain_HW3 = grain.repeat(_TEXTURE_PX, axis=0).repeat(_TEXTURE_PX, axis=1)
    scene_HW3 = np.clip(rgb_HW3.astype(np.int64) + grain_HW3, 0, 255).astype(np.uint8)
    scene_HW3 = np.concatenate([scene_HW3, scene_HW3[:, ::-1]], axis=1)
    pictures = [np.ascontiguousarray(scene_HW3[:, left : left + width]) for left in range(0, width + 1, _STEP_PX)]
    frames = tuple(Frame(picture, number / _FPS, "turning", number) for number, picture in enumerate(pictures))
    return [to_and_fro(clip, num_frames) for clip in (still, Clip("turning", _FPS, frames))]


def _changed_share(frames: Sequence[Frame]) -> float:
    """Share of the patches that change from one frame to the next, where all are looked at anew each time."""
    detector = ChangeRule().start(_GRID)
    shares = []
    for frame in frames:
        shares.append(detector.compare([frame.rgb_HW3]).share)
        detector.encoded(None)
    return mean(shares[1:])

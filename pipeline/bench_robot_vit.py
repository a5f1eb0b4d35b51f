"""What reuse saves of the vision tower's time, with a camera that stands still and with one on a wrist."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random
from statistics import median
from typing import Any

import numpy as np
import torch

from ..encoders import VideoLLM
from ..encoders.reuse.delta import DeltaReuse
from ..stream import Frame
from .bench_robot_scenes import RATE_HZ, SCENES
from .bench_shapes import wait_for


def measure_vit(model: VideoLLM, *, num_frames: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Every frame of each scene dense and with delta reuse, in another order each time; the first is in no figure.

    saved: share of the dense tower's time that reuse saved, from the sums over the scene; the median of the repeats.
    """
    rows = {}
    for name, scene in SCENES.items():
        pictures = scene(num_frames)
        passes = sorted((_one_pass(model, pictures) for _ in range(repeats)), key=lambda one: one["saved"])
        saved = [one["saved"] for one in passes]
        rows[name] = {**passes[(len(passes) - 1) // 2], "saved_range": [saved[0], saved[-1]], "saved": median(saved)}
    return rows


@torch.inference_mode()
def _one_pass(model: VideoLLM, pictures: Sequence[np.ndarray]) -> dict[str, Any]:
    seer = DeltaReuse().over(model)
    run = seer.start()
    ways: dict[str, Callable[[list[Frame]], object]] = {
        "dense": model.see,
        "delta": lambda frames: seer.see([(run, frames)]),
    }
    took_s = dict.fromkeys(ways, 0.0)
    num_patches = num_recomputed = 0
    for number, picture in enumerate(pictures):
        frame = Frame(picture, number / RATE_HZ, "camera", number)
        for name in Random(number).sample(sorted(ways), len(ways)):
            started_s = time.perf_counter()
            ways[name]([frame])
            wait_for(model.spec.device)
            took_s[name] += (time.perf_counter() - started_s) * (number > 0)
        if not number:
            num_patches, num_recomputed = run.stats.num_patches, run.stats.num_recomputed
    num_timed = len(pictures) - 1
    return {
        "dense_s": took_s["dense"] / num_timed,
        "delta_s": took_s["delta"] / num_timed,
        "saved": 1 - took_s["delta"] / took_s["dense"],
        "recomputed_share": (run.stats.num_recomputed - num_recomputed) / (run.stats.num_patches - num_patches),
        "num_frames": num_timed,
    }

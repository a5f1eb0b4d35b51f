"""Worlds that training never saw, as frames of 320x240 at 1 fps, and questions about them: of several benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..stream import Frame
from ..stream.render import render
from ..stream.truth import NOTHING, WORDINGS, Asked, Witness
from ..stream.wide_world import make_wide_world
from ..stream.world import make_world

# Training takes its seeds from a million on; see demos/mini_data.py.
FIRST_SEED = 0
NUM_WORLDS = 32
KINDS = tuple(WORDINGS)


class Clip(NamedTuple):
    """A world's frames, a second apart, and who saw it."""

    frames: list[Frame]
    witness: Witness


def make_clip(seed: int, num_frames: int, *, wide: bool = True) -> Clip:
    """wide: small objects, distractors, grain, shake, noise and a ticker; otherwise shapes on a still background."""
    world = (make_wide_world if wide else make_world)(seed, duration_s=float(num_frames), aspect=4 / 3)
    times_s = [float(t) for t in range(num_frames)]
    pictures = render(world, times_s, width=320, height=240).rgb_NHW3
    frames = [Frame(rgb, t, f"world-{seed}", n) for n, (rgb, t) in enumerate(zip(pictures, times_s, strict=True))]
    return Clip(frames, Witness(world, times_s))


def ask_at_end(clip: Clip, seed: int, kinds: Sequence[str] = KINDS) -> list[Asked]:
    """A question of each kind after the last frame."""
    rng = np.random.default_rng(seed)
    drawn = (draw(clip.witness, kind, len(clip.frames) - 1, rng) for kind in kinds)
    return [one for one in drawn if one is not None]


def ask_along(clip: Clip, seed: int, moments: Sequence[int]) -> dict[int, list[Asked]]:
    """A question of each kind after one of the moments, in turn; moments: numbers of frames that were seen by then."""
    rng = np.random.default_rng(seed)
    asked: dict[int, list[Asked]] = {after: [] for after in moments}
    for number, kind in enumerate(KINDS):
        after = moments[(seed + number) % len(moments)]
        one = draw(clip.witness, kind, after - 1, rng)
        if one is not None:
            asked[after].append(one)
    return asked


def draw(witness: Witness, kind: str, number: int, rng: np.random.Generator) -> Asked | None:
    """A question of this kind after that frame, of several one whose answer is not "nothing" where there is one."""
    drawn = [witness.ask(kind, number, rng, canonical=True) for _ in range(4)]
    return next((one for one in drawn if one is not None and one.answer != NOTHING), drawn[0])

"""What a robot's cameras show in benchmarks: a world from where it stands still, and from a wrist that moves."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from ..stream.render import render
from ..stream.world import World, make_world

# Shapes: H rows, W columns, 3 colours.

WIDTH, HEIGHT = 640, 480
RATE_HZ = 30.0

_STEP_S = 0.5
_GRAIN_LEVELS = 24
_ARM_WIDTH, _ARM_RGB = 64, (70, 70, 80)
# Periods in which a wrist sweeps over half a picture's width, and height: by 8 pixels a frame at most.
_SWEEP_S = (4.0, 2.6)


def fixed_scene(num_frames: int, seed: int = 1) -> list[np.ndarray]:
    """A camera on a stand: an arm that is never still, things that come and move, and a ground that does not."""
    world = _world(seed, num_frames)
    pictures = []
    for number in range(num_frames):
        picture_HW3 = _painted(world, number, WIDTH, HEIGHT)
        left = round((WIDTH - _ARM_WIDTH) * (0.5 + 0.4 * math.sin(2 * math.pi * number / RATE_HZ / _SWEEP_S[0])))
        picture_HW3[: HEIGHT // 2, left : left + _ARM_WIDTH] = _ARM_RGB
        pictures.append(_noisy(picture_HW3, number))
    return pictures


def wrist_scene(num_frames: int, seed: int = 2) -> list[np.ndarray]:
    """A camera on a wrist that is never still: all that it sees slides on in every frame, but for the fingers before
    it."""
    world = _world(seed, num_frames)
    pictures = []
    for number in range(num_frames):
        wide_HW3 = _painted(world, number, 3 * WIDTH // 2, 3 * HEIGHT // 2)
        left, top = (
            round(room * (0.5 + 0.5 * math.sin(2 * math.pi * number / RATE_HZ / period_s)))
            for room, period_s in zip((WIDTH // 2, HEIGHT // 2), _SWEEP_S, strict=True)
        )
        picture_HW3 = wide_HW3[top : top + HEIGHT, left : left + WIDTH].copy()
        for finger in (WIDTH // 4, WIDTH - WIDTH // 4 - _ARM_WIDTH):
            picture_HW3[3 * HEIGHT // 4 :, finger : finger + _ARM_WIDTH] = _ARM_RGB
        pictures.append(_noisy(picture_HW3, number))
    return pictures


SCENES: dict[str, Callable[[int], list[np.ndarray]]] = {"fixed": fixed_scene, "wrist": wrist_scene}


@lru_cache(maxsize=4)
def to_and_fro(scene: str, num_frames: int) -> tuple[np.ndarray, ...]:
    """A scene forwards and backwards, so that it can be shown over and over without a cut."""
    pictures = SCENES[scene](num_frames)
    return (*pictures, *pictures[-2:0:-1])


def _world(seed: int, num_frames: int) -> World:
    return make_world(seed, duration_s=max(1.0, num_frames / RATE_HZ), step_s=_STEP_S, aspect=WIDTH / HEIGHT)


def _painted(world: World, number: int, width: int, height: int) -> np.ndarray:
    """The world on a ground that is not plain: on a plain one, a camera could move and see the same."""
    picture_HW3 = render(world, [number / RATE_HZ], width=width, height=height).rgb_NHW3[0]
    return np.clip(picture_HW3.astype(np.int16) + _grain(height, width)[..., None], 0, 255).astype(np.uint8)


@lru_cache(maxsize=2)
def _grain(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(-_GRAIN_LEVELS, _GRAIN_LEVELS + 1, (height // 12 + 1, width // 12 + 1))
    return coarse.repeat(12, axis=0).repeat(12, axis=1)[:height, :width].astype(np.int16)


def _noisy(picture_HW3: np.ndarray, number: int) -> np.ndarray:
    """As a sensor gives it: the same spot is never quite the same twice."""
    noise_HW3 = np.random.default_rng(number).integers(-2, 3, picture_HW3.shape, dtype=np.int16)
    return np.clip(picture_HW3 + noise_HW3, 0, 255).astype(np.uint8)

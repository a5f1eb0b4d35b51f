"""Frames for tests of reuse: pictures in which little changes, each change known."""

from __future__ import annotations

import numpy as np

from millpond.encoders import FAMILIES, VideoLLM, load_model
from millpond.stream import Frame

from .tiny_models import TINY_MODELS

FAMILY_NAMES = sorted(FAMILIES)
HEIGHT, WIDTH = 96, 128


def load_tiny(family: str, folder) -> VideoLLM:  # type: ignore[no-untyped-def]
    """A small random model of that family, in float32 on the CPU."""
    return load_model(TINY_MODELS[family].save(folder), device="cpu", dtype="float32")


def background(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Coarse blocks of colour: uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(40, 216, (height // 8 + 1, width // 8 + 1, 3))
    return coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].astype(np.uint8)


def moving_square(num: int, *, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> list[Frame]:
    """A white square of 16 pixels that goes to the right over a still background."""
    frames = []
    for n in range(num):
        rgb = background(seed, height, width)
        left = 8 * n % (width - 16)
        rgb[height // 4 : height // 4 + 16, left : left + 16] = 255
        frames.append(Frame(rgb, float(n), f"stream-{seed}", n))
    return frames


def still(num: int, *, seed: int = 0) -> list[Frame]:
    """One picture, again and again."""
    return [Frame(background(seed), float(n), f"stream-{seed}", n) for n in range(num)]


def noise(num: int, *, seed: int = 0) -> list[Frame]:
    """Nothing of one frame is in the next."""
    rng = np.random.default_rng(seed)
    return [Frame(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), float(n)) for n in range(num)]

"""Stores, scenes and pictures for the tests of the archive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from millpond.memory.archive import Archive
from millpond.memory.depots import Depot, Payload
from millpond.stream import Span

# Shapes: H rows of pixels, W columns, 3 colours, D channels of a picture's vector.

NUM_CHANNELS = 16


def written(payload: Payload) -> Payload:
    return payload if isinstance(payload, bytes) else b"".join(payload)


class Direct:
    """A store that writes at once, in the caller's thread; it can be made to refuse, and to lose."""

    def __init__(self, depot: Depot) -> None:
        self.depot = depot
        self.takes = True

    def submit(self, kind: Any, number: int, make: Callable[[], Payload], *, num_bytes: int) -> bool:
        if self.takes:
            self.depot.put(kind, number, make())
        return self.takes

    def drop(self, kind: Any, number: int) -> bool:
        self.depot.drop(kind, number)
        return True

    def get(self, kind: Any, number: int) -> bytes | None:
        return self.depot.get(kind, number)

    def numbers(self, kind: Any) -> list[int]:
        return self.depot.numbers(kind)

    def num_bytes(self, kind: Any) -> int:
        return self.depot.num_bytes(kind)


class Lazy(Direct):
    """A store that codes nothing until it is told to, and drops what it is told to forget."""

    def __init__(self, depot: Depot) -> None:
        super().__init__(depot)
        self.waiting: dict[int, Callable[[], Payload]] = {}

    def submit(self, kind: Any, number: int, make: Callable[[], Payload], *, num_bytes: int) -> bool:
        self.waiting[number] = make
        return True

    def drop(self, kind: Any, number: int) -> bool:
        self.waiting.pop(number, None)
        return super().drop(kind, number)

    def get(self, kind: Any, number: int) -> bytes | None:
        return bytes(written(self.waiting[number]())) if number in self.waiting else super().get(kind, number)

    def write(self) -> None:
        for number, make in self.waiting.items():
            self.depot.put("picture", number, make())
        self.waiting.clear()


def vector(number: int, step: int = 0, noise: float = 0.02) -> torch.Tensor:
    made = torch.Generator().manual_seed(number)
    own_D = torch.randn(NUM_CHANNELS, generator=made)
    made.manual_seed(7919 * number + step)
    return own_D + noise * torch.randn(NUM_CHANNELS, generator=made)


def picture(number: int, side: int = 24) -> np.ndarray:
    rgb_HW3 = np.empty((side, side, 3), np.uint8)
    rgb_HW3[:] = np.random.default_rng(number).integers(0, 256, 3, dtype=np.uint8)
    return rgb_HW3


def noise(seed: int, side: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def watch(archive: Archive, scenes: list[int], length: int = 6, first_s: float = 0.0) -> None:
    for t in range(len(scenes) * length):
        scene = scenes[t // length]
        archive.see(picture(scene), Span(first_s + t, first_s + t + 1), vector(scene, t))

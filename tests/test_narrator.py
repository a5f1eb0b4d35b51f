"""When to speak: enough changed, or enough time passed, and not too often."""

from __future__ import annotations

import math

import numpy as np
import pytest

from millpond.pipeline import NarrationConfig
from millpond.pipeline.narrator import Narrator
from millpond.stream import Frame

from .watched import picture


def grey(level: float, now_s: float, size: tuple[int, int] = (48, 64)) -> Frame:
    return Frame(np.full((*size, 3), round(level), np.uint8), now_s)


def moments(frames: list[Frame], **config: float) -> list[float]:
    """When it would have spoken, each time saying so."""
    narrator, spoken = Narrator(NarrationConfig(**config)), []  # type: ignore[arg-type]
    for frame in frames:
        narrator.see(frame)
        if narrator.is_due(frame.pts_s):
            narrator.said(frame.pts_s)
            spoken.append(frame.pts_s)
            assert narrator.since_s == frame.pts_s
    return spoken


def test_nothing_is_due_before_anything_was_seen() -> None:
    narrator = Narrator(NarrationConfig(min_gap_s=0, max_gap_s=0))
    assert not narrator.is_due(0.0) and not narrator.is_due(1e6)
    assert narrator.since_s is None


def test_the_first_is_due_when_the_least_gap_has_passed() -> None:
    assert moments([grey(9, 5.0 + n) for n in range(5)], min_gap_s=2, max_gap_s=math.inf) == [7.0]


def test_change_is_told_early_and_stillness_late() -> None:
    changing = [Frame(picture(n), float(n)) for n in range(9)]
    assert moments(changing, min_gap_s=3, max_gap_s=100) == [3.0, 6.0]
    assert moments([grey(9, float(n)) for n in range(14)], min_gap_s=3, max_gap_s=5) == [3.0, 8.0, 13.0]


def test_change_must_exceed_the_levels_asked_for() -> None:
    step = [grey(100, 0.0), grey(100, 1.0), grey(110, 2.0), grey(110, 3.0)]
    assert moments(step, min_gap_s=1, max_gap_s=99, change_levels=9) == [1.0, 2.0]
    assert moments(step, min_gap_s=1, max_gap_s=99, change_levels=11) == [1.0]


def test_slow_change_adds_up_until_it_is_told() -> None:
    drift = [grey(50 + 2 * n, float(n)) for n in range(20)]
    assert moments(drift, min_gap_s=1, max_gap_s=99, change_levels=9) == [1.0, 6.0, 11.0, 16.0]


def test_a_picture_of_another_size_is_a_change() -> None:
    assert moments([grey(9, 0.0), grey(9, 1.0), grey(9, 2.0, (20, 90))], min_gap_s=1, max_gap_s=99) == [1.0, 2.0]


def test_asking_whether_it_is_due_changes_nothing() -> None:
    narrator = Narrator(NarrationConfig(min_gap_s=1, max_gap_s=99))
    narrator.see(grey(9, 0.0))
    assert [narrator.is_due(1.0) for _ in range(3)] == [True] * 3
    assert narrator.since_s is None


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (1080, 1920)])
def test_pictures_of_any_size_are_held_small(size: tuple[int, int]) -> None:
    narrator = Narrator(NarrationConfig())
    for n in range(3):
        narrator.see(grey(9, float(n), size))
        narrator.said(float(n))
    held = [value for value in vars(narrator).values() if isinstance(value, np.ndarray)]
    assert len(held) == 2 and sum(array.nbytes for array in held) < 100_000

"""Which frames are news, and why."""

from __future__ import annotations

import math

import numpy as np
import pytest

from millpond.stream import GATES, DifferenceGate, Frame, Gate, NoGate, RateSampler, Verdict, open_source

from .clips import VIDEOS

# Shapes: H rows, W columns, 3 colours.

SETTINGS: dict[str, Gate] = {"difference": DifferenceGate(threshold=8.0, max_gap_s=60.0), "none": NoGate()}


def frames_of(pictures: list[np.ndarray], step_s: float = 0.5) -> list[Frame]:
    return [Frame(picture, number * step_s, index=number) for number, picture in enumerate(pictures)]


def judged(gate: Gate, frames: list[Frame]) -> list[Verdict]:
    run = gate.start()
    return [run.judge(frame) for frame in frames]


def noisy(seed: int, sigma: float = 4.0, size: tuple[int, int] = (240, 320)) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, (*size, 3))
    return np.clip(120 + noise, 0, 255).astype(np.uint8)


def test_every_gate_has_settings() -> None:
    assert set(GATES) == set(SETTINGS)
    for name, gate in SETTINGS.items():
        assert type(gate) is GATES[name]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (97, 31), (240, 320)])
def test_promises(name: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3), np.uint8) // 2 + 60 * (n % 3 == 0) for n in range(6)]
    frames = frames_of([p.astype(np.uint8) for p in pictures])
    before = [frame.rgb_HW3.copy() for frame in frames]
    verdicts = judged(SETTINGS[name], frames)
    assert verdicts[0].keep
    assert verdicts == judged(SETTINGS[name], frames)
    assert all(np.array_equal(a, frame.rgb_HW3) for a, frame in zip(before, frames, strict=True))
    assert all(verdict.reason and verdict.score >= 0 for verdict in verdicts)


def test_no_gate_keeps_everything() -> None:
    assert judged(NoGate(), frames_of([noisy(0)] * 3)) == [Verdict(True, "all")] * 3


def test_the_noise_of_a_sensor_is_no_news() -> None:
    verdicts = judged(DifferenceGate(), frames_of([noisy(seed) for seed in range(20)]))
    assert [v.reason for v in verdicts] == ["first"] + ["still"] * 19


@pytest.mark.parametrize("place", [(0, 0), (101, 153), (232, 310), (7, 301)])
def test_a_small_object_is_news_wherever_it_is(place: tuple[int, int]) -> None:
    y, x = place
    with_object = noisy(1)
    with_object[y : y + 10, x : x + 10] = 250  # a thousandth of the picture
    verdict = judged(DifferenceGate(), frames_of([noisy(0), with_object]))[1]
    assert (verdict.keep, verdict.reason) == (True, "change")


def test_slow_change_adds_up_until_it_is_news() -> None:
    pictures = [np.full((120, 160, 3), 100 + number, np.uint8) for number in range(20)]
    kept = [n for n, v in enumerate(judged(DifferenceGate(threshold=8.0), frames_of(pictures))) if v.keep]
    assert kept == [0, 9, 18]


def test_a_gap_forces_a_frame() -> None:
    frames = frames_of([noisy(0)] * 13, step_s=0.1)
    verdicts = judged(DifferenceGate(max_gap_s=0.4), frames)
    assert [n for n, v in enumerate(verdicts) if v.keep] == [0, 4, 8, 12]
    assert {v.reason for v in verdicts[1:] if v.keep} == {"gap"}


def test_another_size_is_news() -> None:
    verdicts = judged(DifferenceGate(), frames_of([noisy(0), noisy(0, size=(120, 160)), noisy(0, size=(120, 160))]))
    assert [v.reason for v in verdicts] == ["first", "size", "still"]


@pytest.mark.parametrize("threshold", [-1.0, 256.0, math.nan])
def test_a_threshold_is_a_level(threshold: float) -> None:
    with pytest.raises(ValueError, match="got threshold="):
        DifferenceGate(threshold=threshold)


@pytest.mark.parametrize("max_gap_s", [0.0, -1.0, math.nan])
def test_a_gap_is_a_length_of_time(max_gap_s: float) -> None:
    with pytest.raises(ValueError, match="got max_gap_s="):
        DifferenceGate(max_gap_s=max_gap_s)


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
def test_on_real_clips_it_keeps_what_moves() -> None:
    """People walking are news almost always; a cartoon at its cuts."""
    for name in ("vtest.avi", "Megamind.avi"):
        with open_source(VIDEOS / name) as source:
            verdicts = judged(DifferenceGate(), list(source.sampled(RateSampler(2.0)))[:20])
        assert sum(v.keep for v in verdicts) > len(verdicts) // 2

"""Streams whose reuse rests: their frames are computed whole, together, and are what each would be alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from millpond.encoders import VideoLLM
from millpond.encoders.reuse import delta_seer
from millpond.encoders.reuse.delta import DeltaReuse
from millpond.encoders.reuse.pace import Trial
from millpond.encoders.sight import Need
from millpond.stream import Frame

from .reuse_clips import FAMILY_NAMES, load_tiny


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VideoLLM:
    return load_tiny(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(autouse=True)
def resting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "is_resting", property(lambda trial: True))


@pytest.fixture
def calls(model: VideoLLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames each call of the family's own `see` had."""
    noted: list[int] = []
    real = model.see

    def see(frames: Sequence[Frame]) -> Any:
        noted.append(len(frames))
        return real(frames)

    monkeypatch.setattr(model, "see", see)
    return noted


def frames_of(seed: int, count: int, height: int = 60, width: int = 80) -> list[Frame]:
    pictures = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return [Frame(picture, float(n), f"s{seed}", n) for n, picture in enumerate(pictures)]


def test_together_is_alone(model: VideoLLM, calls: list[int]) -> None:
    size, seer = model.spec.frames_per_block, DeltaReuse().over(model)
    clips = [frames_of(0, 2 * size), frames_of(1, size), frames_of(2, 2 * size), frames_of(3, size, 100, 64)]
    runs = [seer.start() for _ in clips]
    seen = seer.see(list(zip(runs, clips, strict=True)))
    # The first blocks of three streams whose pictures are of one size, then the second blocks of two.
    assert calls == [3 * size, 2 * size]
    for run, clip, sights in zip(runs, clips, seen, strict=True):
        assert len(sights) == len(clip) // size == run.stats.num_dense
        assert run.stats.num_recomputed == run.stats.num_patches > 0
        for number, sight in enumerate(sights):
            (alone,) = model.see(clip[number * size : (number + 1) * size])
            torch.testing.assert_close(sight.tokens.x_TD, alone.x_TD, atol=2e-4, rtol=1e-3)
            assert sight.tokens.span == alone.span


def test_no_more_go_together_than_are_good_for_a_cpu(
    model: VideoLLM, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    size, seer = model.spec.frames_per_block, DeltaReuse().over(model)
    assert model.tower is not None
    monkeypatch.setattr(delta_seer, "_MANY_PATCHES", (2 * model.tower.layout(60, 80).num_patches, 0))
    asked = [(seer.start(), frames_of(seed, size)) for seed in range(5)]
    seer.see(asked)
    assert calls == [2 * size, 2 * size]  # and the fifth by itself, as its tower does a block


def test_what_looks_into_the_tower_looks_at_each_alone(model: VideoLLM, calls: list[int]) -> None:
    size, seer = model.spec.frames_per_block, DeltaReuse().over(model)
    seen = seer.see([(seer.start(), frames_of(seed, size)) for seed in range(3)], frozenset({Need.PIXELS}))
    assert not calls
    assert all(sight.change_T is not None for sights in seen for sight in sights)

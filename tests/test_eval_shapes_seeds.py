"""Worlds of the suite `shapes` and worlds of training have no seed in common, whatever is asked for on either side."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.pipeline.eval import Item
from millpond.pipeline.eval.shapes import DAY_S, NUM_SEEDS, ShapesSuite, world_seeds

DEMOS = Path(__file__).parents[1] / "demos"
LENGTHS_S = (60, 600, 3600, 14_400, 86_400)

pytestmark = pytest.mark.skipif(not DEMOS.exists(), reason="the demos are not beside the tests")


def seed_of(item: Item) -> int:
    return int(parse_qs(urlsplit(item.video).query)["seed"][0])


def test_no_world_of_the_suite_can_be_one_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DEMOS))
    import mini_data
    from mini_model import make_tokenizer

    asked = ShapesSuite().items(None, None, lengths_s=LENGTHS_S, worlds=2)
    assert NUM_SEEDS <= mini_data.FIRST_TRAINING_SEED
    assert all(seed_of(item) < mini_data.FIRST_TRAINING_SEED for item in asked)

    trained_on: list[int] = []
    draw_clip = mini_data.draw_clip

    def noted(rng: np.random.Generator, num_frames: int, seed: int, wide: float) -> Any:
        trained_on.append(seed)
        return draw_clip(rng, num_frames, seed, wide)

    monkeypatch.setattr(mini_data, "draw_clip", noted)
    monkeypatch.setattr(mini_data.torch, "set_num_threads", lambda num: None)
    for seed in range(3):
        batches = iter(mini_data.Clips(make_tokenizer(), mini_data.Mix(1, 3, 2, 2), (seed,)))
        for _ in range(3):
            next(batches)
    assert len(trained_on) >= 18 and min(trained_on) >= mini_data.FIRST_TRAINING_SEED

    class Seeds(mini_data.Clips):  # type: ignore[misc, name-defined]
        """Draws what training draws, and paints nothing."""

        def batch(self, rng: np.random.Generator, seeds: list[int], *_: Any) -> Any:
            return seeds

    for seed in range(5):
        drawn = next(iter(Seeds(make_tokenizer(), mini_data.Mix(1, 1, 2000, 2), (seed,))))
        assert len(drawn) == 2000 and min(drawn) >= NUM_SEEDS


@given(st.integers(0, 2**31), st.integers(30, DAY_S))
@settings(max_examples=50)
def test_seeds_of_worlds_stay_below_those_of_training_and_differ(seed: int, length_s: int) -> None:
    drawn = [one for one, _ in zip(world_seeds(seed, length_s), range(1000), strict=False)]
    assert len(set(drawn)) == 1000 and all(0 <= one < NUM_SEEDS for one in drawn)

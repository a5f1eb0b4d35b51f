"""The built-in model looks: it answers about worlds it never saw, and about clips that another painter made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millpond.encoders.load import BUILT_IN
from millpond.pipeline import Engine
from millpond.pipeline.bench_mini import MiniBench, wilson
from millpond.stream import RateSampler, open_source
from millpond.stream.truth import WORDINGS

from .pil_world import draw_sprites, write_clip

LEAST = {"16": 0.97, "64": 0.95}
"""By number of frames: the share of right answers over all kinds of questions."""
LEAST_OF_A_KIND = 0.9
WEAK = {"count_all"}
"""What these weights have not learned well yet, over a minute."""
GUESSED = {"new"}
"""Of which most is said by "nothing": over a minute, little is new in the last seconds."""


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return MiniBench().run(model="default", repeats=1)


def test_the_weights_are_small_and_safe() -> None:
    folder = BUILT_IN["millpond/mini"]
    assert sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) < 10e6
    assert not [f.name for f in folder.iterdir() if f.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_it_is_right_about_worlds_that_it_never_saw(measured: dict[str, Any]) -> None:
    """On 32 worlds of each length a level is not reached where even the upper end of the interval is below it."""
    table = MiniBench().table(measured)
    for number, least in LEAST.items():
        row = measured["lengths"][number]
        assert row["num_questions"] > 500 and row["by_type"].keys() == set(WORDINGS)
        assert row["interval"][1] > least, table
        missed = {kind for kind, one in row["by_type"].items() if one["interval"][1] <= LEAST_OF_A_KIND}
        assert missed <= WEAK, table


def test_a_model_that_does_not_look_is_right_about_little(measured: dict[str, Any]) -> None:
    for row in measured["lengths"].values():
        assert row["interval"][0] > row["blind_accuracy"] + 0.4
        for kind, one in row["by_type"].items():
            assert one["accuracy"] > one["blind_accuracy"] + (0.1 if kind in GUESSED else 0.2), kind


def test_it_answers_about_clips_that_another_painter_made(tmp_path: Path) -> None:
    duration_s, right = 10.0, []
    with Engine() as engine:
        for seed in range(12):
            sprites, backdrop = draw_sprites(seed, duration_s)
            clip = write_clip(tmp_path / f"{seed}.mp4", sprites, backdrop, duration_s)
            session = engine.session(clip.stem)
            with open_source(clip) as source:
                for frame in source.sampled(RateSampler(1.0)):
                    session.push(frame)
            expected = {
                "How many objects have appeared?": str(len(sprites)),
                "What appeared first?": f"{sprites[0].color} {sprites[0].shape}",
                "What appeared last?": f"{sprites[-1].color} {sprites[-1].shape}",
            }
            for sprite in sprites:
                expected[f"What color is the {sprite.shape}?"] = sprite.color
                expected[f"What shape is {sprite.color}?"] = sprite.shape
                expected[f"Did a {sprite.color} {sprite.shape} appear?"] = "yes"
            right += [session.ask(question).text == answer for question, answer in expected.items()]
    low, _ = wilson(sum(right), len(right))
    assert low > 0.5, f"{sum(right)} of {len(right)} right"


@pytest.mark.parametrize("kind", ["upper case", "no mark"])
def test_words_may_be_written_otherwise(kind: str) -> None:
    """The tokenizer folds case; a missing question mark is no other question."""
    with Engine() as engine, open_source("synthetic://shapes?seed=334&duration_s=10") as source:
        session = engine.session()
        for frame in source.sampled(RateSampler(1.0)):
            session.push(frame)
        plain = session.ask("What appeared first?").text
        question = "WHAT APPEARED FIRST?" if kind == "upper case" else "What appeared first"
        assert session.ask(question).text == plain

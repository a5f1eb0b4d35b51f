"""Streams that outlive the recent window: when somebody asks, and what is read together, changes no later answer."""

from __future__ import annotations

from collections.abc import Container

import pytest

from millpond.encoders import VideoLLM
from millpond.memory import MemoryConfig

from .watched import engine_of, pictures, tiny

FRAMES = pictures(22)
QUESTION = "What color is the circle?"
OTHER = "What happened in the video?"


@pytest.fixture(scope="module", params=["llava_onevision", "qwen2_vl"])
def model(request: pytest.FixtureRequest) -> VideoLLM:
    return tiny(request.param)


def answers(
    model: VideoLLM, chunk_frames: int, compressor: str, *, asked_after: Container[int] = (), num_late: int = 0
) -> list[tuple[int, ...]]:
    """What is answered at the end. The first `num_late` frames came while nobody could read them."""
    engine = engine_of(
        model,
        memory=MemoryConfig(recent_frames=2, recall_blocks=2),
        chunk_frames=chunk_frames,
        compressor=compressor,
        reuse="none",
        max_new_tokens=4,
    )
    session = engine.session()
    for number, frame in enumerate(FRAMES):
        if number < num_late:
            session.intake.push(frame)
            continue
        session.push(frame)
        if number in asked_after:
            session.ask(OTHER)
    return [session.ask(question).token_ids for question in (QUESTION, OTHER)]


@pytest.mark.parametrize("compressor", ["none", "uniform"])
@pytest.mark.parametrize("chunk_frames", [1, 3, 4])
def test_later_answers_are_the_same(model: VideoLLM, chunk_frames: int, compressor: str) -> None:
    quiet = answers(model, chunk_frames, compressor)
    assert answers(model, chunk_frames, compressor, asked_after=range(22)) == quiet
    assert answers(model, chunk_frames, compressor, asked_after=(3, 4, 11, 18)) == quiet
    assert answers(model, chunk_frames, compressor, num_late=17) == quiet
    assert quiet[0] != quiet[1], "the same answer to everything proves nothing"


def test_the_recent_window_holds_what_it_says(model: VideoLLM) -> None:
    engine = engine_of(model, memory=MemoryConfig(recent_frames=2, recall_blocks=0), chunk_frames=4)
    session = engine.session()
    for frame in FRAMES:
        session.push(frame)
        answer = session.ask(OTHER)
        newest = session.memory.recent
        assert len(newest) <= 2 and answer.used[-1].end_s == frame.pts_s
        if newest:
            # Blocks that left wait in the context for the chunk to end; no question reads them.
            assert answer.used[0].start_s >= newest[0].span.start_s

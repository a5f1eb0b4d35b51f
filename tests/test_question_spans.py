"""Questions about a stretch of time are answered from that stretch, and from nothing else."""

from __future__ import annotations

import pytest

from millpond.encoders import VideoLLM
from millpond.memory import MemoryConfig
from millpond.pipeline import HistoryConfig
from millpond.stream import Span

from .tiny_models import TINY_MODELS
from .watched import engine_of, ids_after, pictures, pushed, tiny

QUESTION = "What color is the circle?"
FAMILIES = sorted(TINY_MODELS)


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return tiny("llava_onevision")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recent_frames", [2, 64])
def test_a_question_about_a_span_reads_that_span_only(family: str, recent_frames: int) -> None:
    memory = MemoryConfig(recent_frames=recent_frames, recall_blocks=8)
    session = pushed(engine_of(tiny(family), memory=memory), pictures(12))
    step = tiny(family).spec.frames_per_block
    for since_s, until_s in ((2.0, 5.0), (0.0, 3.0), (8.0, 11.0), (6.0, 6.0), (3.0, 4.0)):
        answer = session.ask(QUESTION, since_s=since_s, until_s=until_s)
        # A block of two frames is read whole.
        first_s, last_s = since_s // step * step, until_s // step * step + step - 1
        assert answer.used == (Span(first_s, last_s),)
        assert answer.seen_until_s == 11.0
    session.memory.check()


def test_a_span_may_be_open_on_either_side(model: VideoLLM) -> None:
    session = pushed(engine_of(model, memory=MemoryConfig(recent_frames=2)), pictures(6))
    assert session.ask(QUESTION, until_s=2.5).used == (Span(0.0, 2.0),)
    assert session.ask(QUESTION, since_s=2.5).used == (Span(3.0, 5.0),)
    assert session.ask(QUESTION, since_s=-5.0, until_s=1e9).used == (Span(0.0, 5.0),)


def test_an_answer_about_a_span_is_that_of_a_session_that_saw_no_more(model: VideoLLM) -> None:
    frames = pictures(10)
    session = pushed(engine_of(model, chunk_frames=1), frames)
    # The first frames rest on nothing that came later, so leaving the later ones out changes nothing.
    about = session.ask(QUESTION, until_s=3.0)
    assert about.token_ids == ids_after(engine_of(model), frames[:4], QUESTION)


def test_a_span_leaves_the_other_answers_as_they_were(model: VideoLLM) -> None:
    session = pushed(engine_of(model), pictures(6))
    before = session.ask(QUESTION)
    session.ask(QUESTION, since_s=1.0, until_s=2.0)
    assert session.ask(QUESTION).token_ids == before.token_ids


@pytest.mark.parametrize("recent_frames", [2, 64])
def test_a_span_of_which_nothing_is_remembered_is_refused(model: VideoLLM, recent_frames: int) -> None:
    memory = MemoryConfig(recent_frames=recent_frames)
    session = pushed(engine_of(model, memory=memory), pictures(6))
    with pytest.raises(ValueError, match=r"no frame from 20.0 s up to 30.0 s is remembered .* from 0.0 s to 5.0 s"):
        session.ask(QUESTION, since_s=20, until_s=30)
    with pytest.raises(ValueError, match=r"no frame from 2.2 s up to 2.8 s is remembered"):
        session.ask(QUESTION, since_s=2.2, until_s=2.8)
    assert session.ask(QUESTION).seen_until_s == 5.0


def test_a_span_that_was_evicted_is_refused(model: VideoLLM) -> None:
    memory, history = MemoryConfig(recent_frames=2, budget_bytes=0), HistoryConfig(archive_bytes=0)
    session = pushed(engine_of(model, memory=memory, history=history), pictures(6))
    with pytest.raises(ValueError, match="raise the memory's budget_bytes"):
        session.ask(QUESTION, until_s=3.0)

"""A recording as a whole: what was narrated goes into the summary, whatever its length."""

from __future__ import annotations

from itertools import pairwise

import pytest

from millpond.encoders import VideoLLM
from millpond.pipeline import Answer, Narration, NarrationConfig, Timing
from millpond.pipeline.prompts import MINI_PROMPTS, PROMPTS
from millpond.pipeline.summary import _MAX_LOG_CHARS, _log, summarize
from millpond.stream import Span

from .watched import engine_of, ids_after, pictures, tiny

OFTEN = NarrationConfig(min_gap_s=2.0, max_gap_s=4.0, max_new_tokens=4)


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return tiny("llava_onevision")


def narration(number: int, text: str) -> Narration:
    span = Span(10.0 * number, 10.0 * number + 9.5)
    return Narration(text, span, Answer("?", text, span.end_s, span.end_s, (), Timing(0, 0), ()))


def test_a_model_is_given_its_notes_with_their_times(model: VideoLLM) -> None:
    session = engine_of(model, narration=OFTEN, prompts=PROMPTS).session()
    at_s: list[float] = []
    summary = summarize(session, pictures(7), on_progress=at_s.append)
    assert at_s == [float(n) for n in range(7)]
    assert summary.span == Span(0.0, 6.0)
    assert [n.span for n in summary.narrations] == [Span(0.0, 2.0), Span(2.0, 4.0), Span(4.0, 6.0)]
    for start_s, told in zip((0, 2, 4), summary.narrations, strict=True):
        assert f"{start_s} - {start_s + 2}: {told.text}" in summary.answer.question
    assert summary.text == summary.answer.text
    assert summary.answer.token_ids == ids_after(engine_of(model), pictures(7), summary.answer.question)


def test_a_model_that_takes_no_notes_is_asked_what_it_still_sees(model: VideoLLM) -> None:
    session = engine_of(model, narration=OFTEN, prompts=MINI_PROMPTS).session()
    summary = summarize(session, pictures(7))
    assert summary.answer.question == MINI_PROMPTS.summary
    assert len(summary.narrations) == 3


def test_one_frame_is_a_recording_too(model: VideoLLM) -> None:
    summary = summarize(engine_of(model).session(), pictures(1))
    assert summary.span == Span(0.0, 0.0) and summary.answer.seen_until_s == 0.0


def test_an_empty_recording_is_refused(model: VideoLLM) -> None:
    with pytest.raises(ValueError, match="ended without a single frame"):
        summarize(engine_of(model).session(), [])


def test_short_notes_are_kept_whole() -> None:
    assert _log([narration(0, "a {red} circle"), narration(1, "nothing much")]) == (
        "0 - 9.5: a {red} circle\n10 - 19.5: nothing much"
    )


@pytest.mark.parametrize(("num", "num_chars"), [(500, 60), (3, 9000), (1, 20_000), (61, 97)])
def test_long_notes_are_thinned_evenly_and_fit(num: int, num_chars: int) -> None:
    log = _log([narration(n, "x" * num_chars) for n in range(num)])
    assert 0 < len(log) <= _MAX_LOG_CHARS
    starts_s = [float(line.split(" ")[0]) for line in log.split("\n")]
    assert starts_s[0] == 0.0
    steps_s = {b - a for a, b in pairwise(starts_s)}
    assert len(steps_s) <= 1, f"gaps in the notes differ: {steps_s}"

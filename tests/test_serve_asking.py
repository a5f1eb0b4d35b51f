"""What a chat request asks, and how an answer is told piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.earlier_turns import after_earlier
from millpond.pipeline.prompts import MINI_PROMPTS, PROMPTS
from millpond.pipeline.question import Question
from millpond.pipeline.session import Session

from .watched import engine_of, mini, pictures, pushed, tiny

pytest.importorskip("fastapi")

from millpond.pipeline.serve.asking import TextSoFar, read_request
from millpond.pipeline.serve.chat_schemas import ChatRequest
from millpond.pipeline.serve.limits import Limits
from millpond.pipeline.serve.schemas import keyframe

LETTERS = st.sampled_from("ab \ufffdé")


@given(st.lists(LETTERS, max_size=12), st.lists(st.text("ab ", min_size=1, max_size=3), max_size=2))
def test_pieces_add_up_to_the_text_before_the_first_stop(letters: list[str], stops: list[str]) -> None:
    text = "".join(letters).strip("\ufffd").strip()
    teller = TextSoFar(tuple(stops))
    pieces = [teller.grow(text[:end].strip()) for end in range(len(text) + 1)]
    told = "".join(pieces) + teller.grow(text, is_whole=True)
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    assert told == text[: min(ends, default=len(text))]
    assert teller.is_stopped == bool(ends)


def test_half_a_letter_is_not_told() -> None:
    teller = TextSoFar(())
    assert [teller.grow("caf"), teller.grow("caf\ufffd"), teller.grow("café"), teller.grow("café", is_whole=True)] == [
        "caf",
        "",
        "é",
        "",
    ]


def asked(messages: Sequence[dict[str, Any]], **more: Any) -> Question:
    request = ChatRequest.model_validate({"model": "millpond/a", "messages": messages, **more})
    return read_request(request, Limits(answer_tokens=50), default_tokens=20).question


def test_what_was_said_before_goes_before_the_question_in_order() -> None:
    question = asked(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Who came?"},
            {"role": "assistant", "content": "A fox."},
            {"role": "user", "content": [{"type": "text", "text": "And"}, {"type": "text", "text": "then?"}]},
        ]
    )
    assert question.text == "And\nthen?"
    assert question.earlier == ("Instructions: Be brief.", "Question: Who came?", "Answer: A fox.")


@pytest.mark.parametrize(
    ("given_tokens", "tokens"), [({}, 20), ({"max_tokens": 7}, 7), ({"max_completion_tokens": 99}, 50)]
)
def test_an_answer_is_no_longer_than_asked_for_and_than_the_limit(given_tokens: dict[str, int], tokens: int) -> None:
    assert asked([{"role": "user", "content": "Who?"}], **given_tokens).max_new_tokens == tokens


@given(st.text(min_size=1, max_size=8), st.floats(0, 1e6))
def test_a_keyframes_path_is_one_path(stream_id: str, time_s: float) -> None:
    path = keyframe(stream_id, time_s)
    _, v1, streams, name, frames, picture = path.split("/")
    assert (v1, streams, frames) == ("v1", "streams", "frames") and path.isascii() and " " not in name
    assert abs(float(picture.removesuffix(".jpg")) - time_s) <= 0.00051


def test_earlier_turns_are_read_as_far_as_there_is_room_the_newest_first() -> None:
    model = tiny("llava_onevision")
    turns = tuple(f"Question: number {n}?" for n in range(20))
    bare = model.question("Who?")
    roomy = after_earlier(model, PROMPTS, "Who?", turns, num_free=10_000)
    tight = after_earlier(model, PROMPTS, "Who?", turns, num_free=len(bare.ids) + 60)
    none = after_earlier(model, PROMPTS, "Who?", turns, num_free=len(bare.ids))
    assert len(bare.ids) < len(tight.ids) <= len(bare.ids) + 60 < len(roomy.ids)
    assert none == bare and after_earlier(model, MINI_PROMPTS, "Who?", turns, num_free=10_000) == bare


def test_a_model_that_reads_conversations_is_given_them_and_the_built_in_one_is_not() -> None:
    def tokens_read(session: Session, *earlier: str) -> int:
        return session.ask_question(Question("What appeared?", earlier=earlier)).num_prompt_tokens

    with engine_of(tiny("llava_onevision"), prompts=PROMPTS) as engine:
        session = pushed(engine, pictures(2))
        assert tokens_read(session, "Question: Who came?", "Answer: A fox.") > tokens_read(session) > 0
    with engine_of(mini()) as engine:
        session = pushed(engine, pictures(2))
        assert tokens_read(session, "Question: Who came?") == tokens_read(session)

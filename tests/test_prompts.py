"""The questions that Millpond itself asks."""

from __future__ import annotations

import pytest

from millpond.pipeline import Prompts
from millpond.pipeline.prompts import MINI_PROMPTS, PROMPTS, prompts_for
from millpond.stream.truth import NOTHING, WORDINGS


def made(**changes: object) -> Prompts:
    fields = {"first": "a", "news": "since {since}", "summary": "c", "recount": "notes: {log}"}
    return Prompts(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_first_narration_asks_for_all_and_later_ones_for_news() -> None:
    assert made().question(None) == "a"
    assert made().question(12.04) == "since 12"
    assert made().question(0.5) == "since 0.5"


def test_the_built_in_model_is_asked_what_it_was_taught() -> None:
    assert prompts_for("millpond/mini") is MINI_PROMPTS
    assert prompts_for("Qwen/Qwen2.5-VL-3B-Instruct") is PROMPTS
    assert MINI_PROMPTS.first in WORDINGS["list"] and MINI_PROMPTS.summary in WORDINGS["list"]
    assert MINI_PROMPTS.news in WORDINGS["new"] and MINI_PROMPTS.recount is None


@pytest.mark.parametrize("text", ["nothing", "Nothing.", " NOTHING! ", "", "Nothing new.", NOTHING])
def test_silence_is_understood(text: str) -> None:
    assert PROMPTS.is_silent(text) and MINI_PROMPTS.is_silent(text)


@pytest.mark.parametrize("text", ["A red circle appears.", "Nothing but a dog.", "no one is there"])
def test_words_are_not_taken_for_silence(text: str) -> None:
    assert not PROMPTS.is_silent(text)


def test_a_list_of_silences_is_kept_as_it_cannot_change() -> None:
    assert made(silent=["nichts"]).silent == ("nichts",)
    assert hash(made(silent=["nichts"])) == hash(made(silent=("nichts",)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"news": "what is new?"}, r"the prompt 'news' must have one place {since} and no other; got 'what is new\?'"),
        ({"news": "{since} {until}"}, "the prompt 'news' must have one place {since} and no other"),
        ({"news": "{since"}, "the prompt 'news' must have one place"),
        ({"recount": "sum it up"}, "the prompt 'recount' must have one place {log}"),
        ({"recount": "{log} {}"}, "the prompt 'recount' must have one place {log}"),
        ({"silent": "nothing"}, "silent must be a list of answers; got 'nothing'"),
        ({"silent": [1]}, r"silent must be a list of answers; got \[1\]"),
    ],
)
def test_a_prompt_that_could_not_be_filled_in_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(**wrong)

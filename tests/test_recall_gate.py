"""Gates of recall: which questions open history."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory.recall_gate import (
    RECALL_GATES,
    AlwaysGate,
    AutoGate,
    NeverGate,
    RecallGate,
    UncertainGate,
    WordsGate,
)

from .method_docs import missing_from_docs

SETTINGS: dict[str, RecallGate] = {
    "always": AlwaysGate(),
    "auto": AutoGate(),
    "never": NeverGate(),
    "uncertain": UncertainGate(),
    "words": WordsGate(),
}
margins = st.none() | st.floats(0, 1)

PAST = (
    "What happened before the car left?",
    "How many people came in?",
    "Did anyone open the door?",
    "Was there a dog?",
    "Which colour was shown FIRST?",
    "Has the light been on all day?",
    "When did he leave?",
    "Have you ever seen the red square?",
    "Where were the keys ten minutes ago?",
    "Why didn\u2019t the bus stop?",
    "What has happened up to now?",
    "Is it there again?",
)
PRESENT = (
    "What is in the picture?",
    "Describe the scene.",
    "What colour is the square?",
    "How many people are there right now?",
    "Is the door that was open open NOW?",
    "What is he currently doing, after all?",
    "Is there snow on the thenar?",  # words, not letters
    "",
    "\0 \ud800 .* ( [",
)


def test_every_row_is_here_and_says_what_it_is() -> None:
    assert set(SETTINGS) == set(RECALL_GATES)
    for name, gate in SETTINGS.items():
        assert type(gate) is RECALL_GATES[name]
        assert missing_from_docs(type(gate)) == []


@pytest.mark.parametrize("gate", SETTINGS.values(), ids=SETTINGS)
@given(question=st.text() | st.sampled_from(PAST + PRESENT), margin=margins)
def test_any_question_is_decided_and_in_the_same_way_twice(
    gate: RecallGate, question: str, margin: float | None
) -> None:
    opens = gate.opens(question, margin)
    assert opens is gate.opens(question, margin)
    assert gate.opens(question.upper().lower(), margin) is gate.opens(f"  {question.upper().lower()}\n", margin)
    if not gate.needs_margin_for(question):
        assert opens is gate.opens(question, None)
    if not gate.needs_margin:
        assert not gate.needs_margin_for(question)


@pytest.mark.parametrize("question", PAST)
def test_words_on_the_past_open(question: str) -> None:
    assert WordsGate().opens(question, None)
    assert AutoGate().opens(question, 1.0)
    assert not AutoGate().needs_margin_for(question)


@pytest.mark.parametrize("question", PRESENT)
def test_other_words_do_not(question: str) -> None:
    assert not WordsGate().opens(question, 0.0)
    assert not AutoGate().opens(question, 1.0)
    assert not AutoGate().opens(question, None)


@given(margin=st.floats(0, 1), open_below=st.floats(0, 1))
def test_uncertain_opens_below_its_threshold(margin: float, open_below: float) -> None:
    question = "What is in the picture?"
    for gate in (UncertainGate(open_below), AutoGate(open_below)):
        assert gate.opens(question, margin) == (margin < open_below)
        assert gate.needs_margin_for(question)
        assert not gate.opens(question, None)
    assert not AutoGate(open_below).opens("What is there now?", margin)  # history has no answer to that


def test_always_and_never() -> None:
    assert AlwaysGate().opens("What is there now?", 1.0)
    assert not NeverGate().opens("What happened before?", 0.0)


def test_words_are_a_choice() -> None:
    gate = WordsGate(opening=("Gestern", "vor  langer Zeit"), closing=())
    assert gate.opens("Was war gestern?", None)
    assert gate.opens("Es war vor langer\nZeit", None)
    assert not gate.opens("Vor der Zeit", None)
    assert not gate.opens("What happened before?", None)
    assert not WordsGate(opening=(), closing=()).opens("What happened before?", None)


@pytest.mark.parametrize("gate", [UncertainGate(), AutoGate()])
@pytest.mark.parametrize("margin", [-0.5, 1.5, math.nan])
def test_refuses_what_is_no_margin(gate: RecallGate, margin: float) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 1; got {margin}"):
        gate.opens("What is in the picture?", margin)


@pytest.mark.parametrize("gate", [UncertainGate, AutoGate])
def test_refuses_settings(gate: type[UncertainGate | AutoGate]) -> None:
    for threshold in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=f"open_below must be a margin, from 0 to 1; got {threshold}"):
            gate(threshold)


@pytest.mark.parametrize("gate", [WordsGate, AutoGate])
def test_refuses_words_that_are_none(gate: type[WordsGate | AutoGate]) -> None:
    with pytest.raises(ValueError, match="must be words or phrases; got ' '"):
        gate(opening=(" ",))
    with pytest.raises(ValueError, match="must be words or phrases; got 3"):
        gate(closing=(3,))  # type: ignore[arg-type]

"""Turns: what is done next, for any loads; and that nothing starves however much else there is to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.pipeline.turns import Load, Turn, next_turn

ages = st.one_of(st.just(math.inf), st.floats(0, 100))


@st.composite
def many_loads(draw: st.DrawFn) -> list[Load]:
    return [
        Load(
            f"s{i}",
            num_waiting=draw(st.integers(0, 3)),
            age_s=draw(ages),
            num_questions=draw(st.integers(0, 2)),
            wants_narration=draw(st.booleans()),
            is_busy=draw(st.booleans()),
            waited_s=draw(st.floats(0, 10)),
            num_since_frame=draw(st.integers(0, 2)),
        )
        for i in range(draw(st.integers(0, 8)))
    ]


limits = st.fixed_dictionaries(
    {
        "max_frames": st.integers(1, 4),
        "max_answers": st.integers(1, 4),
        "num_answering": st.integers(0, 5),
        "num_since_frames": st.integers(0, 6),
        "patience": st.integers(1, 5),
    }
)


@given(many_loads(), limits, st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_a_turn_of_any_loads(loads: list[Load], limit: dict[str, int], random: Any) -> None:
    turn = next_turn(loads, **limit)
    by_id = {load.stream_id: load for load in loads}
    chosen = [*turn.questions, *turn.narrations, *turn.frames]
    assert len(set(chosen)) == len(chosen), "a stream is in the turn twice"
    assert not any(by_id[one].is_busy for one in chosen)
    assert all(by_id[one].num_questions for one in turn.questions)
    assert all(by_id[one].wants_narration for one in turn.narrations)
    assert all(by_id[one].num_waiting for one in turn.frames)
    # Never more than the maxima.
    begun = len(turn.questions) + len(turn.narrations)
    assert begun == 0 or limit["num_answering"] + begun <= limit["max_answers"]
    assert len(turn.frames) <= limit["max_frames"]
    if turn.narrations and limit["max_answers"] > 1:
        assert limit["num_answering"] + begun < limit["max_answers"], "no place is left for a question"
    # Questions before narrations before frames.
    patience_ended = limit["num_since_frames"] >= limit["patience"]
    held = {load.stream_id for load in loads if load.num_waiting and load.num_since_frame}
    able = [load for load in loads if not load.is_busy and load.stream_id not in held]
    assert not (turn.narrations and any(load.num_questions for load in able))
    if turn.frames:
        assert patience_ended or not (begun or limit["num_answering"])
    # Who waited longest, and who is oldest, first.
    for kind, key in (("questions", "waited_s"), ("frames", "age_s")):
        of_kind = [getattr(by_id[one], key) for one in getattr(turn, kind)]
        assert of_kind == sorted(of_kind, reverse=True)
        rest = [
            getattr(load, key)
            for load in (able if kind == "questions" else loads)
            if (load.num_questions if kind == "questions" else load.num_waiting)
            and not load.is_busy
            and load.stream_id not in chosen
        ]
        if of_kind and rest:
            assert min(of_kind) >= max(rest)
    # No place stays empty that could be taken.
    if not limit["num_answering"] and any(
        (load.num_waiting or load.num_questions or load.wants_narration) for load in loads if not load.is_busy
    ):
        assert chosen, "there is something to do, and nothing is done"
    if len(turn.questions) < max(limit["max_answers"] - limit["num_answering"], 0):
        assert {load.stream_id for load in able if load.num_questions} == set(turn.questions)
    if turn.frames and len(turn.frames) < limit["max_frames"]:
        assert all(load.is_busy or load.stream_id in chosen for load in loads if load.num_waiting)
    assert next_turn(random.sample(loads, len(loads)), **limit) == turn, "the order of the loads shows"


def turn_of(*loads: Load, **given_: int) -> Turn:
    limit = {"max_frames": 8, "max_answers": 4, "num_answering": 0, "num_since_frames": 0, **given_}
    return next_turn(loads, **limit)


FRAMES = Load("frames", num_waiting=1, age_s=9.0)
ASKED = Load("asked", num_waiting=1, age_s=1.0, num_questions=1)
DUE = Load("due", num_waiting=1, age_s=2.0, wants_narration=True)


def test_questions_then_narrations_then_frames() -> None:
    assert turn_of(FRAMES, ASKED, DUE) == Turn(("asked",), (), ())
    assert turn_of(FRAMES, DUE, num_answering=1) == Turn((), ("due",), ())
    assert turn_of(FRAMES, num_answering=2) == Turn((), (), ())
    assert turn_of(FRAMES, ASKED, DUE, num_since_frames=4) == Turn(("asked",), (), ("frames", "due"))
    assert turn_of(FRAMES, replace(ASKED, num_questions=0), DUE) == Turn((), ("due",), ())
    assert turn_of(FRAMES, replace(ASKED, num_questions=0)) == Turn((), (), ("frames", "asked"))


def test_a_stream_with_no_frame_yet_goes_first() -> None:
    new = [Load(f"new{i}", num_waiting=1, age_s=math.inf) for i in range(2)]
    assert turn_of(FRAMES, *new, max_frames=2).frames == ("new0", "new1")


def test_a_stream_that_was_answered_takes_its_frame_before_it_is_answered_again() -> None:
    again = replace(ASKED, num_since_frame=1)
    assert turn_of(again) == Turn((), (), ("asked",))
    assert turn_of(replace(again, num_waiting=0)) == Turn(("asked",), (), ())
    assert turn_of(replace(again, num_since_frame=0)) == Turn(("asked",), (), ())


def test_a_narration_leaves_a_place_for_a_question() -> None:
    due = [replace(DUE, stream_id=f"due{i}") for i in range(5)]
    assert len(turn_of(*due).narrations) == 3
    assert turn_of(*due, ASKED, num_answering=3).questions == ("asked",)
    assert len(turn_of(*due, max_answers=1).narrations) == 1, "with one place, narrations may have it"


class Machine:
    """Plays turns: each answer takes some, frames and questions may never end, and all that was done is noted."""

    def __init__(self, names: list[str], answer_turns: Mapping[str, int], patience: int) -> None:
        self.left = dict.fromkeys(names, 0)
        self.answer_turns = answer_turns
        self.last_frame = dict.fromkeys(names, -math.inf)
        self.last_answer = dict.fromkeys(names, 0)
        self.since_frame = dict.fromkeys(names, 0)
        self.number = self.num_since_frames = 0
        self.patience = patience

    def play(self, *, asked: set[str], due: set[str], max_frames: int, max_answers: int) -> Turn:
        self.number += 1
        for name, left in self.left.items():
            self.left[name] = max(left - 1, 0)
        loads = [
            Load(
                name,
                num_waiting=1,
                age_s=self.number - self.last_frame[name],
                num_questions=int(name in asked),
                wants_narration=name in due,
                is_busy=left > 0,
                waited_s=self.number - self.last_answer[name],
                num_since_frame=self.since_frame[name],
            )
            for name, left in self.left.items()
        ]
        turn = next_turn(
            loads,
            max_frames=max_frames,
            max_answers=max_answers,
            num_answering=sum(left > 0 for left in self.left.values()),
            num_since_frames=self.num_since_frames,
            patience=self.patience,
        )
        for name in (*turn.questions, *turn.narrations):
            self.left[name] = self.answer_turns[name]
            self.last_answer[name] = self.number
            self.since_frame[name] += 1
        for name in turn.frames:
            self.last_frame[name] = self.number
            self.since_frame[name] = 0
        self.num_since_frames = 0 if turn.frames else self.num_since_frames + 1
        return turn


@given(
    answer_turns=st.lists(st.integers(1, 20), min_size=1, max_size=10),
    kinds=st.lists(st.sampled_from(["asked", "due", "both", "neither"]), min_size=10, max_size=10),
    max_frames=st.integers(1, 4),
    max_answers=st.integers(1, 6),
    patience=st.integers(1, 5),
)
@settings(max_examples=40)
def test_nothing_starves(
    answer_turns: list[int], kinds: list[str], max_frames: int, max_answers: int, patience: int
) -> None:
    """Every stream always has a frame; some have questions and narrations without end, of lengths that may fall in step
    with the turns that take frames."""
    names = [f"s{i}" for i in range(len(answer_turns))]
    kind_of = dict(zip(names, kinds, strict=False))
    asked = {name for name in names if kind_of[name] in ("asked", "both")}
    due = {name for name in names if kind_of[name] in ("due", "both")}
    machine = Machine(names, dict(zip(names, answer_turns, strict=True)), patience)
    # A stream is served after all others were, at most; each answer on the way there may take 20 turns.
    rounds = math.ceil(len(names) / max_frames) + 1
    frames_within = 2 * (patience + 1) * rounds + 20 * len(names)
    answers_within = frames_within + 20 * len(names)
    for _ in range(2 * answers_within + 50):
        machine.play(asked=asked, due=due, max_frames=max_frames, max_answers=max_answers)
        for name in names:
            assert machine.number - max(machine.last_frame[name], 0) <= frames_within, f"{name} takes no frames"
            if name in asked:
                assert machine.number - machine.last_answer[name] <= answers_within, f"{name} is not answered"


def test_streams_with_frames_only_are_served_in_turn() -> None:
    names = [f"s{i}" for i in range(7)]
    machine = Machine(names, dict.fromkeys(names, 1), 4)
    for _ in range(30):
        machine.play(asked=set(), due=set(), max_frames=2, max_answers=4)
        # Seven streams, two at a time.
        assert all(machine.number - max(last, 0) < 4 for last in machine.last_frame.values())


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"num_waiting": -1}, "num_waiting counts things .* got -1"),
        ({"num_questions": -1}, "num_questions counts things"),
        ({"num_since_frame": -1}, "num_since_frame counts things"),
        ({"age_s": math.nan}, "age_s must be a number of seconds; got nan"),
        ({"waited_s": math.nan}, "waited_s must be a number"),
    ],
)
def test_loads_that_make_no_sense_are_refused(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Load(**{"stream_id": "s", "num_waiting": 1, "age_s": 1.0, **wrong})


@pytest.mark.parametrize("name", ["max_frames", "max_answers", "num_answering", "num_since_frames", "patience"])
def test_limits_that_make_no_sense_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be . or more; got -1"):
        turn_of(FRAMES, **{name: -1})

"""When a rule asks and fires: whatever comes in whatever order, on a verifier's yes alone, once, and not too often."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.pipeline.alerts.machine import Answered, Ask, Failed, Fire, Phase, Saw, State, Which, step
from millpond.pipeline.alerts.rule import AlertRule

from .alert_parts import a_rule

RULES = st.builds(
    lambda lasts, **more: a_rule(says="it is so" + (f" for {lasts} seconds" if lasts else ""), **more),
    lasts=st.sampled_from([0, 1, 3]),
    every_s=st.sampled_from([None, 0.5, 2.0]),
    cooldown_s=st.sampled_from([0.0, 2.0, 7.5]),
    least_gap_s=st.sampled_from([0.0, 1.0]),
    releases=st.integers(1, 3),
)
SAYS = st.sampled_from([True, False, None])
EVENTS = st.one_of(
    st.tuples(st.just("saw"), st.sampled_from([0.0, 0.25, 1.0, 30.0, -40.0]), st.booleans()),
    st.tuples(st.just("answered"), st.sampled_from(Which), SAYS),
    st.tuples(st.just("back"), SAYS),
    st.tuples(st.just("failed"), st.sampled_from(Which)),
)
# A frame, and all that is asked then comes back: so that long ways through the states are walked too.
TURNS = st.tuples(st.sampled_from([0.25, 1.0]), st.sampled_from([True, True, False, None])).map(
    lambda turn: [("saw", turn[0], True), ("back", turn[1]), ("back", turn[1])]
)
WALKS = st.lists(st.one_of(EVENTS.map(lambda event: [event]), TURNS, TURNS), max_size=40)


class Told(NamedTuple):
    """A firing. after_s: how much time had passed by then. num_noes: the longest row of triggers that said no since the
    last one. began_anew: whether the stream did, since."""

    fire: Fire
    event: object
    before: State
    after_s: float
    num_noes: int
    began_anew: bool


def walk(rule: AlertRule, events: list[tuple[object, ...]]) -> list[Told]:
    """Takes a rule through all of it, and checks each step on the way."""
    state, told, at_s, after_s, noes, longest, began_anew = State(), [], 100.0, 0.0, 0, 0, False
    for kind, *rest in events:
        event: Saw | Answered | Failed
        if kind == "saw":
            at_s += rest[0]  # type: ignore[operator]
            after_s += max(0.0, rest[0])  # type: ignore[type-var]
            began_anew |= rest[0] < 0  # type: ignore[operator]
            event = Saw(at_s, bool(rest[1]))
        elif kind == "back":
            if state.pending is None:
                continue
            event = Answered(state.pending, rest[0])  # type: ignore[arg-type]
        else:
            event = Answered(*rest) if kind == "answered" else Failed(*rest)  # type: ignore[arg-type]
        before = state
        state, do = step(rule, before, event)
        if not isinstance(event, Saw) and event.which is not before.pending:
            assert (state, do) == (before, None), "an answer that nobody waited for"
        elif isinstance(event, Answered) and event.which is Which.TRIGGER and event.says is not None:
            noes = 0 if event.says else noes + 1
            longest = max(longest, noes)
        if isinstance(do, Ask):
            assert state.pending is do.which
            assert not isinstance(event, Saw) or before.pending is None, "two questions at once"
        if isinstance(do, Fire):
            told.append(Told(do, event, before, after_s, longest, began_anew))
            noes, longest, began_anew = 0, 0, False
    return told


@settings(max_examples=500)
@given(rule=RULES, walks=WALKS)
def test_it_fires_on_a_verifier_s_yes_alone_and_never_within_the_cooldown(
    rule: AlertRule, walks: list[list[tuple[object, ...]]]
) -> None:
    told = walk(rule, [event for events in walks for event in events])
    for one in told:
        assert one.event == Answered(Which.VERIFIER, True)
        assert one.before.pending is Which.VERIFIER and one.before.phase is Phase.HOLDING
        assert one.fire.at_s - one.fire.since_s >= rule.lasts_s
    for first, second in pairwise(told):
        assert second.after_s - first.after_s >= rule.cooldown_s
        assert second.num_noes >= rule.releases or second.began_anew, "what it had told of never ended"


STRETCHES = st.lists(st.tuples(st.integers(6, 12), st.integers(6, 12)), min_size=1, max_size=5)


@settings(max_examples=200)
@given(rule=RULES, stretches=STRETCHES, rate_hz=st.sampled_from([1, 2, 4]))
def test_what_lasts_is_told_once_and_told(rule: AlertRule, stretches: list[tuple[int, int]], rate_hz: int) -> None:
    """Not so, so, not so, ...: with answers that are true, one firing for each stretch, soon after it began."""
    rule = replace(rule, cooldown_s=0.0, every_s=rule.every_s and min(rule.every_s, 1.0))
    is_so = [so for no, yes in stretches for so in [False] * no * rate_hz + [True] * yes * rate_hz]
    state, fired = State(), []
    for number, so in enumerate(is_so):
        had_news = number == 0 or is_so[number - 1] != so
        state, do = step(rule, state, Saw(number / rate_hz, had_news))
        while isinstance(do, Ask):
            state, do = step(rule, state, Answered(do.which, so))
        if isinstance(do, Fire):
            fired.append(do)
    assert len(fired) == len(stretches)
    begins_s = 0.0
    for (no, yes), fire in zip(stretches, fired, strict=True):
        begins_s += no
        # What changed just after a question waits for the next one.
        assert begins_s + rule.lasts_s <= fire.at_s <= begins_s + rule.lasts_s + 2.0
        assert begins_s <= fire.since_s <= begins_s + 2.0
        begins_s += yes


def test_what_began_in_the_cooldown_and_still_stands_is_told_when_it_is_over() -> None:
    rule = a_rule(cooldown_s=10.0, releases=1)
    answers = {0: True, 1: False, 3: True}  # it ends at 1 s, and is so again from 3 s on
    state, fired, so = State(), [], False
    for number in range(16):
        so = answers.get(number, so)
        state, do = step(rule, state, Saw(float(number), number in answers))
        while isinstance(do, Ask):
            state, do = step(rule, state, Answered(do.which, so))
        fired += [do.at_s] if isinstance(do, Fire) else []
    assert fired == [0.0, 10.0]


def test_the_cooldown_ends_when_it_does_and_not_before() -> None:
    rule = a_rule(cooldown_s=10.0, releases=1)
    cooling = State(now_s=101.0, asked_s=101.0, fired_s=100.0, has_news=True)
    assert step(rule, cooling, Saw(109.99, True)).do is None
    assert step(rule, cooling, Saw(110.0, False)).do == Ask(Which.TRIGGER)
    # Nor does an answer that comes in it fire.
    for phase in (Phase.HOLDING, Phase.QUIET):
        late = State(phase=phase, pending=Which.VERIFIER, now_s=109.99, holds_since_s=105.0, fired_s=100.0)
        assert step(rule, late, Answered(Which.VERIFIER, True)).do is None


def test_a_verifier_s_yes_to_a_stream_that_began_anew_meanwhile_fires_nothing() -> None:
    rule = a_rule()
    state = State(phase=Phase.HOLDING, pending=Which.VERIFIER, now_s=50.0, asked_s=50.0, holds_since_s=50.0)
    state, do = step(rule, state, Saw(0.0, True))
    assert do is None
    state, do = step(rule, state, Answered(Which.VERIFIER, True))
    assert do is None and state.phase is Phase.QUIET


def test_a_verifier_that_says_no_fires_nothing_until_something_changes() -> None:
    rule = a_rule(least_gap_s=0.0)
    state, do = step(rule, State(), Saw(0.0, True))
    state, do = step(rule, state, Answered(Which.TRIGGER, True))
    assert do == Ask(Which.VERIFIER)
    for says in (False, None):
        left, do = step(rule, state, Answered(Which.VERIFIER, says))
        assert do is None and left.phase is Phase.QUIET
        assert step(rule, left, Saw(1.0, False)).do is None
        assert step(rule, left, Saw(1.0, True)).do == Ask(Which.TRIGGER)


def test_what_has_left_the_stretch_that_is_asked_about_is_asked_once_more() -> None:
    rule, state, asked = a_rule(window_s=4.0), State(), []
    for now_s in range(20):
        state, do = step(rule, state, Saw(float(now_s), now_s in (0, 7)))
        if do is not None:
            asked.append(now_s)
            state, _ = step(rule, state, Answered(Which.TRIGGER, False))
    assert asked == [0, 4, 7, 11]


def test_an_unclear_answer_neither_fires_nor_ends_anything() -> None:
    standing = State(phase=Phase.STANDING, pending=Which.TRIGGER, now_s=50.0, asked_s=50.0, fired_s=0.0)
    rule = a_rule(cooldown_s=1.0, releases=1)
    assert step(rule, standing, Answered(Which.TRIGGER, None)).state.phase is Phase.STANDING
    assert step(rule, standing, Answered(Which.TRIGGER, False)).state.phase is Phase.QUIET


def test_one_no_is_asked_again_before_it_ends_what_stands() -> None:
    rule = a_rule(releases=2)
    state = State(phase=Phase.STANDING, pending=Which.TRIGGER, now_s=50.0, asked_s=50.0, fired_s=0.0)
    state, _ = step(rule, state, Answered(Which.TRIGGER, False))
    assert state.phase is Phase.STANDING
    state, do = step(rule, state, Saw(51.0, False))
    assert do == Ask(Which.TRIGGER), "without a change"
    state, _ = step(rule, state, Answered(Which.TRIGGER, True))
    assert (state.phase, state.num_noes) == (Phase.STANDING, 0)
    assert step(rule, state, Saw(53.0, False)).do is None


def test_what_nobody_saw_does_not_count_as_lasting() -> None:
    rule = a_rule(says="the door stays open for a minute", window_s=4.0)
    state, do = step(rule, State(), Saw(0.0, True))
    state, do = step(rule, state, Answered(Which.TRIGGER, True))
    assert do is None and state.phase is Phase.HOLDING
    blind, do = step(rule, state, Saw(70.0, False))  # the camera was away
    assert do == Ask(Which.TRIGGER) and blind.holds_since_s == 70.0
    for now_s in range(1, 60):
        state, do = step(rule, state, Saw(float(now_s), False))
        assert (do is None) == (now_s != 4)
        state, do = step(rule, state, Answered(Which.TRIGGER, True))
        assert do is None
    assert step(rule, state, Saw(60.0, False)).do == Ask(Which.VERIFIER)


def test_a_stream_that_begins_anew_keeps_the_cooldown_and_nothing_else() -> None:
    rule = a_rule(cooldown_s=30.0)
    state = State(phase=Phase.STANDING, now_s=100.0, asked_s=99.0, fired_s=90.0)
    state, do = step(rule, state, Saw(0.0, True))
    assert (state.phase, do) == (Phase.QUIET, None)
    assert step(rule, state, Saw(19.0, False)).do is None
    assert step(rule, state, Saw(20.0, False)).do == Ask(Which.TRIGGER)


@pytest.mark.parametrize(("every_s", "num_asked"), [(5.0, 13), (1.0, 61), (1.25, 49), (3.7, 17), (0.1, 61)])
def test_on_a_timer_it_asks_as_often_as_it_says_whatever_changes(every_s: float, num_asked: int) -> None:
    rule, state, asked = a_rule(every_s=every_s), State(), []
    for now_s in range(61):
        state, do = step(rule, state, Saw(float(now_s), now_s % 2 == 0))
        if do is not None:
            asked.append(now_s)
            state, _ = step(rule, state, Answered(Which.TRIGGER, False))
    assert len(asked) == num_asked
    assert all(second - first <= every_s + 1 for first, second in pairwise(asked))


@pytest.mark.parametrize("which", Which)
def test_a_question_that_failed_is_asked_again(which: Which) -> None:
    rule = a_rule(least_gap_s=1.0)
    phase = Phase.QUIET if which is Which.TRIGGER else Phase.HOLDING
    state = State(phase=phase, pending=which, now_s=5.0, asked_s=5.0, holds_since_s=5.0)
    state, do = step(rule, state, Failed(which))
    assert do is None and state.pending is None
    assert step(rule, state, Saw(6.0, False)).do == Ask(which)

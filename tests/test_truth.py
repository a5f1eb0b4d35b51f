"""What is true of a world: causal, well-formed, and in the words that were agreed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.stream.render import render
from millpond.stream.truth import NOTHING, WORDINGS, Asked, Witness, time_words
from millpond.stream.wide_world import make_wide_world
from millpond.stream.world import COLORS, SHAPES, Extras, Ticker, World, make_world

seeds = st.integers(0, 2**31)
TIMES_S = [float(n) for n in range(16)]

CANONICAL = {
    "color_of": "What color is the {shape}?",
    "shape_of": "What shape is {color}?",
    "count_now": "How many objects are there now?",
    "count_all": "How many objects have appeared?",
    "first": "What appeared first?",
    "last": "What appeared last?",
    "did_appear": "Did a {color} {shape} appear?",
    "where": "Where is the {color} {shape}?",
    "motion": "Which way does the {color} {shape} move?",
    "when": "When did the {color} {shape} appear?",
}
NAME = rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)})"
ANSWERS = {
    "color_of": "|".join(COLORS),
    "shape_of": "|".join(SHAPES),
    "count_now": "[0-8]",
    "count_all": "[0-8]",
    "first": NAME,
    "last": NAME,
    "did_appear": "yes|no",
    "where": "left|right|top|bottom|center",
    "motion": "left|right|up|down|still",
    "when": r"\d+(\.\d)?",
    "new": rf"{NOTHING}|{NAME} (appears|leaves)(, {NAME} (appears|leaves))*",
    "list": rf"{NOTHING}|{NAME}(, {NAME})*",
    "there": rf"{NOTHING}|{NAME}(, {NAME})*",
    "last_seen": "left|right|top|bottom|center",
    "is_there": "yes|no",
    "count_group": "[0-8]",
    "order": rf"{NAME}, {NAME}, {NAME}",
    "after": rf"{NOTHING}|{NAME}",
    "read": r"\d\d",
    "read_when": r"\d\d",
}


def ask(witness: Witness, kind: str, moment: int, seed: int = 0, *, canonical: bool = False) -> Asked | None:
    return witness.ask(kind, moment, np.random.default_rng(seed), canonical=canonical)


def test_the_first_wording_of_each_kind_is_the_agreed_one() -> None:
    assert {kind: words[0] for kind, words in WORDINGS.items() if kind in CANONICAL} == CANONICAL
    assert set(WORDINGS) == set(ANSWERS)


def test_wordings_are_many_and_never_mean_two_kinds() -> None:
    everything = [words for kind in WORDINGS for words in WORDINGS[kind]]
    assert len(set(everything)) == len(everything)
    for kind in CANONICAL:
        assert len(WORDINGS[kind]) >= 3
        slots = {tuple(re.findall(r"{(\w+)}", words)) for words in WORDINGS[kind]}
        assert len(slots) == 1, f"wordings of {kind} say different things: {slots}"


makers = st.sampled_from([make_world, make_wide_world])


@given(makers, seeds, st.integers(0, 15), st.sampled_from(sorted(WORDINGS)), st.integers(0, 99))
@settings(max_examples=300)
def test_answers_are_well_formed_and_causal(
    make: Callable[[int], World], seed: int, moment: int, kind: str, draw: int
) -> None:
    world = make(seed)
    made = ask(Witness(world, TIMES_S), kind, moment, draw)
    assert made == ask(Witness(world, TIMES_S[: moment + 1]), kind, moment, draw), "later moments change the answer"
    if made is None:
        return
    assert made.kind == kind and re.fullmatch(ANSWERS[kind], made.answer), made
    assert "{" not in made.question
    assert 0 <= made.used.start_s <= made.used.end_s <= TIMES_S[moment]
    assert kind in ("read_when", "last_seen") or made.used.end_s == TIMES_S[moment], "all else rests on what was since"


def test_every_kind_occurs_with_every_answer() -> None:
    said: dict[str, set[str]] = {kind: set() for kind in WORDINGS}
    for seed in range(150):
        witness = Witness(make_world(seed) if seed % 2 else make_wide_world(seed), TIMES_S)
        for kind in WORDINGS:
            for moment in (2, 9, 15):
                made = ask(witness, kind, moment, seed)
                if made is not None:
                    said[kind].add(made.answer)
    assert said["color_of"] == set(COLORS) and said["shape_of"] == set(SHAPES)
    assert said["where"] == said["last_seen"] == {"left", "right", "top", "bottom", "center"}
    assert said["motion"] == {"left", "right", "up", "down", "still"}
    assert said["did_appear"] == {"yes", "no"}
    assert said["count_now"] >= set("01234") and said["count_all"] >= set("123456")
    assert NOTHING in said["there"] and len(said["there"]) > 50
    assert said["is_there"] == {"yes", "no"} and said["count_group"] >= set("0123")
    assert len(said["order"]) > 20 and len(said["after"]) > 20 and NOTHING in said["after"]
    assert len(said["read"]) > 40 and len(said["read_when"]) > 20
    assert len(said["first"]) > 20 and len(said["last"]) > 20 and len(said["when"]) > 8
    assert NOTHING in said["new"] and len(said["new"]) > 50 and len(said["list"]) > 100


def test_canonical_asks_in_the_agreed_words_and_otherwise_in_others_too() -> None:
    witness = Witness(make_world(3), TIMES_S)
    assert {ask(witness, "count_all", 9, s, canonical=True).question for s in range(20)} == {CANONICAL["count_all"]}  # type: ignore[union-attr]
    assert len({ask(witness, "count_all", 9, s).question for s in range(60)}) == len(WORDINGS["count_all"])  # type: ignore[union-attr]


def scene(*lives: tuple[str, str, float, float]) -> World:
    """A world of still objects that pop up side by side: colour, shape, when it comes and goes."""
    world = make_world(1, aspect=1.0)
    things = tuple(
        replace(
            world.things[0],
            color=color,
            shape=shape,
            appear_s=appear_s,
            leave_s=leave_s,
            entry="pop",
            start_xy=(0.2 + 0.3 * n, 0.5),
            end_xy=(0.2 + 0.3 * n, 0.5),
        )
        for n, (color, shape, appear_s, leave_s) in enumerate(lives)
    )
    return replace(world, things=things)


def answers(witness: Witness, kind: str, moment: int) -> dict[str, str]:
    """Every question of a kind that can be asked at the moment, in its agreed words, with its answer."""
    made = [ask(witness, kind, moment, seed, canonical=True) for seed in range(60)]
    return {m.question: m.answer for m in made if m is not None}


def test_a_scene_is_told_as_it_is() -> None:
    world = scene(("red", "circle", 1, 6), ("blue", "square", 3, 99), ("red", "cross", 3, 99))
    witness = Witness(world, TIMES_S)
    assert answers(witness, "count_now", 0) == {"How many objects are there now?": "0"}
    assert answers(witness, "list", 0) == {WORDINGS["list"][0]: NOTHING}
    assert answers(witness, "first", 0) == {}
    assert answers(witness, "count_now", 5) == {"How many objects are there now?": "3"}
    assert answers(witness, "count_now", 7) == {"How many objects are there now?": "2"}
    assert answers(witness, "count_all", 7) == {"How many objects have appeared?": "3"}
    assert answers(witness, "first", 7) == {"What appeared first?": "red circle"}
    assert answers(witness, "last", 2) == {"What appeared last?": "red circle"}
    assert answers(witness, "last", 7) == {}, "two came last"
    assert answers(witness, "color_of", 7) == {
        "What color is the circle?": "red",
        "What color is the square?": "blue",
        "What color is the cross?": "red",
    }
    assert answers(witness, "shape_of", 7) == {"What shape is blue?": "square"}, "two are red"
    assert answers(witness, "shape_of", 2) == {"What shape is red?": "circle"}
    assert answers(witness, "when", 7) == {
        "When did the red circle appear?": "1",
        "When did the blue square appear?": "3",
        "When did the red cross appear?": "3",
    }
    assert answers(witness, "where", 7) == {
        "Where is the blue square?": "center",
        "Where is the red cross?": "right",
    }, "what has left is nowhere"
    assert answers(witness, "there", 7) == {"What is there now?": "red cross, blue square"}
    assert answers(witness, "there", 0) == {"What is there now?": NOTHING}
    assert answers(witness, "last_seen", 7) == {
        "Where did I last see the red circle?": "left",
        "Where did I last see the blue square?": "center",
        "Where did I last see the red cross?": "right",
    }
    assert set(answers(witness, "motion", 7).values()) == {"still"}
    assert answers(witness, "list", 7) == {WORDINGS["list"][0]: "red circle, red cross, blue square"}
    did = answers(witness, "did_appear", 7)
    assert did.pop("Did a red circle appear?") == "yes"
    assert did.pop("Did a blue square appear?") == "yes" and did.pop("Did a red cross appear?") == "yes"
    assert did and set(did.values()) == {"no"}


def test_what_is_gone_was_last_seen_where_it_left() -> None:
    world = scene(("red", "circle", 0, 9))
    moving = replace(world.things[0], end_xy=(0.9, 0.5), move_start_s=2.0, move_end_s=4.0)
    witness = Witness(replace(world, things=(moving,)), TIMES_S)
    question = "Where did I last see the red circle?"
    for moment, place in ((1, "left"), (6, "right"), (12, "right")):
        assert answers(witness, "last_seen", moment) == {question: place}
    made = ask(witness, "last_seen", 12)
    assert made is not None and (made.used.start_s, made.used.end_s) == (8.0, 8.0)


def test_news_are_what_came_and_went_since() -> None:
    witness = Witness(scene(("red", "circle", 1, 6), ("blue", "square", 3, 99)), TIMES_S)
    assert witness.news(0, 2) == "red circle appears"
    assert witness.news(0, 4) == "red circle appears, blue square appears"
    assert witness.news(4, 5) == NOTHING
    assert witness.news(4, 7) == "red circle leaves"
    assert witness.news(0, 9) == "red circle appears, blue square appears, red circle leaves"


def test_movement_has_a_direction() -> None:
    world = scene(("red", "circle", 0, 99))
    for end_xy, words in (((0.6, 0.5), "right"), ((0.2, 0.9), "down"), ((0.2, 0.1), "up"), ((0.5, 0.8), None)):
        moving = replace(world.things[0], end_xy=end_xy, move_start_s=0.0, move_end_s=4.0)
        witness = Witness(replace(world, things=(moving,)), TIMES_S)
        assert witness.motion_words(0, 0) is None, "one look shows no movement"
        assert witness.motion_words(6, 0) == words


def test_what_is_half_there_is_not_counted() -> None:
    world = scene(("red", "circle", 5, 99))
    fading = replace(world, things=(replace(world.things[0], entry="fade"),))
    assert answers(Witness(fading, [4.0, 4.7]), "count_now", 1) == {}
    assert answers(Witness(world, [4.0, 4.7]), "count_now", 1) == {"How many objects are there now?": "0"}


def test_an_order_that_rests_on_when_half_a_thing_is_a_thing_is_not_asked() -> None:
    world = scene(("red", "circle", 0, 2.8), ("blue", "square", 3, 99), ("red", "cross", 4.3, 99))
    popping = Witness(world, TIMES_S)
    fading = Witness(replace(world, things=tuple(replace(one, entry="fade") for one in world.things)), TIMES_S)
    all_s = {"What is new since 5 s?", "What is new since 4 s?", "What is new since 3 s?", "What is new since 2 s?"}
    assert answers(popping, "new", 6).keys() == all_s
    # At 3 s half of the circle is there still, and at 4 s half of the cross: since when is either new?
    assert answers(fading, "new", 6) == {"What is new since 5 s?": NOTHING}
    assert answers(fading, "list", 6) == answers(popping, "list", 6), "whichever way, they came in this order"
    at_once = (replace(world.things[1], appear_s=3.3, entry="fade"), replace(world.things[2], appear_s=4.0))
    assert answers(Witness(replace(world, things=at_once), TIMES_S), "list", 6) == {}


def test_times_are_told_from_where_the_clock_is_set() -> None:
    witness = Witness(scene(("red", "circle", 1, 99)), TIMES_S, offset_s=100.5)
    assert answers(witness, "when", 4) == {"When did the red circle appear?": "101.5"}
    made = ask(witness, "when", 4)
    assert made is not None and (made.used.start_s, made.used.end_s) == (101.5, 104.5)


@pytest.mark.parametrize(("time_s", "words"), [(12, "12"), (0.5, "0.5"), (3.04, "3"), (7385.25, "7385.2"), (0, "0")])
def test_seconds_are_written_with_one_decimal_at_most(time_s: float, words: str) -> None:
    assert time_words(time_s) == words


@given(seeds)
@settings(max_examples=25)
def test_what_is_seen_is_in_the_picture_and_what_is_not_is_not(seed: int) -> None:
    world = make_world(seed)
    witness = Witness(world, TIMES_S[::3])
    for o, thing in enumerate(world.things):
        alone = render(replace(world, things=(thing,)), TIMES_S[::3], width=48, height=48).cover_NOHW[:, 0]
        for n, cover in enumerate(alone):
            if not witness.vague_NO[n, o]:
                assert bool(cover.max() > 0.5) == bool(witness.seen_NO[n, o]), (n, thing)


def test_order_and_what_came_next_and_groups_are_told_as_they_are() -> None:
    world = scene(("red", "circle", 1, 6), ("blue", "square", 3, 99), ("red", "cross", 5, 7))
    witness = Witness(world, TIMES_S)
    assert answers(witness, "order", 4) == {}
    told = answers(witness, "order", 9)
    assert len(told) > 1 and set(told.values()) == {"red circle, blue square, red cross"}
    assert answers(witness, "after", 4)["What appeared next after the red circle?"] == "blue square"
    assert answers(witness, "after", 4)["What appeared next after the blue square?"] == NOTHING
    groups = answers(witness, "count_group", 9)
    assert groups["How many red objects have appeared?"] == "2" and groups["How many squares have appeared?"] == "1"
    assert groups["How many triangles have appeared?"] == "0"
    there = answers(witness, "is_there", 9)
    assert there["Is there a red circle now?"] == "no" and there["Is there a blue square now?"] == "yes"


def test_a_ticker_is_read_as_it_was_at_the_moment() -> None:
    world = scene(("red", "circle", 2, 99), ("blue", "square", 7, 99))
    ticker = Ticker(2, (0.0, 5.0), (7, 42), True)
    witness = Witness(replace(world, extras=Extras(ticker=ticker)), TIMES_S)
    assert answers(witness, "read", 4) == {"What number is shown now?": "07"}
    assert answers(witness, "read", 5) == {"What number is shown now?": "42"}
    assert answers(witness, "read_when", 9) == {
        "What number was shown when the red circle appeared?": "07",
        "What number was shown when the blue square appeared?": "42",
    }
    assert answers(Witness(world, TIMES_S), "read", 4) == {}

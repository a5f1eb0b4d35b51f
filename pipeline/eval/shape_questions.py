"""Questions about one synthetic stream, drawn with their known answers: what is there, what was, what is to come."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ...stream.truth import NOTHING, WORDINGS, Asked, Witness
from ...stream.world import COLORS, World

# Shapes: N moments, O objects.

CATEGORY = {
    **dict.fromkeys(("count_now", "where", "is_there", "there", "read", "motion"), "real-time"),
    **dict.fromkeys(("when", "first", "last", "did_appear", "last_seen", "read_when"), "backward"),
    **dict.fromkeys(("list", "order", "after", "count_all", "count_group", "color_of", "shape_of", "new"), "backward"),
    **dict.fromkeys(("tell_when", "count_along"), "forward"),
}
FORM = {
    **dict.fromkeys(("count_now", "count_all", "count_group", "count_along", "when", "read", "read_when"), "number"),
    **dict.fromkeys(("did_appear", "is_there"), "yes_no"),
    "tell_when": "moment",
}
"""Of all other kinds it is "words"."""
TURNS = (
    *("count_now", "when", "did_appear", "tell_when", "where", "list", "order", "read_when"),
    *("is_there", "after", "count_all", "count_along", "motion", "first", "color_of", "last_seen"),
    *("read", "last", "count_group", "tell_when", "there", "new", "shape_of", "is_there"),
)
"""In which kinds take turns: 7 of what is there, 14 of what was, 3 of what is to come."""

# The built-in model was taught to count and to list so many.
MOST_NAMED = 6
# What happened so short a time ago is not yet the past.
_PAST_S = 10
_OF_ONE_EVENT = ("when", "read_when", "first", "after")
# A movement takes no longer than this after its thing has come.
_MOVES_S = 12
# How long a "moment" is waited for, and for how long after it polling goes on.
_WAIT_S = (5, 15)
_AFTER_S = 4
_TIMES_COUNTED = 3
_TRIES = 32
_FIRST_S = 2
_NUM_ANYWHERE = 64


class Drawn(NamedTuple):
    """A question, when it is asked, and what is right; for "tell_when" when that comes, and how long it is waited
    for."""

    kind: str
    at_s: int
    question: str
    answer: str
    right_at_s: int | None = None
    until_s: int | None = None


class Tallies:
    """How often each answer to each kind of question was given, so that guessing does not pay: "yes" no more often than
    "no", "nothing" at most three times in ten, and of the others none much more often than four times in ten."""

    def __init__(self) -> None:
        self._given: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def num(self, kind: str, answer: str) -> int:
        return self._given[kind][answer]

    def has_room(self, kind: str, answer: str) -> bool:
        given = self._given[kind]
        if answer in ("yes", "no"):
            return given["yes"] < given["no"] if answer == "yes" else given["no"] <= given["yes"]
        if answer == NOTHING:
            return given[answer] < 0.3 * given.total()
        return given[answer] < 1 + 0.4 * given.total()

    def add(self, kind: str, answer: str) -> None:
        self._given[kind][answer] += 1


class Questioner:
    """Draws questions about a stream of the world at one frame a second, the same for the same seed.

    What is true is asked of a witness who looked only when something happened, and when a question may be asked; one
    who always looked would say the same, and a day has 86,400 moments.
    """

    def __init__(self, world: World, seed: int, tallies: Tallies) -> None:
        """tallies: of the questions that others drew before; written to."""
        self._rng = np.random.default_rng((world.seed, seed))
        self._world, self._tallies = world, tallies
        self._last_s = math.ceil(world.duration_s) - 1
        self._came_s = [math.ceil(thing.appear_s) for thing in world.things]
        edges = np.linspace(_FIRST_S, self._last_s + 1, _NUM_ANYWHERE + 1)
        self._anywhere_s = [int(self._rng.uniform(low, high)) for low, high in pairwise(edges)]
        self._eventful_s = self._within(
            {time_s + late_s for time_s in self._came_s for late_s in range(_MOVES_S + 1)}
            | {math.ceil(thing.leave_s) + late_s for thing in world.things for late_s in range(4)}
        )
        askable_s = {0, *self._anywhere_s, *self._eventful_s}
        self.witness = Witness(world, self._within({t - early_s for t in askable_s for early_s in range(5)}, first_s=0))
        self._asked: set[tuple[str, int]] = set()
        self._waited_for: set[str] = set()

    def draw(self, num_questions: int, turn: int) -> list[Drawn]:
        """So many, or as many as there are, in order of time; kinds take turns from `turn` on. A count along the stream
        is asked up to three times, and is one question here."""
        drawn: list[Drawn] = []
        num_left = num_questions
        for number in range(turn, turn + num_questions + 2 * len(TURNS)):
            kind = TURNS[number % len(TURNS)]
            made = self._made(kind)
            for one in made:
                self._asked.add((one.kind, one.at_s))
                if one.kind != "tell_when":
                    self._tallies.add(one.kind, one.answer)
            drawn += made
            num_left -= bool(made)
            if not num_left:
                break
        return sorted(drawn, key=lambda one: one.at_s)

    def _made(self, kind: str) -> list[Drawn]:
        if kind == "tell_when":
            return self._tell_when()
        return self._count_along() if kind == "count_along" else self._one(kind)

    def _one(self, kind: str) -> list[Drawn]:
        """Of several questions one whose answer was given least often so far."""
        best: Drawn | None = None
        for at_s in self._moments():
            if (kind, at_s) in self._asked:
                continue
            moment = int(np.searchsorted(self.witness.times_s, at_s))
            asked = self.witness.ask(kind, moment, self._rng, canonical=True)
            if asked is None or not self._suits(asked, moment) or not self._tallies.has_room(kind, asked.answer):
                continue
            if best is None or self._tallies.num(kind, asked.answer) < self._tallies.num(kind, best.answer):
                best = Drawn(kind, at_s, asked.question, asked.answer)
        return [] if best is None else [best]

    def _moments(self) -> Iterator[int]:
        """Half of them anywhere, half when something happens; as many sooner as later."""
        for number in range(_TRIES):
            pool = self._eventful_s if number % 2 and self._eventful_s else self._anywhere_s
            yield pool[int(self._rng.integers(len(pool)))]

    def _suits(self, asked: Asked, moment: int) -> bool:
        """Whether it is what its category says, and can be known by a model that was taught on small worlds."""
        at_s, came = float(self.witness.times_s[moment]), self.witness.first_seen(moment)
        if asked.kind in ("list", "count_all"):
            return len(came) <= MOST_NAMED
        if asked.kind == "there":
            return int(self.witness.seen_NO[moment].sum()) <= MOST_NAMED
        if asked.kind in _OF_ONE_EVENT or (asked.kind, asked.answer) == ("did_appear", "yes"):
            return asked.used.start_s <= at_s - _PAST_S
        if asked.kind not in ("motion", "color_of", "shape_of", "last_seen"):
            return True
        about = next(o for o in came if asked.question == self._wording(asked.kind, o))
        if asked.kind == "motion":
            return self._came_s[about] >= at_s - _MOVES_S
        return not self.witness.seen_NO[moment, about] and not self.witness.vague_NO[moment, about]

    def _wording(self, kind: str, number: int) -> str:
        thing = self._world.things[number]
        return WORDINGS[kind][0].format(color=thing.color, shape=thing.shape)

    def _tell_when(self) -> list[Drawn]:
        """What comes while it is waited for: "Is there a red circle now?", polled from some time before."""
        least_s, most_s = _WAIT_S
        for number in self._rng.permutation(len(self._world.things)):
            right_at_s = self._came_s[number]
            if not least_s <= right_at_s <= self._last_s - _AFTER_S:
                continue
            at_s = right_at_s - int(self._rng.integers(least_s, min(right_at_s, most_s) + 1))
            question = self._wording("is_there", int(number))
            if ("tell_when", at_s) not in self._asked and question not in self._waited_for:
                self._waited_for.add(question)
                return [Drawn("tell_when", at_s, question, "yes", right_at_s, right_at_s + _AFTER_S)]
        return []

    def _count_along(self) -> list[Drawn]:
        """One count, asked again as it grows, each time within seconds of it."""
        things = self._world.things
        colors = [None] if len(things) <= MOST_NAMED else [COLORS[n] for n in self._rng.permutation(len(COLORS))]
        for color in colors:
            counted = [n for n, thing in enumerate(things) if color in (None, thing.color)]
            wording = WORDINGS["count_all"] if color is None else WORDINGS["count_group"]
            grown_s = self._within({self._came_s[n] + int(self._rng.integers(4)) for n in counted})
            chosen_s = sorted(int(t) for t in self._rng.permutation(grown_s)[:_TIMES_COUNTED])
            made: list[Drawn] = []
            for at_s in chosen_s:
                moment = int(np.searchsorted(self.witness.times_s, at_s))
                answer = str(sum(o in counted for o in self.witness.first_seen(moment)))
                is_clear = not self.witness.vague_NO[moment].any() and ("count_along", at_s) not in self._asked
                if is_clear and answer not in {one.answer for one in made}:
                    made.append(Drawn("count_along", at_s, wording[0].format(group=f"{color} objects"), answer))
            if len(made) > 1:
                return made
        return []

    def _within(self, times_s: set[int], first_s: int = _FIRST_S) -> list[int]:
        return sorted(time_s for time_s in times_s if first_s <= time_s <= self._last_s)

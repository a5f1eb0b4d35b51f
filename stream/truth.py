"""What is true of a world for someone who has seen it at certain moments, asked and answered in plain words.

Answers are causal: they rest on the moments seen, nothing else. A question whose answer would be a matter of
taste (an object half in the picture, a place between "left" and "top", an order that rests on when half a thing is a
thing) is not asked.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .frame import Span, time_words
from .world import COLORS, ENTRY_S, SHAPES, World

# Shapes: N moments seen, O objects.

WORDINGS: dict[str, tuple[str, ...]] = {
    "color_of": (
        "What color is the {shape}?",
        "Which color does the {shape} have?",
        "What is the color of the {shape}?",
        "Tell me the color of the {shape}.",
    ),
    "shape_of": (
        "What shape is {color}?",
        "Which shape is {color}?",
        "What is the shape of the {color} object?",
        "What shape is the {color} object?",
    ),
    "count_now": (
        "How many objects are there now?",
        "How many objects are visible now?",
        "How many objects can you see right now?",
        "How many shapes are in the picture now?",
    ),
    "count_all": (
        "How many objects have appeared?",
        "How many objects have appeared so far?",
        "How many different objects appeared in total?",
        "How many objects were there altogether?",
    ),
    "first": ("What appeared first?", "Which object appeared first?", "What was the first object to appear?"),
    "last": ("What appeared last?", "Which object appeared last?", "What was the last object to appear?"),
    "did_appear": (
        "Did a {color} {shape} appear?",
        "Was there a {color} {shape}?",
        "Has a {color} {shape} appeared?",
        "Did you see a {color} {shape}?",
    ),
    "where": (
        "Where is the {color} {shape}?",
        "In which part of the picture is the {color} {shape}?",
        "Where can I find the {color} {shape}?",
    ),
    "last_seen": (
        "Where did I last see the {color} {shape}?",
        "Where was the {color} {shape} last seen?",
        "Where was the {color} {shape} when it was last there?",
    ),
    "motion": (
        "Which way does the {color} {shape} move?",
        "In which direction does the {color} {shape} move?",
        "Where is the {color} {shape} moving to?",
    ),
    "when": (
        "When did the {color} {shape} appear?",
        "At what time did the {color} {shape} appear?",
        "At which second did the {color} {shape} appear?",
    ),
    "new": ("What is new since {since} s?",),
    "list": ("What appeared?", "Which objects appeared?", "Summarize the video.", "What happened in the video?"),
    "there": (
        "What is there now?",
        "What is there?",
        "Which objects are there now?",
        "What can you see right now?",
        "What do you see?",
        "What is in the picture now?",
    ),
    "is_there": (
        "Is there a {color} {shape} now?",
        "Is a {color} {shape} visible now?",
        "Can you see a {color} {shape} right now?",
    ),
    "count_group": (
        "How many {group} have appeared?",
        "How many {group} have appeared so far?",
        "How many {group} were there altogether?",
    ),
    "order": (
        "In which order did these appear: {things}?",
        "Put these in the order in which they appeared: {things}.",
    ),
    "after": (
        "What appeared next after the {color} {shape}?",
        "Which object appeared after the {color} {shape}?",
    ),
    "read": ("What number is shown now?", "Which number can you read now?", "What does the ticker say now?"),
    "read_when": (
        "What number was shown when the {color} {shape} appeared?",
        "Which number was there when the {color} {shape} appeared?",
    ),
}
"""Question types, the canonical wording first. "new" is the question of a narration."""

NOTHING = "nothing"

# Asked about what is hidden or half there, these are still clear.
_ALWAYS_CLEAR = ("color_of", "shape_of", "did_appear", "read")
# These rest on what came and left before what, which is clear where it does not matter how what is half there counts.
_BY_ORDER = ("first", "last", "list", "order", "after", "new")
_PLURALS = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its known answer. Made by `Witness.ask`, read by training, tests and benchmarks.

    used: the span in which the answer shows.
    """

    kind: str
    question: str
    answer: str
    used: Span


class Witness:
    """Someone who has seen the world at these moments, in order, and can say what was to be seen.

    An object counts as seen at a moment when it has fully come and its centre is inside the picture.
    """

    def __init__(self, world: World, times_s: Sequence[float], *, offset_s: float = 0.0) -> None:
        """Has seen `world` at times_s, increasing; speaks of them as times_s + offset_s."""
        self.world = world
        self.offset_s = offset_s
        self.times_s = np.asarray(times_s, dtype=np.float64)
        shape = (len(self.times_s), len(world.things))
        self.seen_NO = np.zeros(shape, dtype=bool)
        self.vague_NO = np.zeros(shape, dtype=bool)
        self.xy_NO2 = np.zeros((*shape, 2))
        for o, thing in enumerate(world.things):
            for n, time_s in enumerate(self.times_s):
                self.xy_NO2[n, o] = thing.place(float(time_s))
                self.seen_NO[n, o] = thing.appear_s <= time_s < thing.leave_s
                if thing.entry != "pop" and not self.seen_NO[n, o]:
                    early_s, late_s = thing.appear_s - time_s, time_s - thing.leave_s
                    self.vague_NO[n, o] = 0 < early_s < ENTRY_S or 0 <= late_s < ENTRY_S

    @cached_property
    def _generous(self) -> Witness:
        """Who saw the same, and takes what is half there for there."""
        other = copy.copy(self)
        other.seen_NO = self.seen_NO | self.vague_NO
        return other

    def _told_s(self, moment: int) -> float:
        return float(self.times_s[moment]) + self.offset_s

    def first_seen(self, moment: int) -> dict[int, int]:
        """For each object seen up to and including the moment: the first moment it was seen at."""
        seen = self.seen_NO[: moment + 1]
        return {o: int(seen[:, o].argmax()) for o in range(seen.shape[1]) if seen[:, o].any()}

    def last_seen(self, moment: int, number: int) -> int:
        """The last moment, up to and including this one, that an object which was seen was seen at."""
        return moment - int(self.seen_NO[: moment + 1, number][::-1].argmax())

    def place_words(self, moment: int, number: int) -> str | None:
        """ "left", "right", "top", "bottom" or "center"; None where two of them would do."""
        x, y = self.xy_NO2[moment, number]
        dx, dy = x / self.world.aspect - 0.5, y - 0.5
        if max(abs(dx), abs(dy)) < 0.11:
            return "center"
        if max(abs(dx), abs(dy)) < 0.17 or abs(abs(dx) - abs(dy)) < 0.06:
            return None
        if abs(dx) > abs(dy):
            return "left" if dx < 0 else "right"
        return "top" if dy < 0 else "bottom"

    def motion_words(self, moment: int, number: int) -> str | None:
        """Direction of its way so far, "still", or None where it is neither clear."""
        track = self.xy_NO2[: moment + 1, number][self.seen_NO[: moment + 1, number]]
        if len(track) < 2:
            return None
        dx, dy = track[-1] - track[0]
        if max(abs(dx), abs(dy)) < 0.015:
            return "still"
        if max(abs(dx), abs(dy)) < 0.1 or min(abs(dx), abs(dy)) > 0.35 * max(abs(dx), abs(dy)):
            return None
        if abs(dx) > abs(dy):
            return "left" if dx < 0 else "right"
        return "up" if dy < 0 else "down"

    def news(self, after: int, moment: int) -> str:
        """What came and went after one moment, up to and including another; "nothing" if nothing did."""
        happened = self.happened(after, moment)
        return ", ".join(f"{self.world.things[o].name} {verb}" for _, o, verb in happened) or NOTHING

    def happened(self, after: int, moment: int) -> list[tuple[int, int, str]]:
        """The moment, the object, and "appears" or "leaves", in order of time; what came back has not left."""
        came = self.first_seen(moment)
        lines = [(n, o, "appears") for o, n in came.items() if n > after]
        for o in came:
            gone = self.last_seen(moment, o) + 1
            if gone <= moment and gone > after:
                lines.append((gone, o, "leaves"))
        return sorted(lines, key=lambda line: (line[0], self._rank(line[1]), line[2]))

    def _rank(self, number: int) -> tuple[int, int]:
        thing = self.world.things[number]
        return COLORS.index(thing.color), SHAPES.index(thing.shape)

    def ask(self, kind: str, moment: int, rng: np.random.Generator, *, canonical: bool = False) -> Asked | None:
        """A question of this kind as of the moment, or None where none has a clear answer."""
        if self.vague_NO[moment].any() and kind not in _ALWAYS_CLEAR:
            return None
        again = copy.deepcopy(rng)
        made = self._draw(kind, moment, rng)
        if made is None:
            return None
        slots, answer, used = made
        if kind in _BY_ORDER and (self._generous._draw(kind, moment, again) or ())[:2] != (slots, answer):
            return None
        wordings = WORDINGS[kind]
        wording = wordings[0] if canonical or rng.random() < 0.4 else wordings[int(rng.integers(len(wordings)))]
        return Asked(kind, wording.format(**slots), answer, used)

    def _draw(self, kind: str, moment: int, rng: np.random.Generator) -> tuple[dict[str, str], str, Span] | None:
        things, came = self.world.things, self.first_seen(moment)
        now_s = self._told_s(moment)
        whole, now = Span(self._told_s(0), now_s), Span(now_s, now_s)
        since = {o: Span(self._told_s(n), now_s) for o, n in came.items()}

        if kind == "count_now":
            return {}, str(int(self.seen_NO[moment].sum())), now
        if kind == "count_all":
            return {}, str(len(came)), whole
        if kind == "list":
            order = sorted(came, key=lambda o: (came[o], self._rank(o)))
            return {}, ", ".join(things[o].name for o in order) or NOTHING, whole
        if kind == "there":
            here = sorted((o for o in came if self.seen_NO[moment, o]), key=self._rank)
            return {}, ", ".join(things[o].name for o in here) or NOTHING, now
        if kind == "new":
            if moment == 0:
                return None
            after = max(0, moment - int(rng.integers(1, 5)))
            since_s = self._told_s(after)
            return {"since": time_words(since_s)}, self.news(after, moment), Span(since_s, now_s)
        if kind == "last_seen":
            return self._draw_last_seen(came, moment, rng)
        if kind == "did_appear":
            return self._draw_did_appear(came, since, whole, rng)
        if kind == "is_there":
            return self._draw_is_there(came, moment, now, rng)
        if kind == "count_group":
            return self._draw_count_group(came, whole, rng)
        if kind in ("order", "after"):
            return self._draw_order(came, whole, rng) if kind == "order" else self._draw_after(came, since, rng)
        if kind in ("read", "read_when"):
            return self._draw_reading(kind, came, moment, now, rng)
        if kind in ("first", "last"):
            if not came:
                return None
            edge = (min if kind == "first" else max)(came.values())
            at_edge = [o for o, n in came.items() if n == edge]
            return ({}, things[at_edge[0]].name, since[at_edge[0]]) if len(at_edge) == 1 else None

        pool = [o for o in came if self.seen_NO[moment, o]] if kind in ("where", "motion") else list(came)
        if kind == "color_of":
            pool = [o for o in pool if sum(things[p].shape == things[o].shape for p in came) == 1]
        elif kind == "shape_of":
            pool = [o for o in pool if sum(things[p].color == things[o].color for p in came) == 1]
        if not pool:
            return None
        chosen = pool[int(rng.integers(len(pool)))]
        thing = things[chosen]
        answer = {
            "color_of": lambda: thing.color,
            "shape_of": lambda: thing.shape,
            "where": lambda: self.place_words(moment, chosen),
            "motion": lambda: self.motion_words(moment, chosen),
            "when": lambda: time_words(self._told_s(came[chosen])),
        }[kind]()
        if answer is None:
            return None
        return {"color": thing.color, "shape": thing.shape}, answer, now if kind == "where" else since[chosen]

    def _draw_did_appear(
        self, came: dict[int, int], since: dict[int, Span], whole: Span, rng: np.random.Generator
    ) -> tuple[dict[str, str], str, Span]:
        things = self.world.things
        names = {things[o].name for o in came}
        if came and rng.random() < 0.5:
            chosen = list(came)[int(rng.integers(len(came)))]
            return {"color": things[chosen].color, "shape": things[chosen].shape}, "yes", since[chosen]
        while True:
            color, shape = COLORS[int(rng.integers(len(COLORS)))], SHAPES[int(rng.integers(len(SHAPES)))]
            if came and rng.random() < 0.6:  # a near miss: the colour of one, the shape of another
                color = things[list(came)[int(rng.integers(len(came)))]].color
                shape = things[list(came)[int(rng.integers(len(came)))]].shape
            if f"{color} {shape}" not in names:
                return {"color": color, "shape": shape}, "no", whole
            if len(names) >= 4 and rng.random() < 0.2:
                color = COLORS[int(rng.integers(len(COLORS)))]

    def _draw_last_seen(
        self, came: dict[int, int], moment: int, rng: np.random.Generator
    ) -> tuple[dict[str, str], str, Span] | None:
        gone = [o for o in came if not self.seen_NO[moment, o]]
        pool = gone if gone and rng.random() < 0.6 else list(came)
        if not pool:
            return None
        chosen = pool[int(rng.integers(len(pool)))]
        last = self.last_seen(moment, chosen)
        place, told_s = self.place_words(last, chosen), self._told_s(last)
        if place is None:
            return None
        thing = self.world.things[chosen]
        return {"color": thing.color, "shape": thing.shape}, place, Span(told_s, told_s)

    def _draw_is_there(
        self, came: dict[int, int], moment: int, now: Span, rng: np.random.Generator
    ) -> tuple[dict[str, str], str, Span]:
        things = self.world.things
        here = [o for o in came if self.seen_NO[moment, o]]
        gone = [o for o in came if o not in here]
        if here and rng.random() < 0.5:
            chosen = things[here[int(rng.integers(len(here)))]]
            return {"color": chosen.color, "shape": chosen.shape}, "yes", now
        if gone and rng.random() < 0.6:
            chosen = things[gone[int(rng.integers(len(gone)))]]
            return {"color": chosen.color, "shape": chosen.shape}, "no", now
        names = {things[o].name for o in here}
        free = [(c, s) for c in COLORS for s in SHAPES if f"{c} {s}" not in names]
        color, shape = free[int(rng.integers(len(free)))]
        return {"color": color, "shape": shape}, "no", now

    def _draw_count_group(
        self, came: dict[int, int], whole: Span, rng: np.random.Generator
    ) -> tuple[dict[str, str], str, Span]:
        things = [self.world.things[o] for o in came]
        if rng.random() < 0.5:
            shape = SHAPES[int(rng.integers(len(SHAPES)))]
            return {"group": _PLURALS[shape]}, str(sum(t.shape == shape for t in things)), whole
        color = COLORS[int(rng.integers(len(COLORS)))]
        return {"group": f"{color} objects"}, str(sum(t.color == color for t in things)), whole

    def _draw_order(
        self, came: dict[int, int], whole: Span, rng: np.random.Generator
    ) -> tuple[dict[str, str], str, Span] | None:
        apart = [o for o, n in came.items() if list(came.values()).count(n) == 1]
        if len(apart) < 3:
            return None
        chosen = [int(o) for o in rng.permutation(apart)[:3]]
        names = [self.world.things[o].name for o in chosen]
        ordered = [self.world.things[o].name for o in sorted(chosen, key=lambda o: came[o])]
        return {"things": ", ".join(names)}, ", ".join(ordered), whole

    def _draw_after(
        self, came: dict[int, int], since: dict[int, Span], rng: np.random.Generator
    ) -> tuple[dict[str, str], str, Span] | None:
        if not came:
            return None
        chosen = list(came)[int(rng.integers(len(came)))]
        thing = self.world.things[chosen]
        later = [o for o, n in came.items() if n > came[chosen]]
        soonest = [o for o in later if came[o] == min(came[p] for p in later)]
        if len(soonest) > 1:
            return None
        answer = self.world.things[soonest[0]].name if soonest else NOTHING
        return {"color": thing.color, "shape": thing.shape}, answer, since[chosen]

    def _draw_reading(
        self, kind: str, came: dict[int, int], moment: int, now: Span, rng: np.random.Generator
    ) -> tuple[dict[str, str], str, Span] | None:
        ticker = self.world.extras.ticker
        if ticker is None:
            return None
        if kind == "read":
            return {}, ticker.reading(float(self.times_s[moment])), now
        if not came:
            return None
        chosen = list(came)[int(rng.integers(len(came)))]
        thing, told_s = self.world.things[chosen], self._told_s(came[chosen])
        answer = ticker.reading(float(self.times_s[came[chosen]]))
        return {"color": thing.color, "shape": thing.shape}, answer, Span(told_s, told_s)

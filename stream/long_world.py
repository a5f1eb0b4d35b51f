"""A wide world for streams of minutes to a day: things come one after another all through it, and go again."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from .wide_world import as_distractor, draw_thing, draw_ticker, finish_world
from .world import COLORS, SHAPES, TICKER_SHARE, Background, Thing, World, draw_backgrounds

# So that at any time there are names of nothing that has come.
MOST_LONG_THINGS = len(COLORS) * len(SHAPES) * 3 // 4
_MOST_AT_ONCE = 6
_MOST_DISTRACTORS = 6
_TICKER_SHARE_OF_WORLDS = 0.75
_TICKER_PARTS = 12  # a number shows for less than a twelfth of the time


def make_long_world(
    seed: int,
    *,
    duration_s: float = 3600.0,
    step_s: float = 1.0,
    max_things: int = MOST_LONG_THINGS,
    aspect: float | None = None,
) -> World:
    """Draws a world in which each of max_things equal parts of the time brings a thing, six at once at most. What
    happens in it, happens at multiples of `step_s` seconds.

    Things are as in `make_wide_world`, but none stays for good: it is gone after six such parts at the latest. A thing
    for which there is no room is left out. No two have the same name.
    """
    num_steps = round(duration_s / step_s) if 0 < duration_s < np.inf and 0 < step_s < np.inf else 0
    if not (0 <= max_things <= MOST_LONG_THINGS and num_steps >= max(16, 2 * max_things)):
        raise ValueError(
            f"a long world needs 0 to {MOST_LONG_THINGS} things, and 16 steps or more, two for each thing; "
            f"got max_things={max_things}, duration_s={duration_s}, step_s={step_s}"
        )
    rng = np.random.default_rng((seed, 3))
    aspect = float(rng.choice([1.0, 4 / 3, 1.5, 16 / 9])) if aspect is None else aspect
    most_steps = max(3, num_steps // _TICKER_PARTS)
    ticker = draw_ticker(rng, num_steps, step_s, most_steps) if rng.random() < _TICKER_SHARE_OF_WORLDS else None
    floor = 1.0 if ticker is None else 1 - TICKER_SHARE
    backgrounds = draw_backgrounds(rng, duration_s)
    edges = np.linspace(0, num_steps - 2, max_things + 1)
    steps = [int(rng.uniform(low, high)) for low, high in pairwise(edges)]
    combos = rng.permutation(len(COLORS) * len(SHAPES))
    names = [(COLORS[combo // len(SHAPES)], SHAPES[combo % len(SHAPES)]) for combo in combos]
    most_life = max(3, _MOST_AT_ONCE * num_steps // max(1, max_things))

    def draw(name: tuple[str, str], step: int, behind: tuple[Background, ...], others: list[Thing]) -> Thing | None:
        gone_step = min(num_steps, step + most_life)
        thing = draw_thing(rng, *name, step, gone_step, step_s, aspect, floor, behind, others)
        return None if thing is None else replace(thing, leave_s=min(thing.leave_s, gone_step * step_s))

    things: list[Thing] = []
    for step, name in zip(steps, names, strict=False):
        if sum(thing.leave_s > step * step_s for thing in things) < _MOST_AT_ONCE:
            thing = draw(name, step, backgrounds, things)
            things += [] if thing is None else [thing]
    distractors: list[Thing] = []
    for _ in range(int(rng.integers(0, _MOST_DISTRACTORS + 1))):
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        thing = draw(("white", shape), int(rng.integers(num_steps)), (), [*things, *distractors])
        if thing is not None:
            distractors.append(as_distractor(rng, thing))
    return finish_world(rng, seed, duration_s, step_s, aspect, things, distractors, backgrounds, ticker)

"""A wider world than `make_world` draws: what a method can lose by leaving something out is in it.

Small objects, objects that come once and soon go, distractors, grain, shake, drifting light, sensor noise, and a ticker
whose digits must be read.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .world import (
    COLORS,
    SHAPES,
    TICKER_SHARE,
    Background,
    Extras,
    Thing,
    Ticker,
    World,
    draw_backgrounds,
    draw_color,
    draw_path,
    draw_turn,
    path_gap,
)

MOST_THINGS = 8

# Greys, black, brown and pink: no question is about these.
_DISTRACTOR_RGB = ((0.45, 0.45, 0.45), (0.25, 0.25, 0.28), (0.03, 0.03, 0.03), (0.42, 0.27, 0.13), (0.93, 0.62, 0.74))
_MANY_STEPS = 1000  # after the end: a thing that stays


def make_wide_world(
    seed: int, *, duration_s: float = 16.0, step_s: float = 1.0, max_things: int = 6, aspect: float | None = None
) -> World:
    """Draws a wide world. What happens in it, happens at multiples of `step_s` seconds.

    Objects whose lives overlap keep clear of each other: what is true can be seen. No two have the same name.
    """
    if not (0 < duration_s < np.inf and 0 < step_s < np.inf and 0 <= max_things <= MOST_THINGS):
        raise ValueError(
            f"a wide world needs duration_s > 0, step_s > 0 and 0 to {MOST_THINGS} things; "
            f"got duration_s={duration_s}, step_s={step_s}, max_things={max_things}"
        )
    rng = np.random.default_rng((seed, 1))
    num_steps = max(1, round(duration_s / step_s))
    aspect = float(rng.choice([1.0, 4 / 3, 1.5, 16 / 9])) if aspect is None else aspect
    ticker = draw_ticker(rng, num_steps, step_s) if rng.random() < 0.5 else None
    floor = 1.0 if ticker is None else 1 - TICKER_SHARE
    backgrounds = draw_backgrounds(rng, duration_s)
    things: list[Thing] = []
    combos = rng.permutation(len(COLORS) * len(SHAPES))
    for step, combo in zip(_appear_steps(rng, num_steps, max_things), combos, strict=False):
        color, shape = COLORS[combo // len(SHAPES)], SHAPES[combo % len(SHAPES)]
        thing = draw_thing(rng, color, shape, step, num_steps, step_s, aspect, floor, backgrounds, things)
        if thing is not None:
            things.append(thing)
    distractors: list[Thing] = []
    for _ in range(int(rng.choice([0, 0, 1, 2]))):
        step, shape = int(rng.integers(num_steps)), SHAPES[int(rng.integers(len(SHAPES)))]
        others = [*things, *distractors]
        thing = draw_thing(rng, "white", shape, step, num_steps, step_s, aspect, floor, (), others)
        if thing is not None:
            distractors.append(as_distractor(rng, thing))
    return finish_world(rng, seed, duration_s, step_s, aspect, things, distractors, backgrounds, ticker)


def as_distractor(rng: np.random.Generator, thing: Thing) -> Thing:
    """The same in a colour that no question names."""
    return replace(thing, color="other", rgb=_DISTRACTOR_RGB[int(rng.integers(len(_DISTRACTOR_RGB)))])


def finish_world(
    rng: np.random.Generator,
    seed: int,
    duration_s: float,
    step_s: float,
    aspect: float,
    things: list[Thing],
    distractors: list[Thing],
    backgrounds: tuple[Background, ...],
    ticker: Ticker | None,
) -> World:
    """The world of these things, with noise, grain, shake and light drawn."""
    return World(
        seed=seed,
        duration_s=duration_s,
        aspect=aspect,
        things=tuple(things),
        backgrounds=backgrounds,
        noise=float(rng.choice([0.0, 0.01, 0.02, 0.04])),
        flicker=float(rng.choice([0.0, 0.0, 0.0, 0.05])),
        softness=float(rng.choice([1.0, 1.0, 1.5, 2.0])),
        extras=Extras(
            distractors=tuple(distractors),
            grain=float(rng.choice([0.0, 0.0, 0.04, 0.08])),
            shake=float(rng.choice([0.0, 0.0, 0.0, 0.01, 0.02])),
            drift=float(rng.choice([0.0, 0.0, 0.1, 0.2])),
            drift_period_s=float(rng.uniform(10, 200)) * step_s,
            ticker=ticker,
        ),
    )


def _appear_steps(rng: np.random.Generator, num_steps: int, max_things: int) -> list[int]:
    """When objects come: scattered, or all within one part of the time, with nothing new in the rest."""
    if max_things == 0:
        return []
    last = max(1, num_steps - 1)
    low, high = 0, last
    style = rng.random()
    if style < 0.15:
        high = max(1, last // 3)
    elif style < 0.25:
        low = last - max(1, last // 3)
    num_things = int(rng.integers(1, max_things + 1))
    if rng.random() < 0.7 and high - low >= num_things:  # one by one
        steps = low + rng.choice(high - low, num_things, replace=False)
    else:
        steps = rng.integers(low, high, num_things)
    if rng.random() < 0.3:
        steps = steps - steps.min()
    return sorted(int(s) for s in steps)


def draw_ticker(rng: np.random.Generator, num_steps: int, step_s: float, most_steps: int | None = None) -> Ticker:
    """A number shows for less than most_steps; by default for less than a third of the time."""
    most_steps = max(3, num_steps // 3) if most_steps is None else most_steps
    starts = [0]
    while len(starts) < 200:
        step = starts[-1] + int(rng.integers(1, most_steps))
        if step >= num_steps:
            break
        starts.append(step)
    numbers: list[int] = []
    for _ in starts:
        number = int(rng.integers(100))
        while numbers and number == numbers[-1]:
            number = int(rng.integers(100))
        numbers.append(number)
    column, is_dark = int(rng.integers(5)), bool(rng.random() < 0.7)
    return Ticker(column, tuple(s * step_s for s in starts), tuple(numbers), is_dark)


def draw_thing(
    rng: np.random.Generator,
    color: str,
    shape: str,
    appear_step: int,
    num_steps: int,
    step_s: float,
    aspect: float,
    floor: float,
    backgrounds: tuple[Background, ...],
    others: list[Thing],
) -> Thing | None:
    """None where there is no room that is clear of the others, or no tint that stands out from the backdrops."""
    rgb = draw_color(rng, color)
    for _ in range(12):
        gaps = [np.abs(np.subtract(rgb, side)).max() for b in backgrounds for side in (b.rgb_a, b.rgb_b)]
        if not gaps or min(gaps) > 0.3:
            break
        rgb = draw_color(rng, color)
    else:
        return None
    leave_step = num_steps + _MANY_STEPS
    life = rng.random()
    if life < 0.3:  # comes once, and is soon gone
        leave_step = appear_step + int(rng.integers(2, 4))
    elif life < 0.6 and appear_step + 2 < num_steps:
        leave_step = int(rng.integers(appear_step + 2, num_steps + 1))
    is_small = rng.random() < 0.35
    # A picture is squeezed into a square before it is looked at: small things are as small there in any aspect.
    radius = float(rng.uniform(0.062, 0.085) * aspect**0.5 if is_small else rng.uniform(0.085, 0.2))
    appear_s, leave_s = appear_step * step_s, leave_step * step_s
    near = [o for o in others if o.appear_s < leave_s + step_s and appear_s < o.leave_s + step_s]
    for _ in range(24):
        start_xy, end_xy = draw_path(rng, radius, aspect, floor)
        if all(path_gap(start_xy, end_xy, o.start_xy, o.end_xy) > radius + o.radius for o in near):
            break
    else:
        return None
    move_start = appear_step + int(rng.choice([0, 0, 0, 1, 2]))
    move_end = move_start + int(rng.integers(1, max(2, min(10, num_steps - move_start + 1))))
    return Thing(
        color=color,
        shape=shape,
        rgb=rgb,
        radius=radius,
        appear_s=appear_s,
        leave_s=leave_s,
        entry=str(rng.choice(["pop", "pop", "pop", "slide", "fade"])),
        start_xy=start_xy,
        end_xy=end_xy,
        move_start_s=move_start * step_s,
        move_end_s=move_end * step_s,
        turn_rad=draw_turn(rng, shape),
        stretch=float(rng.uniform(0.9, 1.1)) if shape in ("triangle", "square") else 1.0,
        thickness=float(rng.uniform(0.25, 0.4)),
        outline=bool(rng.random() < 0.1) and not is_small,
    )

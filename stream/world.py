"""The world behind `synthetic://shapes`: coloured shapes that enter, move, stay and leave over changing backgrounds.

A world is data, drawn from a seed; `render` paints it at any moments and size. What is true of it at a moment
is in `truth.py`; the same world trains the built-in model, drives demos and tests, and is never random twice.
"""

from __future__ import annotations

import colorsys
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Shapes: N moments, O objects, H height, W width.

COLORS = ("red", "green", "blue", "yellow", "purple", "white")
SHAPES = ("circle", "square", "triangle", "cross")

# Hue in degrees, saturation and value in 0..1: what counts as this colour.
_HSV_RANGES = {
    "red": ((-10, 9), (0.72, 1.0), (0.65, 1.0)),
    "green": ((95, 150), (0.55, 1.0), (0.45, 1.0)),
    "blue": ((205, 245), (0.62, 1.0), (0.55, 1.0)),
    "yellow": ((47, 62), (0.70, 1.0), (0.80, 1.0)),
    "purple": ((268, 304), (0.45, 1.0), (0.42, 0.92)),
    "white": ((0, 359), (0.0, 0.07), (0.91, 1.0)),
}
ENTRY_S = 0.6
"""How long before its `appear_s` an object that slides or fades in begins to show, and how long it takes to go."""
TICKER_SHARE = 1 / 6
"""How much of the picture's height a ticker takes."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One object's whole life. Lengths are in units of the picture's height; x runs to `World.aspect`, y runs down.

    entry: "pop", "slide" or "fade": how it comes, and goes.
    From move_start_s to move_end_s it goes in a straight line from start_xy to end_xy.
    """

    color: str
    shape: str
    rgb: tuple[float, float, float]
    radius: float
    appear_s: float
    leave_s: float
    entry: str
    start_xy: tuple[float, float]
    end_xy: tuple[float, float]
    move_start_s: float
    move_end_s: float
    turn_rad: float
    stretch: float
    thickness: float
    outline: bool

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"

    def place(self, time_s: float) -> tuple[float, float]:
        """Where its centre is; entry slides not counted."""
        length_s = self.move_end_s - self.move_start_s
        share = 0.0 if length_s <= 0 else min(1.0, max(0.0, (time_s - self.move_start_s) / length_s))
        (x0, y0), (x1, y1) = self.start_xy, self.end_xy
        return x0 + (x1 - x0) * share, y0 + (y1 - y0) * share


@dataclass(frozen=True, slots=True)
class Background:
    """A backdrop from start_s on: two colours blended by a pattern ("solid", "gradient", "blobs", "stripes")."""

    start_s: float
    pattern: str
    rgb_a: tuple[float, float, float]
    rgb_b: tuple[float, float, float]
    angle_rad: float
    seed: int


@dataclass(frozen=True, slots=True)
class Ticker:
    """A strip along the lower edge of the picture, `TICKER_SHARE` high, with a number of two digits that changes.

    column: which sixth of the width the first digit stands in, 0 to 4; the second stands in the next.
    starts_s, numbers: from when on each number shows; the first from 0.
    is_dark: light digits on dark, or the other way around.
    """

    column: int
    starts_s: tuple[float, ...]
    numbers: tuple[int, ...]
    is_dark: bool

    def reading(self, time_s: float) -> str:
        """The number that shows at this moment."""
        return f"{self.numbers[max(0, bisect_right(self.starts_s, time_s) - 1)]:02d}"


@dataclass(frozen=True, slots=True)
class Extras:
    """What makes a world hard to watch; by default nothing does.

    distractors: things in colours that no question names.
    grain: how much the backdrop's own fine texture varies, in 0..1.
    shake: how far the camera is off from moment to moment, in picture heights; the ticker stays.
    drift, drift_period_s: how much the light comes and goes, in 0..1, and in what time.
    """

    distractors: tuple[Thing, ...] = ()
    grain: float = 0.0
    shake: float = 0.0
    drift: float = 0.0
    drift_period_s: float = 60.0
    ticker: Ticker | None = None


@dataclass(frozen=True, slots=True)
class World:
    """A clip's whole truth. Made by `make_world` and `make_wide_world`, read by the renderer and by `truth.py`.

    noise, flicker: standard deviation of sensor noise and amplitude of slow brightness change, in 0..1.
    softness: width of edges in pixels of a 96-pixel picture; 1 is a plain anti-aliased edge.
    """

    seed: int
    duration_s: float
    aspect: float
    things: tuple[Thing, ...]
    backgrounds: tuple[Background, ...]
    noise: float
    flicker: float
    softness: float
    extras: Extras = Extras()


def make_world(
    seed: int, *, duration_s: float = 16.0, step_s: float = 1.0, max_things: int = 4, aspect: float | None = None
) -> World:
    """Draws a world. What happens in it, happens at multiples of `step_s` seconds."""
    if not (0 < duration_s < np.inf and 0 < step_s < np.inf and 0 <= max_things <= 4):
        raise ValueError(
            "a world needs duration_s > 0, step_s > 0 and 0 to 4 things; "
            f"got duration_s={duration_s}, step_s={step_s}, max_things={max_things}"
        )
    rng = np.random.default_rng(seed)
    num_steps = max(1, round(duration_s / step_s))
    aspect = float(rng.choice([1.0, 4 / 3, 1.5, 16 / 9])) if aspect is None else aspect
    appear_steps = _appear_steps(rng, num_steps, max_things)
    backgrounds = draw_backgrounds(rng, duration_s)
    combos = rng.permutation(len(COLORS) * len(SHAPES))
    things: list[Thing] = []
    for step, combo in zip(appear_steps, combos, strict=False):
        color, shape = COLORS[combo // len(SHAPES)], SHAPES[combo % len(SHAPES)]
        thing = _draw_thing(rng, color, shape, step, num_steps, step_s, aspect, backgrounds, things)
        things.append(thing)
    return World(
        seed=seed,
        duration_s=duration_s,
        aspect=aspect,
        things=tuple(things),
        backgrounds=backgrounds,
        noise=float(rng.choice([0.0, 0.0, 0.01, 0.02, 0.03])),
        flicker=float(rng.choice([0.0, 0.0, 0.0, 0.05])),
        softness=float(rng.choice([1.0, 1.0, 1.5, 2.5])),
    )


def _appear_steps(rng: np.random.Generator, num_steps: int, max_things: int) -> list[int]:
    if max_things == 0:
        return []
    num_things = int(rng.integers(1, max_things + 1))
    last = max(1, num_steps - 1)
    style = rng.random()
    if style < 0.25:  # all together
        return [int(rng.integers(0, max(1, last // 2)))] * num_things
    if style < 0.75 and last >= num_things:  # one by one
        steps = rng.choice(last, num_things, replace=False)
    else:
        steps = rng.integers(0, last, num_things)
    if rng.random() < 0.5:
        steps = steps - steps.min()
    return sorted(int(s) for s in steps)


def draw_color(rng: np.random.Generator, color: str) -> tuple[float, float, float]:
    """A tint, in 0..1, that goes by this name."""
    hue, saturation, value = (rng.uniform(*limits) for limits in _HSV_RANGES[color])
    return colorsys.hsv_to_rgb((hue % 360) / 360, saturation, value)


def draw_backgrounds(rng: np.random.Generator, duration_s: float) -> tuple[Background, ...]:
    """One to four backdrops, one after the other."""
    starts = [0.0]
    while rng.random() < 0.3 and len(starts) < 4:
        starts.append(float(rng.uniform(0.1, 0.95) * duration_s))
    made = []
    for start_s in sorted(starts):
        kind = rng.random()
        rgbs = []
        for _ in range(2):
            if kind < 0.4:  # dark, any hue
                hsv = (rng.random(), rng.uniform(0, 0.6), rng.uniform(0.02, 0.3))
            elif kind < 0.85:  # greyish
                hsv = (rng.random(), rng.uniform(0, 0.2), rng.uniform(0.1, 0.75))
            else:  # pastel or light
                hsv = (rng.random(), rng.uniform(0, 0.3), rng.uniform(0.6, 0.82))
            rgbs.append(colorsys.hsv_to_rgb(*hsv))
        pattern = str(rng.choice(["solid", "solid", "gradient", "blobs", "stripes"]))
        angle_rad = float(rng.uniform(0, 2 * np.pi))
        made.append(Background(start_s, pattern, rgbs[0], rgbs[1], angle_rad, int(rng.integers(2**31))))
    return tuple(made)


def _draw_thing(
    rng: np.random.Generator,
    color: str,
    shape: str,
    appear_step: int,
    num_steps: int,
    step_s: float,
    aspect: float,
    backgrounds: tuple[Background, ...],
    others: Sequence[Thing],
) -> Thing:
    rgb = draw_color(rng, color)
    for _ in range(8):  # a colour that stands out from every backdrop
        gaps = [np.abs(np.subtract(rgb, side)).max() for b in backgrounds for side in (b.rgb_a, b.rgb_b)]
        if min(gaps) > 0.3:
            break
        rgb = draw_color(rng, color)
    leave_step = num_steps + 1000
    if rng.random() < 0.35 and appear_step + 2 < num_steps:
        leave_step = int(rng.integers(appear_step + 2, num_steps + 1))
    radius = float(rng.uniform(0.07, 0.24))
    start_xy, end_xy = (0.0, 0.0), (0.0, 0.0)
    for _attempt in range(12):  # a path that keeps clear of the others, if one is found
        start_xy, end_xy = draw_path(rng, radius, aspect)
        clear = all(path_gap(start_xy, end_xy, o.start_xy, o.end_xy) > (radius + o.radius) * 0.95 for o in others)
        if clear:
            break
    move_start = appear_step + int(rng.choice([0, 0, 0, 1, 2]))
    move_end = move_start + int(rng.integers(1, max(2, min(10, num_steps - move_start + 1))))
    return Thing(
        color=color,
        shape=shape,
        rgb=rgb,
        radius=radius,
        appear_s=appear_step * step_s,
        leave_s=leave_step * step_s,
        entry=str(rng.choice(["pop", "pop", "slide", "fade"])),
        start_xy=start_xy,
        end_xy=end_xy,
        move_start_s=move_start * step_s,
        move_end_s=move_end * step_s,
        turn_rad=draw_turn(rng, shape),
        stretch=float(rng.uniform(0.85, 1.15)) if shape in ("triangle", "square") else 1.0,
        thickness=float(rng.uniform(0.2, 0.4)),
        outline=bool(rng.random() < 0.15),
    )


def draw_turn(rng: np.random.Generator, shape: str) -> float:
    """How far a shape is turned, so that it is still what it is called."""
    if shape == "cross" and rng.random() < 0.25:
        return float(np.pi / 4)
    return float(rng.uniform(-0.25, 0.25)) if rng.random() < 0.4 else 0.0


def draw_path(
    rng: np.random.Generator, radius: float, aspect: float, floor: float = 1.0
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where a thing begins and ends, wholly inside the picture down to `floor`; often the same place."""
    low, high = np.array([radius, radius]), np.array([aspect - radius, floor - radius])
    start = rng.uniform(low, high)
    if rng.random() < 0.2:  # near the middle, so that "center" is seen as often as the sides
        start = np.clip(rng.normal([aspect / 2, 0.5], 0.05), low, high)
    kind = rng.random()
    if kind < 0.45:
        return (float(start[0]), float(start[1])), (float(start[0]), float(start[1]))
    if kind < 0.92:
        axis = int(rng.integers(2))
        extent = (aspect, 1.0)[axis]
        step = np.zeros(2)
        step[axis] = rng.uniform(0.25, 0.7) * extent * rng.choice([-1, 1])
        step[1 - axis] = rng.normal(0, 0.01)
        if not low[axis] <= (start + step)[axis] <= high[axis]:
            step[axis] = -step[axis]
    else:
        step = rng.uniform(-0.4, 0.4, 2)
    end = np.clip(start + step, low, high)
    return (float(start[0]), float(start[1])), (float(end[0]), float(end[1]))


def path_gap(
    a0: tuple[float, float], a1: tuple[float, float], b0: tuple[float, float], b1: tuple[float, float]
) -> float:
    share = np.linspace(0, 1, 7)[:, None]
    a = np.array(a0) + (np.array(a1) - np.array(a0)) * share
    b = np.array(b0) + (np.array(b1) - np.array(b0)) * share
    return float(np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min())

"""Paints a world: anti-aliased pictures of it at any moments, in any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .ticker_glyphs import paint_ticker
from .world import ENTRY_S, Background, Thing, World

# Shapes: N moments, O objects, H height, W width.


class Painting(NamedTuple):
    """Pictures, and how much of each pixel each object covers (what is hidden behind another left out)."""

    rgb_NHW3: np.ndarray
    cover_NOHW: np.ndarray


def render(world: World, times_s: Sequence[float], *, width: int, height: int) -> Painting:
    """Paints the world at each moment: uint8 pictures, and float32 coverage in 0..1 of each object."""
    if width < 8 or height < 8:
        raise ValueError(f"a picture of the world needs at least 8x8 pixels; got {width}x{height}")
    times = np.asarray(times_s, dtype=np.float64)
    y_H = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    x_W = ((np.arange(width, dtype=np.float32) + 0.5) / width * world.aspect)[None, :]
    pixel = 0.5 * (1.0 / height + world.aspect / width)
    edge = max(pixel, world.softness / 96.0) if world.softness > 1 else pixel

    extras = world.extras
    off_N2 = [_shake(world, float(time_s)) for time_s in times]
    rgb = _paint_backgrounds(world, times, y_H, x_W, off_N2)
    cover = np.zeros((len(times), len(world.things), height, width), dtype=np.float32)
    num_others = len(extras.distractors)
    for number, thing in enumerate((*extras.distractors, *world.things), -num_others):
        for n, time_s in enumerate(times):
            strength, (x, y) = _presence(thing, float(time_s), world.aspect)
            if strength <= 0:
                continue
            x, y = x + off_N2[n][0], y + off_N2[n][1]
            rows, columns = _box(y_H[:, 0], y, thing, edge), _box(x_W[0], x, thing, edge)
            distance = _signed_distance(thing, x_W[:, columns] - x, y_H[rows] - y)
            alpha = np.clip(0.5 - distance / edge, 0, 1) * np.float32(strength)
            color = np.asarray(thing.rgb, dtype=np.float32)
            if thing.outline:
                inner = np.clip(0.5 - (distance + 0.018) / edge, 0, 1)[..., None]
                color = color * (0.25 + 0.75 * inner)
            part = rgb[n, rows, columns]
            part += (color - part) * alpha[..., None]
            if number >= 0:
                cover[n, :number, rows, columns] *= 1 - alpha
                cover[n, number, rows, columns] = alpha
    rng = np.random.default_rng(world.seed + 1)
    if extras.drift:
        light = 1 + extras.drift * np.sin(times * (2 * np.pi / extras.drift_period_s) + world.seed % 7)
        rgb *= light[:, None, None, None].astype(np.float32)
    if world.flicker:
        phase = rng.uniform(0, 6.28)
        rgb *= (1 + world.flicker * np.sin(times * 1.3 + phase))[:, None, None, None].astype(np.float32)
    if world.noise:
        # Drawn for each moment from the moment itself, so that a frame looks the same whoever asks for it.
        for n, time_s in enumerate(times):
            seed = (world.seed * 1_000_003 + round(float(time_s) * 1000)) & 0x7FFFFFFF
            noise = np.random.default_rng(seed).standard_normal(rgb.shape[1:], dtype=np.float32)
            rgb[n] += noise * np.float32(world.noise)
    if extras.ticker is not None:
        paint_ticker(extras.ticker, rgb, times)
    return Painting((np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8), cover)


def _presence(thing: Thing, time_s: float, aspect: float) -> tuple[float, tuple[float, float]]:
    """How strongly it shows, 0..1, and where its centre is, entry and exit slides counted."""
    x, y = thing.place(time_s)
    before_s = thing.appear_s - time_s
    after_s = time_s - thing.leave_s
    if before_s <= 0 and after_s < 0:
        return 1.0, (x, y)
    lag = max(before_s, after_s) / ENTRY_S
    if thing.entry == "pop" or lag >= 1:
        return 0.0, (x, y)
    if thing.entry == "fade":
        return 1.0 - lag, (x, y)
    # A slide comes from, and goes to, the side edge that is nearest.
    outside_x = -thing.radius if x < aspect / 2 else aspect + thing.radius
    return 1.0, (x + (outside_x - x) * lag, y)


def _box(places: np.ndarray, middle: float, thing: Thing, edge: float) -> slice:
    """Which rows, or columns, a thing can reach, however it is turned."""
    reach = 1.7 * thing.radius + edge
    low, high = np.searchsorted(places, (middle - reach, middle + reach))
    return slice(int(low), int(high))


def _signed_distance(thing: Thing, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Distance to the outline, negative inside; dx runs right, dy down."""
    r = np.float32(thing.radius)
    if thing.shape == "circle":
        return np.sqrt(dx * dx + dy * dy) - r
    cos, sin = np.float32(np.cos(thing.turn_rad)), np.float32(np.sin(thing.turn_rad))
    u, v = np.abs(dx * cos + dy * sin) / np.float32(thing.stretch), dy * cos - dx * sin
    if thing.shape == "square":
        return np.maximum(u, np.abs(v)) - r * np.float32(0.87)
    if thing.shape == "triangle":  # apex up, circumradius 1.15 r, set a little lower so that it sits in its place
        up = np.float32(0.15) * r - v
        return np.maximum(u * np.float32(0.866) + up * np.float32(0.5), -up) - r * np.float32(0.575)
    w, v = r * np.float32(thing.thickness), np.abs(v)
    return np.minimum(np.maximum(u - r, v - w), np.maximum(v - r, u - w))


def _shake(world: World, time_s: float) -> tuple[float, float]:
    """How far the camera is off at this moment, whoever asks."""
    if not world.extras.shake:
        return 0.0, 0.0
    rng = np.random.default_rng((world.seed, round(time_s * 1000), 2))
    x, y = rng.uniform(-world.extras.shake, world.extras.shake, 2)
    return float(x), float(y)


def _paint_backgrounds(
    world: World, times: np.ndarray, y_H: np.ndarray, x_W: np.ndarray, off_N2: Sequence[tuple[float, float]]
) -> np.ndarray:
    starts = np.array([b.start_s for b in world.backgrounds])
    which = np.maximum(np.searchsorted(starts, times, side="right") - 1, 0)
    painted: dict[tuple[int, float, float], np.ndarray] = {}
    pictures = []
    for number, (x, y) in zip(which, off_N2, strict=True):
        key = (int(number), x, y)
        if key not in painted:
            background, x_share_W = world.backgrounds[number], (x_W - x) / world.aspect
            picture = _paint_background(background, y_H - y, x_share_W)
            if world.extras.grain:
                picture = picture + world.extras.grain * _grain(background.seed, y_H - y, x_share_W)[..., None]
            painted[key] = picture
        pictures.append(painted[key])
    return np.stack(pictures).astype(np.float32) if pictures else np.zeros((0,), np.float32)


def _grain(seed: int, y_H: np.ndarray, x_W: np.ndarray) -> np.ndarray:
    """A texture of random values, -1 to 1, on a grid of a 32nd of the picture, blended in between."""
    grid = np.random.default_rng(seed).uniform(-1, 1, (32, 32)).astype(np.float32)
    y, x = y_H[:, 0] * 32, x_W[0] * 32
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = (y - row)[:, None], (x - column)[None, :]
    rows = grid[row % 32] * (1 - down) + grid[(row + 1) % 32] * down
    return rows[:, column % 32] * (1 - right) + rows[:, (column + 1) % 32] * right


def _paint_background(background: Background, y_H: np.ndarray, x_W: np.ndarray) -> np.ndarray:
    along = x_W * np.cos(background.angle_rad) + y_H * np.sin(background.angle_rad)
    if background.pattern == "solid":
        mix = np.zeros(np.broadcast_shapes(y_H.shape, x_W.shape))
    elif background.pattern == "gradient":
        mix = (along - along.min()) / max(float(np.ptp(along)), 1e-6)
    elif background.pattern == "stripes":
        mix = 0.3 * (0.5 + 0.5 * np.sin(along * (10 + background.seed % 25)))
    else:
        rng = np.random.default_rng(background.seed)
        mix = np.zeros(np.broadcast_shapes(y_H.shape, x_W.shape))
        for _ in range(5):
            fx, fy = rng.uniform(-9, 9, 2)
            mix = mix + np.sin(x_W * fx + y_H * fy + rng.uniform(0, 6.28))
        mix = 0.5 + mix / 10
    a, b = np.asarray(background.rgb_a), np.asarray(background.rgb_b)
    return (a + (b - a) * mix[..., None]).astype(np.float32)

"""A second painter of coloured shapes, with nothing in common with Millpond's own: Pillow, supersampled, H.264.

The built-in model must answer about clips that somebody else made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

RGB = {
    "red": (220, 30, 30),
    "green": (40, 170, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 220, 40),
    "purple": (150, 50, 180),
    "white": (245, 245, 245),
}
_SCALE = 3


@dataclass(frozen=True)
class Sprite:
    """A shape that shows from start_s to end_s, in a straight line all the while; centre and radius in pixels."""

    color: str
    shape: str
    start_s: float
    end_s: float
    from_xy: tuple[float, float]
    to_xy: tuple[float, float]
    radius: float


def paint(sprites: list[Sprite], background: tuple[int, int, int], time_s: float, size: tuple[int, int]) -> Image.Image:
    """The picture at a moment, anti-aliased."""
    width, height = size
    big = Image.new("RGB", (width * _SCALE, height * _SCALE), background)
    draw = ImageDraw.Draw(big)
    for s in sprites:
        if not s.start_s <= time_s < s.end_s:
            continue
        share = (time_s - s.start_s) / (s.end_s - s.start_s)
        x, y = (_SCALE * (a + (b - a) * share) for a, b in zip(s.from_xy, s.to_xy, strict=True))
        r, fill = s.radius * _SCALE, RGB[s.color]
        if s.shape == "circle":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        elif s.shape == "square":
            draw.rectangle((x - r, y - r, x + r, y + r), fill=fill)
        elif s.shape == "triangle":
            draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=fill)
        else:
            w = r * 0.35
            draw.rectangle((x - r, y - w, x + r, y + w), fill=fill)
            draw.rectangle((x - w, y - r, x + w, y + r), fill=fill)
    return big.resize(size, Image.Resampling.LANCZOS)


def write_clip(path: Path, sprites: list[Sprite], background: tuple[int, int, int], duration_s: float) -> Path:
    """Encodes the sprites as H.264, 320x240, 10 frames a second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        for n in range(round(duration_s * 10)):
            picture = paint(sprites, background, n / 10, (320, 240))
            container.mux(video.encode(av.VideoFrame.from_image(picture)))
        container.mux(video.encode())
    return path


def draw_sprites(seed: int, duration_s: float) -> tuple[list[Sprite], tuple[int, int, int]]:
    """One to three sprites of different colours and shapes, one after another, in columns; a dark backdrop."""
    rng = np.random.default_rng(seed)
    number = int(rng.integers(1, 4))
    colors = rng.choice(list(RGB), number, replace=False)
    shapes = rng.choice(["circle", "square", "triangle", "cross"], number, replace=False)
    starts = np.sort(rng.choice(np.arange(0, int(duration_s) - 2), number, replace=False))
    columns = rng.permutation([60, 160, 260])[:number]
    sprites = []
    for color, shape, start, x in zip(colors, shapes, starts, columns, strict=True):
        radius = float(rng.uniform(22, 40))
        y0 = float(rng.uniform(radius + 8, 232 - radius))
        y1 = y0 if rng.random() < 0.5 else 240 - y0
        sprites.append(Sprite(str(color), str(shape), float(start), duration_s, (x, y0), (x, y1), radius))
    backdrop = tuple(int(v) for v in rng.integers(0, 70, 3))
    return sprites, (backdrop[0], backdrop[1], backdrop[2])

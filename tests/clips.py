"""Clips made on the spot, whose every picture carries its own number, and where to find the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .scheduling import as_scheduled

# Shapes: H rows, W columns, 3 colours.

VIDEOS = Path(__file__).parent.parent.parent / "shared" / "videos"
REAL_CLIPS = ("Megamind.avi", "box.mp4", "cup.mp4", "tree.avi", "vtest.avi")
H264 = "libx264" if "libx264" in av.codecs_available else "mpeg4"

HEIGHT, WIDTH, NUM_BITS = 96, 160, 10
RATE_HZ = 25
TIME_BASE = Fraction(1, 12800)
STEP = 512  # ticks, 1/25 s


def numbered_picture(number: int) -> np.ndarray:
    """A grey picture with its number in it: vertical bars, white for a 1 and black for a 0."""
    rgb_HW3 = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
    bar = WIDTH // NUM_BITS
    for bit in range(NUM_BITS):
        rgb_HW3[16:-16, bit * bar : (bit + 1) * bar] = 235 if number >> bit & 1 else 20
    return rgb_HW3


def number_of(rgb_HW3: np.ndarray) -> int:
    """Reads the number back, through whatever a codec did to it."""
    height, width = rgb_HW3.shape[:2]
    bar = width // NUM_BITS
    row = rgb_HW3[height // 2 - 4 : height // 2 + 4].mean(axis=(0, 2))
    return sum(1 << bit for bit in range(NUM_BITS) if row[bit * bar + 4 : (bit + 1) * bar - 4].mean() > 128)


@as_scheduled()
def make_clip(
    path: Path,
    num_frames: int = 50,
    *,
    codec: str = H264,
    ticks: Sequence[int] | None = None,
    num_b_frames: int = 0,
    key_every: int = 12,
    options: dict[str, str] | None = None,
    with_sound: bool = False,
) -> Path:
    """Writes numbered pictures; `ticks` are their times in TIME_BASE, even ones by default."""
    times = ticks if ticks is not None else [number * STEP for number in range(num_frames)]
    with av.open(str(path), "w", options=options or {}) as container:
        settings = {"g": str(key_every), "bf": str(num_b_frames)}
        if codec == "libx264":
            settings |= {"preset": "veryfast", "sc_threshold": "0"}
        stream = container.add_stream(codec, rate=RATE_HZ, options=settings)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        # A container that keeps frames and no times, such as AVI, wants the rate for a time base.
        stream.codec_context.time_base = TIME_BASE if path.suffix != ".avi" else Fraction(1, RATE_HZ)
        sound = container.add_stream("aac", rate=16000) if with_sound else None
        for number, tick in enumerate(times):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            picture.time_base, picture.pts = TIME_BASE, tick
            if path.suffix == ".avi":
                picture.time_base, picture.pts = Fraction(1, RATE_HZ), tick // STEP
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 16000, 0
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


def make_sound(path: Path) -> Path:
    """A second of silence."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 16000, 0
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    return path


def cut(path: Path, share: float) -> Path:
    """The first part of a file, as an interrupted copy leaves it."""
    data = path.read_bytes()
    short = path.with_name(f"cut-{path.name}")
    short.write_bytes(data[: int(len(data) * share)])
    return short


def scratch(path: Path, begin: float, end: float, seed: int = 0) -> Path:
    """Noise over one stretch of a file, given as shares of its length."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * begin), int(len(data) * end)
    data[first:last] = np.random.default_rng(seed).bytes(last - first)
    bad = path.with_name(f"bad-{path.name}")
    bad.write_bytes(data)
    return bad

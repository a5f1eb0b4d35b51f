"""Chapters: a video cut where what is seen changes most, into no more parts than a person looks through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from ...memory.events import EventCutter
from ...stream import Frame, Span
from .record import SCENE_BYTES, Said

# Shapes: N frames, C colour cells.

MAX_CHAPTERS = 40
_ROWS, _COLUMNS = 4, 6


class Chapter(NamedTuple):
    """A part of a video and what was told of it; the parts follow on one another and leave nothing out."""

    span: Span
    said: tuple[Said, ...]


def scene_of(frame: Frame) -> bytes:
    """A picture as its cells' mean colours: enough to tell scenes apart, and small enough to be kept for each."""
    from PIL import Image

    small = Image.fromarray(frame.rgb_HW3).resize((_COLUMNS, _ROWS), Image.Resampling.BOX, reducing_gap=2.0)
    return small.tobytes()


def cut_chapters(
    times_s: Sequence[float],
    scenes: bytes,
    said: Sequence[Said],
    *,
    length_s: float,
    min_chapter_s: float,
    max_chapter_s: float,
) -> list[Chapter]:
    """Cuts [0, length_s), and gives each part the lines whose middle is in it. A part of which nothing was told goes
    with the one before it.

    times_s: of the frames, increasing; scenes: SCENE_BYTES for each.
    """
    if length_s <= 0:
        length_s = times_s[-1] if times_s else 0.0
    least_s = max(min_chapter_s, length_s / MAX_CHAPTERS)
    starts_s = _cuts(times_s, scenes, least_s, max(max_chapter_s, 4 * least_s))
    # A last chapter that is too short is the end of the one before.
    inner_s = [start_s for start_s in starts_s if least_s <= start_s <= length_s - least_s]
    edges_s = [0.0]
    for start_s in inner_s:
        if start_s - edges_s[-1] >= least_s - 1e-9:
            edges_s.append(start_s)
    lines: list[list[Said]] = [[] for _ in edges_s]
    for line in said:
        middle_s = (line.span.start_s + line.span.end_s) / 2
        lines[int(np.searchsorted(edges_s, middle_s, side="right")) - 1].append(line)
    told = [n for n in range(len(edges_s)) if lines[n]]
    kept_s = [0.0, *(edges_s[n] for n in told[1:])]
    ends_s = [*kept_s[1:], max(length_s, kept_s[-1])]
    kept_lines = [lines[n] for n in told] or [[]]
    return [Chapter(Span(a, b), tuple(c)) for a, b, c in zip(kept_s, ends_s, kept_lines, strict=True)]


def _cuts(times_s: Sequence[float], scenes: bytes, least_s: float, most_s: float) -> list[float]:
    """When events begin, the first left out."""
    if len(times_s) < 2:
        return []
    cells_NC = np.frombuffer(scenes, np.uint8).reshape(-1, SCENE_BYTES).astype(np.float32) - 127.5
    step_s = (times_s[-1] - times_s[0]) / (len(times_s) - 1)
    min_blocks = max(1, math.ceil(least_s / step_s))
    cutter = EventCutter(min_blocks=min_blocks, max_blocks=max(min_blocks, math.floor(most_s / step_s)))
    events = []
    for time_s, cells_C in zip(times_s, cells_NC, strict=True):
        events.append(cutter.see(Span(time_s, time_s), torch.from_numpy(cells_C)))
    events.append(cutter.close())
    return [event.span.start_s for event in events if event is not None][1:]

"""Chapters: they follow on one another, are as many as a person looks through, and begin where the picture changes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.batch.chapters import MAX_CHAPTERS, cut_chapters, scene_of
from millpond.pipeline.batch.record import SCENE_BYTES, Said
from millpond.stream import Frame, Span

LIMITS = {"min_chapter_s": 15.0, "max_chapter_s": 600.0}


def scenes(*parts: tuple[int, int]) -> bytes:
    """So many frames of each random scene, with a little noise."""
    rng = np.random.default_rng(0)
    made = []
    for seed, num in parts:
        base = np.random.default_rng(seed).integers(20, 236, SCENE_BYTES)
        made += [(base + rng.integers(-2, 3, SCENE_BYTES)).astype(np.uint8).tobytes() for _ in range(num)]
    return b"".join(made)


def lines(length_s: float, every_s: float = 5.0) -> list[Said]:
    return [Said(Span(t, t + every_s), f"line {n}") for n, t in enumerate(np.arange(0, length_s - every_s, every_s))]


def test_chapters_begin_where_the_scene_changes() -> None:
    times_s = [float(t) for t in range(120)]
    chapters = cut_chapters(times_s, scenes((1, 40), (2, 50), (3, 30)), lines(120), length_s=120.0, **LIMITS)
    assert [c.span for c in chapters] == [Span(0, 40), Span(40, 90), Span(90, 120)]
    assert [len(c.said) for c in chapters] == [8, 10, 5]


def test_a_scene_that_does_not_change_is_one_chapter_up_to_the_longest() -> None:
    times_s = [float(t) for t in range(900)]
    chapters = cut_chapters(times_s, scenes((1, 900)), lines(900), length_s=900.0, **LIMITS)
    assert 2 <= len(chapters) <= 4 and max(c.span.end_s - c.span.start_s for c in chapters) <= 620


def test_a_part_of_which_nothing_was_told_goes_with_the_one_before() -> None:
    times_s = [float(t) for t in range(120)]
    said = [Said(Span(45, 50), "x"), Said(Span(60, 61), "y")]
    (chapter,) = cut_chapters(times_s, scenes((1, 40), (2, 50), (3, 30)), said, length_s=120.0, **LIMITS)
    assert chapter.span == Span(0, 120) and chapter.said == tuple(said)


@st.composite
def videos(draw: Any) -> tuple[list[float], bytes, list[Said], float]:
    steps = draw(st.lists(st.floats(0.05, 400), max_size=80))
    times_s = [float(t) for t in np.cumsum(steps)]
    cells = draw(st.randoms(use_true_random=False)).randbytes(SCENE_BYTES * len(times_s))
    length_s = (times_s[-1] if times_s else 0.0) + draw(st.floats(0, 10))
    picks = sorted(draw(st.lists(st.floats(0, 1), max_size=20)))
    return times_s, cells, [Said(Span(p * length_s, p * length_s), "x") for p in picks], length_s


@given(videos(), st.floats(0.1, 60), st.floats(1, 20))
def test_nothing_is_left_out(made: tuple[list[float], bytes, list[Said], float], least_s: float, more: float) -> None:
    times_s, cells, said, length_s = made
    chapters = cut_chapters(
        times_s, cells, said, length_s=length_s, min_chapter_s=least_s, max_chapter_s=least_s * more
    )
    assert chapters[0].span.start_s == 0 and chapters[-1].span.end_s == length_s
    assert all(one.span.end_s == following.span.start_s for one, following in pairwise(chapters))
    assert [line for c in chapters for line in c.said] == said
    assert len(chapters) <= MAX_CHAPTERS
    if len(chapters) > 1:
        assert min(c.span.end_s - c.span.start_s for c in chapters) >= least_s * (1 - 1e-6)
        assert all(c.said for c in chapters)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (120, 160), (2, 5)])
def test_a_scene_is_as_long_for_any_picture(shape: tuple[int, int]) -> None:
    assert len(scene_of(Frame(np.zeros((*shape, 3), np.uint8), 0.0))) == SCENE_BYTES

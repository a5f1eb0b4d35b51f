"""The painter of synthetic worlds: what it paints is what the world says."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.stream import open_source
from millpond.stream.render import render
from millpond.stream.world import ENTRY_S, Thing, World, make_world

# Shapes: N moments, O objects, H height, W width, 3 colours.

seeds = st.integers(0, 2**31)
HUES = {"red": 0, "yellow": 55, "green": 122, "blue": 225, "purple": 286}


def named(rgb_3: np.ndarray) -> str:
    """The colour name that these levels are nearest to, by hue; white by having next to none."""
    hue, saturation, _ = colorsys.rgb_to_hsv(*(rgb_3 / 255))
    if saturation < 0.2:
        return "white"
    return min(HUES, key=lambda name: min(abs(hue * 360 - HUES[name]), 360 - abs(hue * 360 - HUES[name])))


def lone(**changes: object) -> World:
    """A still world without noise, with one object, changed as told."""
    world = make_world(1, aspect=1.0)
    thing = replace(
        world.things[0],
        radius=0.2,
        start_xy=(0.5, 0.5),
        end_xy=(0.5, 0.5),
        appear_s=4.0,
        leave_s=8.0,
        turn_rad=0.0,
        stretch=1.0,
        outline=False,
    )
    return replace(
        world,
        things=(replace(thing, **changes),),  # type: ignore[arg-type]
        backgrounds=world.backgrounds[:1],
        noise=0.0,
        flicker=0.0,
        softness=1.0,
    )


@given(seeds, st.sampled_from([(96, 96), (64, 48), (31, 57)]))
@settings(max_examples=15)
def test_a_moment_looks_the_same_whoever_asks(seed: int, size: tuple[int, int]) -> None:
    world, (width, height) = make_world(seed), size
    together = render(world, [0.0, 3.0, 7.5], width=width, height=height)
    alone = render(world, [7.5], width=width, height=height)
    assert together.rgb_NHW3.shape == (3, height, width, 3) and together.rgb_NHW3.dtype == np.uint8
    assert together.cover_NOHW.shape == (3, len(world.things), height, width)
    assert np.array_equal(together.rgb_NHW3[2], alone.rgb_NHW3[0])
    assert np.array_equal(together.cover_NOHW[2], alone.cover_NOHW[0])


@given(seeds)
@settings(max_examples=25)
def test_coverage_is_a_share_and_sums_to_one_at_most(seed: int) -> None:
    world = make_world(seed)
    cover_NOHW = render(world, [0.0, 2.2, 5.0, 9.7, 15.0], width=48, height=48).cover_NOHW
    assert cover_NOHW.min(initial=0) >= 0 and cover_NOHW.max(initial=0) <= 1
    assert cover_NOHW.sum(axis=1).max(initial=0) <= 1 + 1e-5


@given(seeds)
@settings(max_examples=40)
def test_the_centre_of_an_object_has_its_colour(seed: int) -> None:
    world = make_world(seed)
    times_s = [0.0, 3.0, 6.0, 9.0, 12.0, 15.0]
    painting = render(world, times_s, width=96, height=96)
    for o, thing in enumerate(world.things):
        # An outline is painted darker, and fills most of a thin object.
        if thing.outline:
            continue
        for n, time_s in enumerate(times_s):
            x, y = thing.place(time_s)
            row, column = int(y * 96), int(x / world.aspect * 96)
            if painting.cover_NOHW[n, o, row, column] > 0.99:
                around = painting.rgb_NHW3[n, row - 1 : row + 2, column - 1 : column + 2]
                full = painting.cover_NOHW[n, o, row - 1 : row + 2, column - 1 : column + 2] > 0.99
                assert named(around[full].mean(0)) == thing.color, (thing, around)


@given(seeds)
@settings(max_examples=25)
def test_an_object_covers_what_it_should_when_it_should(seed: int) -> None:
    world = make_world(seed)
    for o, thing in enumerate(world.things):
        # Alone, so that nothing hides it.
        alone = replace(world, things=(thing,))
        early_s = ENTRY_S if thing.entry != "pop" else 0.0
        begin_s, end_s = thing.appear_s - early_s, thing.leave_s + early_s
        moments = [begin_s - 0.01, thing.appear_s, thing.leave_s - 0.01, end_s + 0.01]
        cover_NHW = render(alone, moments, width=64, height=64).cover_NOHW[:, 0]
        shown = [bool(cover.any()) for cover in cover_NHW]
        assert shown == [False, True, True, False], (o, thing)
        area = cover_NHW[1].mean() * world.aspect
        r = thing.radius
        assert 0.1 * r * r < area < 1.2 * np.pi * r * r


def test_a_pop_comes_and_goes_at_once_and_leaves_no_trace() -> None:
    world = lone(entry="pop")
    empty = render(replace(world, things=()), [3.0], width=40, height=40).rgb_NHW3[0]
    pictures = render(world, [0.0, 3.99, 4.0, 7.99, 8.0], width=40, height=40).rgb_NHW3
    same = [bool((picture == empty).all()) for picture in pictures]
    assert same == [True, True, False, False, True]


def test_a_fade_grows_and_a_slide_comes_from_the_side() -> None:
    times_s = [3.45, 3.6, 3.7, 3.9, 4.0]
    fade = render(lone(entry="fade"), times_s, width=40, height=40).cover_NOHW[:, 0]
    strengths = fade.max(axis=(1, 2))
    assert 0 < strengths[0] and (np.diff(strengths) > 0).all() and strengths[-1] == 1
    slide = render(lone(entry="slide", start_xy=(0.3, 0.5), end_xy=(0.3, 0.5)), times_s, width=40, height=40)
    middles = [np.average(np.arange(40), weights=cover.sum(axis=0)) for cover in slide.cover_NOHW[1:, 0]]
    assert (np.diff(middles) > 0).all() and middles[-1] == pytest.approx(0.3 * 40 - 0.5, abs=0.5)


@pytest.mark.parametrize("shape", ["circle", "square", "triangle", "cross"])
def test_shapes_have_their_areas(shape: str) -> None:
    cover = render(lone(shape=shape, thickness=0.3, entry="pop"), [5.0], width=128, height=128).cover_NOHW[0, 0]
    r, w = 0.2, 0.2 * 0.3
    area = {
        "circle": np.pi * r * r,
        "square": (2 * 0.87 * r) ** 2,
        # apex at 1.15 r, base at 0.575 r below the (lowered) centre
        "triangle": (1.725 * r) ** 2 / np.sqrt(3),
        "cross": 4 * w * (2 * r - w),
    }[shape]
    assert cover.mean() == pytest.approx(area, rel=0.03)


def test_what_is_in_front_hides_what_is_behind() -> None:
    world = lone(entry="pop", shape="square", color="red", rgb=(1.0, 0.0, 0.0))
    front: Thing = replace(world.things[0], color="blue", rgb=(0.0, 0.0, 1.0), radius=0.1)
    both = replace(world, things=(world.things[0], front))
    painting = render(both, [5.0], width=40, height=40)
    assert painting.cover_NOHW[0, :, 20, 20].tolist() == [0, 1]
    assert painting.rgb_NHW3[0, 20, 20].tolist() == [0, 0, 255]
    assert painting.rgb_NHW3[0, 20, 14].tolist() == [255, 0, 0]


def test_a_background_changes_when_its_time_comes() -> None:
    world = next(w for w in map(make_world, range(100)) if len(w.backgrounds) == 2)
    world = replace(world, things=(), noise=0.0, flicker=0.0)
    at_s = world.backgrounds[1].start_s
    before, last, first = render(world, [0.0, at_s - 1e-6, at_s], width=24, height=24).rgb_NHW3
    assert np.array_equal(before, last) and not np.array_equal(last, first)


def test_no_moments_make_no_pictures() -> None:
    painting = render(make_world(0), [], width=16, height=16)
    assert len(painting.rgb_NHW3) == 0 and len(painting.cover_NOHW) == 0


def test_a_picture_that_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 8x8 pixels; got 7x9"):
        render(make_world(0), [0.0], width=7, height=9)


def test_the_source_shows_its_world() -> None:
    with open_source("synthetic://shapes?seed=4&duration_s=2&rate_hz=4&width=64&height=48") as source:
        frames = list(source)
        assert [frame.pts_s for frame in frames] == [0.25 * n for n in range(8)]
        for frame in (frames[0], frames[5]):
            painted = render(source.world, [frame.pts_s], width=64, height=48).rgb_NHW3[0]  # type: ignore[attr-defined]
            assert np.array_equal(frame.rgb_HW3, painted)

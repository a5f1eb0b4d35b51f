"""Which patches changed: against what they were encoded from, through noise and flicker, on whatever comes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from millpond.stream import ChangeDetector, ChangeMap, ChangeRule, RateSampler, open_source

from .clips import VIDEOS

# Shapes: H rows and W columns of pixels or patches, 3 colours.

GRID = (12, 16)
SIZE = (192, 256)  # 16 x 16 pixels to a patch


def scene(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture with large, middling and small structure, float, away from black and white."""
    rng = np.random.default_rng(seed)
    rgb_HW3 = np.full((*size, 3), 120.0)
    for num_cells, levels in ((4, 50), (16, 25), (48, 10)):
        noise = (rng.random((num_cells, num_cells, 3)) * 255).astype(np.uint8)
        large = Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC)
        rgb_HW3 += (np.asarray(large, float) / 127.5 - 1) * levels
    return rgb_HW3.clip(10, 245)


def levels(rgb_HW3: np.ndarray) -> np.ndarray:
    return rgb_HW3.round().clip(0, 255).astype(np.uint8)


def with_square(rgb_HW3: np.ndarray, row: int, column: int, side: int = 12) -> np.ndarray:
    drawn = rgb_HW3.copy()
    square = drawn[row : row + side, column : column + side]
    square[:] = np.where(square.mean() > 128, 40, 210)
    return drawn


def followed(detector: ChangeDetector, pictures: list[np.ndarray]) -> list[ChangeMap]:
    """What is seen by one who encodes what changed."""
    maps = []
    for picture in pictures:
        maps.append(detector.compare([picture]))
        detector.encoded(maps[-1].changed_HW)
    return maps


def test_the_first_picture_is_all_new_and_the_same_again_is_not() -> None:
    detector = ChangeRule().start(GRID)
    picture = levels(scene())
    first, second, third = followed(detector, [picture] * 3)
    assert first.is_cut and first.changed_HW.all() and np.isinf(first.score_HW).all()
    assert np.isinf(first.since_last_HW).all() and first.share == 1
    for seen in (second, third):
        assert not seen.is_cut and not seen.changed_HW.any() and not seen.score_HW.any() and seen.share == 0
        assert seen.noise_levels == 0 and seen.threshold_levels == ChangeRule().floor_levels
    assert len(repr(first)) < 120


def test_what_changed_is_where_it_changed() -> None:
    detector = ChangeRule().start(GRID)
    base = scene()
    _, seen = followed(detector, [levels(base), levels(with_square(base, 5 * 16 + 2, 9 * 16 + 2))])
    assert np.argwhere(seen.changed_HW).tolist() == [[5, 9]]
    assert np.count_nonzero(seen.score_HW) == np.count_nonzero(seen.since_last_HW) == 1


def test_a_faint_thing_in_a_quarter_of_a_patch_is_seen() -> None:
    base = scene()
    drawn = base.copy()
    drawn[80:88, 144:152] += 14
    for rule, places in ((ChangeRule(), [[5, 9]]), (ChangeRule(part_weight=0), [])):
        seen = followed(rule.start(GRID), [levels(base), levels(drawn)])[1]
        assert np.argwhere(seen.changed_HW).tolist() == places


def test_the_patches_are_those_of_the_part_that_they_cover() -> None:
    """A tower that leaves an edge out: what happens there is nobody's, and the rest lies on smaller patches."""
    base = scene(size=(128, 128))
    detector = ChangeRule().start((4, 4), covered_hw=(0.75, 0.5))
    moved = with_square(with_square(base, 100, 20), 10, 70)  # below what is covered, and right of it
    assert not followed(detector, [levels(base), levels(moved)])[1].changed_HW.any()
    seen = followed(detector, [levels(base), levels(with_square(base, 74, 18))])[1]  # rows of 24, columns of 16
    assert np.argwhere(seen.changed_HW).tolist() == [[3, 1]]


def test_a_patch_is_compared_with_what_it_was_encoded_from() -> None:
    detector = ChangeRule().start(GRID)
    base, drawn = levels(scene()), levels(with_square(scene(), 82, 146))
    detector.compare([base])
    detector.encoded()
    for _ in range(3):  # nobody encodes it, so it stays changed, though from one picture to the next nothing is new
        seen = detector.compare([drawn])
    assert seen.changed_HW[5, 9] and not seen.since_last_HW.any()
    detector.encoded(seen.changed_HW)
    assert not detector.compare([drawn]).changed_HW.any()
    assert np.argwhere(detector.compare([base]).changed_HW).tolist() == [[5, 9]]


def test_what_was_never_encoded_has_changed() -> None:
    detector = ChangeRule().start(GRID)
    picture = levels(scene())
    detector.compare([picture])
    mask_HW = np.zeros(GRID, bool)
    mask_HW[:, :4] = True
    detector.encoded(mask_HW)
    assert np.array_equal(detector.compare([picture]).changed_HW, ~mask_HW)


@pytest.mark.parametrize("where", ["a patch", "the picture"])
def test_slow_drift_adds_up_until_it_is_seen(where: str) -> None:
    base = scene() * 0.7
    part = np.s_[32:48, 32:48] if where == "a patch" else np.s_[:, :]
    pictures = []
    for number in range(60):
        picture = base.copy()
        picture[part] += 0.5 * number
        pictures.append(levels(picture))
    maps = followed(ChangeRule().start(GRID), pictures)
    times = [number for number, seen in enumerate(maps) if seen.changed_HW[2, 2]]
    # A patch that drifts alone is seen past the floor, the light of all past the flicker that is taken out besides.
    assert len(times) >= (5 if where == "a patch" else 2)
    assert max(np.diff(times)) <= (13 if where == "a patch" else 30)
    assert all(seen.since_last_HW.max() < 2 for seen in maps[1:])


@pytest.mark.parametrize(("offset", "gain", "sigma"), [(0, 0, 3), (4, 0, 3), (0, 0.03, 3), (4, 0.03, 3), (0, 0, 8)])
def test_flicker_and_noise_are_no_change_and_a_small_square_in_them_is(
    offset: float, gain: float, sigma: float
) -> None:
    rng = np.random.default_rng(1)
    base = scene()
    still, moving = [], []
    places = []
    for _ in range(24):
        row, column = 16 * int(rng.integers(1, 11)) + 2, 16 * int(rng.integers(1, 15)) + 2
        light = 1 + gain * rng.uniform(-1, 1), offset * rng.uniform(-1, 1)
        noise = rng.normal(0, sigma, base.shape)
        still.append(levels(base * light[0] + light[1] + noise))
        drawn = with_square(base, row, column)
        moving.append(levels(drawn * light[0] + light[1] + noise))
        places.append((row // 16, column // 16))
    maps = followed(ChangeRule().start(GRID), still)
    assert np.mean([seen.share for seen in maps[1:]]) < 0.002
    maps = followed(ChangeRule().start(GRID), moving)
    for number in range(1, len(maps)):
        assert maps[number].changed_HW[places[number]], number
        assert maps[number].changed_HW[places[number - 1]] or places[number] == places[number - 1], number
        assert maps[number].share < 0.03


def test_a_real_change_of_light_is_change_and_no_cut() -> None:
    base = scene() * 0.7
    maps = followed(ChangeRule().start(GRID), [levels(base), levels(base + 25)])
    assert maps[1].share > 0.95 and not maps[1].is_cut


def test_light_that_the_picture_does_not_agree_on_is_change() -> None:
    """Three bands, lit by 0, 7 and 14 levels: no one change of light explains most of it, so none is taken out."""
    base = scene() * 0.7
    lit = base + np.repeat([0, 7, 14], [80, 88, 88])[:, None]
    seen = followed(ChangeRule().start(GRID), [levels(base), levels(lit)])[1]
    assert not seen.changed_HW[:, :5].any() and seen.changed_HW[:, 6:].all()


def test_the_noise_of_the_stream_raises_the_threshold_and_no_further_than_the_ceiling() -> None:
    rng = np.random.default_rng(0)
    rule = ChangeRule()
    quiet, noisy = (
        followed(
            rule.start((16, 16)), [levels(scene(size=(96, 96)) + rng.normal(0, sigma, (96, 96, 3))) for _ in range(9)]
        )
        for sigma in (1, 6)
    )
    assert quiet[-1].threshold_levels == rule.floor_levels < noisy[-1].threshold_levels
    assert quiet[-1].noise_levels < noisy[-1].noise_levels
    assert noisy[-1].threshold_levels <= rule.ceiling_levels


def test_pure_noise_changes_everywhere_for_ever() -> None:
    rng = np.random.default_rng(0)
    maps = followed(ChangeRule().start((27, 27)), [rng.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(30)])
    assert min(seen.share for seen in maps) > 0.99
    assert max(seen.threshold_levels for seen in maps) <= ChangeRule().ceiling_levels


def test_another_scene_is_a_cut_each_time_for_pictures_that_alternate() -> None:
    pictures = [levels(scene(seed=n % 2)) for n in range(10)]
    detector = ChangeRule().start(GRID)
    sizes = set()
    for seen, _ in zip(followed(detector, pictures), range(10), strict=True):
        assert seen.is_cut and seen.changed_HW.all()
        sizes.add(detector.num_bytes)
    assert len(sizes) == 1


def test_black_and_white_and_a_scene_are_three() -> None:
    black, white, picture = np.zeros((*SIZE, 3), np.uint8), np.full((*SIZE, 3), 255, np.uint8), levels(scene())
    maps = followed(ChangeRule().start(GRID), [black, black, white, white, picture, black])
    assert [seen.is_cut for seen in maps] == [True, False, True, False, True, True]
    assert [seen.share for seen in maps] == [1, 0, 1, 0, 1, 1]


def test_a_camera_that_turns_makes_no_cut_and_changes_everything_that_shows() -> None:
    wide = levels(scene(size=(192, 900)))
    pictures = [np.ascontiguousarray(wide[:, start : start + 256]) for start in range(0, 600, 60)]
    maps = followed(ChangeRule().start(GRID), pictures)
    assert [seen.is_cut for seen in maps] == [True] + [False] * 9
    assert min(seen.share for seen in maps) > 0.9


def test_a_change_of_size_begins_anew() -> None:
    detector = ChangeRule().start(GRID)
    pictures = [levels(scene())] * 2 + [levels(scene(size=(96, 256)))] * 2 + [levels(scene())]
    maps = followed(detector, pictures)
    assert [seen.is_cut for seen in maps] == [True, False, True, False, True]
    assert [seen.share for seen in maps] == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (5, 7)])
def test_a_grid_larger_than_the_picture(size: tuple[int, int]) -> None:
    dark, bright = np.full((*size, 3), 20, np.uint8), np.full((*size, 3), 220, np.uint8)
    maps = followed(ChangeRule().start((27, 27), covered_hw=(0.98, 0.98)), [dark, dark, bright, bright])
    assert [seen.share for seen in maps] == [1, 0, 1, 0]


def test_a_grid_of_one_patch() -> None:
    maps = followed(ChangeRule().start((1, 1)), [levels(scene()), levels(scene()), levels(scene(1))])
    assert [seen.changed_HW.tolist() for seen in maps] == [[[True]], [[False]], [[True]]]


def test_a_block_of_two_frames_changes_where_either_does() -> None:
    base = scene()
    still, early, late = levels(base), levels(with_square(base, 34, 34)), levels(with_square(base, 82, 146))
    detector = ChangeRule().start(GRID)
    detector.compare([still, still])
    detector.encoded()
    assert not detector.compare([still, still]).changed_HW.any()
    assert np.argwhere(detector.compare([early, late]).changed_HW).tolist() == [[2, 2], [5, 9]]
    # A short block is filled with its last frame.
    num_bytes = detector.num_bytes
    assert np.argwhere(detector.compare([late]).changed_HW).tolist() == [[5, 9]]
    assert not detector.compare([still]).changed_HW.any() and detector.num_bytes == num_bytes


def test_a_first_block_that_is_short_is_filled_too() -> None:
    detector = ChangeRule().start(GRID)
    still, drawn = levels(scene()), levels(with_square(scene(), 34, 34))
    detector.compare([still])
    detector.encoded()
    assert np.argwhere(detector.compare([still, drawn]).changed_HW).tolist() == [[2, 2]]
    detector.encoded()
    assert not detector.compare([still, drawn]).changed_HW.any()


def test_reset_forgets() -> None:
    detector = ChangeRule().start(GRID)
    followed(detector, [levels(scene())] * 3)
    detector.reset()
    assert detector.compare([levels(scene())]).is_cut


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    grid_hw=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    covered=st.floats(0.1, 1.0),
    seeds=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    num_frames=st.integers(1, 2),
)
@settings(max_examples=60)
def test_promises_on_whatever_comes(
    size: tuple[int, int], grid_hw: tuple[int, int], covered: float, seeds: list[int], num_frames: int
) -> None:
    rule = ChangeRule()
    detectors = [rule.start(grid_hw, (covered, covered)) for _ in range(2)]
    num_bytes = 0
    for seed in seeds:
        # 0 is black, 1 a scene, 2 the same noise each time, 3 a flat grey.
        picture = levels(scene(size=size)) if seed == 1 else np.zeros((*size, 3), np.uint8)
        if seed == 2:
            picture = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
        picture = np.full_like(picture, 128) if seed == 3 else picture
        picture.flags.writeable = False
        seen, again = (detector.compare([picture] * num_frames) for detector in detectors)
        assert np.array_equal(seen.score_HW, again.score_HW) and seen.is_cut == again.is_cut
        assert seen.changed_HW.shape == seen.score_HW.shape == seen.since_last_HW.shape == grid_hw
        assert not np.isnan(seen.score_HW).any() and not np.isnan(seen.since_last_HW).any()
        assert rule.floor_levels <= seen.threshold_levels <= rule.ceiling_levels
        assert seen.is_cut <= bool(seen.changed_HW.all())
        for detector in detectors:
            detector.encoded(seen.changed_HW)
        assert num_bytes in (0, detectors[0].num_bytes)
        num_bytes = detectors[0].num_bytes


def test_pictures_that_are_none_are_refused() -> None:
    detector = ChangeRule().start(GRID)
    with pytest.raises(ValueError, match="at least one picture; got none"):
        detector.compare([])
    with pytest.raises(ValueError, match="must have one size; got"):
        detector.compare([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)])
    with pytest.raises(ValueError, match=r"uint8 array of shape.*got float64"):
        detector.compare([np.zeros((4, 4, 3))])
    with pytest.raises(ValueError, match="nothing was compared yet"):
        detector.encoded()
    detector.compare([levels(scene())])
    with pytest.raises(ValueError, match=r"a bool for each patch of the \(12, 16\) grid; got"):
        detector.encoded(np.ones((3, 3), bool))


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"floor_levels": 9.0, "ceiling_levels": 8.0}, "floor_levels <= ceiling_levels"),
        ({"noise_factor": 0.5}, "noise_factor=0.5"),
        ({"noise_share": 1.0}, "noise_share=1.0"),
        ({"part_weight": 1.5}, "part_weight=1.5"),
        ({"flicker_levels": -1.0}, "flicker_levels=-1.0"),
        ({"moved_px": float("nan")}, "moved_px=nan"),
        ({"cut_levels": 300.0}, "cut_levels=300.0"),
        ({"cut_share": 0.0}, "cut_share=0.0"),
    ],
)
def test_rules_that_are_none_are_refused(settings_: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ChangeRule(**settings_)


@pytest.mark.parametrize(("grid_hw", "covered_hw"), [((0, 4), (1.0, 1.0)), ((4, 4), (0.0, 1.0)), ((4, 4), (1.0, 1.5))])
def test_grids_that_are_none_are_refused(grid_hw: tuple[int, int], covered_hw: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        ChangeRule().start(grid_hw, covered_hw)


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
@pytest.mark.parametrize(
    ("name", "rate_hz", "most", "cuts"),
    [("vtest.avi", 2.0, 0.12, []), ("vtest.avi", 10.0, 0.08, []), ("Megamind.avi", 2.0, 0.6, [1, 9, 13, 17])],
)
def test_real_clips(name: str, rate_hz: float, most: float, cuts: list[int]) -> None:
    """A fixed camera: a small share, never all. A film: its three cuts, and where it fades in from black."""
    detector = ChangeRule().start((27, 27), covered_hw=(378 / 384, 378 / 384))
    with open_source(VIDEOS / name) as source:
        frames = source.sampled(RateSampler(rate_hz))
        maps = followed(detector, [frame.rgb_HW3 for frame, _ in zip(frames, range(200), strict=False)])
    assert 0.02 < np.mean([seen.share for seen in maps[1:]]) < most
    assert [number for number, seen in enumerate(maps) if seen.is_cut] == [0, *cuts]

"""What the temporal methods do with time: what is new, what is owed, what is said again."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from millpond.encoders.compressors import Budget, Compressor
from millpond.encoders.compressors.scorers import novelty, outlier, unit
from millpond.encoders.compressors.temporal import TemporalDrop
from millpond.encoders.compressors.temporal_anchor import STCPruner
from millpond.encoders.compressors.temporal_noise import NoiseFloor, NoiseRule
from millpond.encoders.compressors.temporal_outlier import VidCom2, Welford
from millpond.encoders.compressors.temporal_pixels import DifferencePruning
from millpond.encoders.compressors.temporal_progressive import Progressive
from millpond.encoders.compressors.temporal_split import StaticDynamic
from millpond.encoders.sight import Sight

from .sights import film, sight_of

# Shapes: T tokens, D channels.

FIXED = NoiseRule(multiple=1.0, quantile=0.0, least=0.1, most=0.1)


def tokens(num_tokens: int = 24, num_channels: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(num_tokens, num_channels, generator=torch.Generator().manual_seed(seed))


def kept(recipe: Compressor, blocks: list[Sight]) -> list[list[int]]:
    state = recipe.start()
    return [state.compress(block).kept_T.tolist() for block in blocks]


def shown(*frames: Tensor) -> list[Sight]:
    return [sight_of(x_TD=x_TD, at_s=number / 2) for number, x_TD in enumerate(frames)]


# TemporalDrop


def test_drift_too_slow_for_two_frames_is_seen() -> None:
    start, end = tokens(), tokens(seed=1)
    frames = [torch.lerp(start, end, step / 50) for step in range(51)]
    assert all(float(novelty(b, a).max()) < 0.1 for a, b in pairwise(frames))
    spoke = kept(TemporalDrop(noise=FIXED, refresh_blocks=1000), shown(*frames))
    last_kept = {place: max(n for n, places in enumerate(spoke) if place in places) for place in range(24)}
    assert all(float(novelty(end, frames[n])[place]) <= 0.1 + 1e-5 for place, n in last_kept.items())
    assert sum(map(len, spoke[1:])) >= 24


@pytest.mark.parametrize("refresh_blocks", [1, 4, 9])
def test_no_place_is_silent_for_longer_than_its_refresh(refresh_blocks: int) -> None:
    spoke = kept(TemporalDrop(refresh_blocks=refresh_blocks), film(num_blocks=30, is_moving=False))
    for first in range(30 - refresh_blocks + 1):
        assert {place for places in spoke[first : first + refresh_blocks] for place in places} == set(range(24))
    assert max(map(len, spoke[1:])) <= math.ceil(24 / refresh_blocks) + 1, "all are refreshed at once"


def test_what_found_no_room_speaks_later() -> None:
    spoke = kept(TemporalDrop(keep_tokens=5, refresh_blocks=1000, noise=FIXED), film(num_blocks=6, is_moving=False))
    assert sorted(place for places in spoke[:5] for place in places)[:24] == list(range(24))
    assert [len(places) for places in spoke] == [5, 5, 5, 5, 4, 1]


def test_the_newest_speak_first() -> None:
    still = tokens()
    changed = still.clone()
    changed[3] = still[3] + 1.5 * tokens(1, seed=6)[0]
    changed[8] = -still[8]
    blocks = shown(still, changed, changed)
    assert kept(TemporalDrop(refresh_blocks=1000, noise=FIXED), blocks)[1] == [3, 8]
    # 24 tokens for the first frame, half a token for each after it: the floor is one.
    scarce = Budget(tokens_per_s=1.0, burst_s=24.0)
    assert kept(TemporalDrop(refresh_blocks=1000, noise=FIXED, at_most=scarce), blocks)[1:] == [[8], [3]]


def test_the_threshold_is_the_streams_own() -> None:
    """The same small change is news on a clean stream, and not on a noisy one."""
    rule = NoiseRule(least=0.001)
    for noise, is_news in ((0.0, True), (0.5, False)):
        blocks = film(num_blocks=12, noise=noise, is_moving=False, num_channels=256)
        x_TD = blocks[-1].tokens.x_TD.clone()
        x_TD[5] += 0.3 * tokens(1, 256, seed=9)[0]
        last = replace(blocks[-1], tokens=replace(blocks[-1].tokens, x_TD=x_TD))
        spoke = kept(TemporalDrop(noise=rule, refresh_blocks=1000), [*blocks[:-1], last])
        assert (5 in spoke[-1]) == is_news


# StaticDynamic


def test_the_first_frame_is_all_dynamic_and_goes_by_attention() -> None:
    sight = sight_of()
    assert sight.received_RT is not None
    assert sight.cls_T is not None
    best = sorted(sight.received_RT[-1].argsort(descending=True)[:6].tolist())
    assert kept(StaticDynamic(keep_tokens=6), [sight]) == [best]
    best = sorted(sight.cls_T.argsort(descending=True)[:6].tolist())
    assert kept(StaticDynamic(keep_tokens=6), [replace(sight, received_RT=None)]) == [best]
    # Without any attention, what is unlike the rest.
    x_TD = sight.tokens.x_TD
    best = sorted(novelty(x_TD, x_TD.mean(0)).argsort(descending=True)[:6].tolist())
    assert kept(StaticDynamic(keep_tokens=6), [replace(sight, received_RT=None, cls_T=None)]) == [best]


def test_still_and_moving_tokens_share_the_count() -> None:
    before, now = tokens(), tokens()
    now[:6] = tokens(6, seed=5)  # a quarter moves
    state = StaticDynamic(keep_tokens=8).start()
    first, second = shown(before, now)
    state.compress(first)
    out = state.compress(second)
    moving = [place for place in out.kept_T.tolist() if place < 6]
    assert (len(moving), out.num_tokens) == (2, 8)
    x_TD = second.tokens.x_TD
    assert torch.equal(out.x_TD[:2], x_TD[moving]), "moving tokens are not mixed"
    assert not torch.equal(out.x_TD[2:], x_TD[out.kept_T[2:]]), "still tokens sum up those that they stand for"


def test_few_moving_tokens_leave_their_share_to_the_still() -> None:
    before, now = tokens(), tokens()
    now[0] = -now[0]
    assert [len(places) for places in kept(StaticDynamic(keep_tokens=20), shown(before, now))] == [20, 20]


# STCPruner


def test_score_is_the_papers_equation() -> None:
    frames = [tokens(seed=seed) + 0.5 for seed in range(6)]
    spoke = kept(STCPruner(keep_tokens=5, window_blocks=3, temporal_share=0.3), shown(*frames))
    for number, x_TD in enumerate(frames):
        spatial_T = 1 - torch.cosine_similarity(x_TD, x_TD.mean(0)[None])
        score_T = spatial_T
        if number:
            anchor = torch.stack([one.mean(0) for one in frames[max(0, number - 3) : number]]).mean(0)
            score_T = 0.3 * (1 - torch.cosine_similarity(x_TD, anchor[None])) + 0.7 * spatial_T
        assert spoke[number] == sorted(score_T.argsort(descending=True)[:5].tolist())


# DifferencePruning


def pixels(change_T: Tensor, noise: float, number: int) -> Sight:
    return replace(sight_of(x_TD=tokens(), at_s=number / 2, change_T=change_T), noise_levels=noise)


def test_pixels_that_differ_by_more_than_the_noise_are_kept() -> None:
    still = torch.zeros(24)
    moved = still.clone()
    moved[[4, 9]] = torch.tensor([0.3, 30.0])
    first = pixels(torch.full((24,), math.inf), 0.0, 0)
    assert kept(DifferencePruning(), [first, pixels(moved, 0.0, 1)])[1] == [4, 9]
    assert kept(DifferencePruning(), [first, pixels(moved, 0.2, 1)])[1] == [9]
    assert kept(DifferencePruning(noise_multiple=0.0), [first, pixels(moved, 0.2, 1)])[1] == [4, 9]
    assert kept(DifferencePruning(), [first, pixels(still, 0.0, 1)])[1] == [0]


def test_a_change_that_found_no_room_is_owed() -> None:
    first, still = pixels(torch.full((24,), math.inf), 0.0, 0), torch.zeros(24)
    spoke = kept(DifferencePruning(keep_tokens=10), [first, *(pixels(still, 0.0, n) for n in (1, 2, 3))])
    assert [len(places) for places in spoke] == [10, 10, 4, 1]
    assert sorted(place for places in spoke[:3] for place in places) == list(range(24))


def test_a_compressor_that_starts_in_mid_stream_sends_a_whole_frame() -> None:
    assert kept(DifferencePruning(), [pixels(torch.zeros(24), 0.0, 7)]) == [list(range(24))]


# Progressive


def test_a_picture_shown_again_says_the_rest_until_all_is_said() -> None:
    spoke = kept(Progressive(keep_tokens=7, noise=FIXED), shown(*[tokens()] * 6))
    assert [len(places) for places in spoke] == [7, 7, 7, 3, 1, 1]
    assert sorted(place for places in spoke[:4] for place in places) == list(range(24))


def test_what_looks_alike_is_said_once() -> None:
    two_looks = tokens(2)[[0] * 20 + [1] * 4]
    spoke = kept(Progressive(keep_tokens=7, noise=FIXED), shown(*[two_looks] * 3))
    assert [len(places) for places in spoke] == [2, 1, 1]
    assert min(spoke[0]) < 20 <= max(spoke[0])


def test_a_thing_that_moves_is_said_at_its_new_place_and_so_is_what_it_uncovers() -> None:
    look, thing = tokens(2)
    before, after = look.repeat(24, 1), look.repeat(24, 1)
    before[3], after[17] = thing, thing
    spoke = kept(Progressive(keep_tokens=7, noise=FIXED), shown(before, before, after, after))
    assert spoke[2] == [3, 17]
    assert len(spoke[3]) == 1


def test_what_was_said_of_a_thing_that_left_says_nothing_of_another_place() -> None:
    before, after = tokens(), tokens()
    first, second = kept(Progressive(keep_tokens=2, noise=FIXED), shown(before))[0]
    other = next(place for place in range(24) if place not in (first, second))
    after[first], after[other] = tokens(1, seed=8)[0], before[first]
    spoke = kept(Progressive(keep_tokens=2, noise=FIXED), shown(before, *[after] * 12))
    assert {place for places in spoke[1:] for place in places} == set(range(24)) - {second}


def test_most_telling_first() -> None:
    """After each frame, what is farthest from all that was said is nearer than a random choice leaves it."""
    x_TD = tokens(24, 6)
    said = kept(Progressive(keep_tokens=6, noise=FIXED), shown(x_TD))[0]
    apart_TT = 1 - unit(x_TD) @ unit(x_TD).T
    worst = float(apart_TT[:, said].amin(1).max())
    rng = torch.Generator().manual_seed(4)
    by_chance = [float(apart_TT[:, torch.randperm(24, generator=rng)[:6]].amin(1).max()) for _ in range(50)]
    assert worst <= sorted(by_chance)[5]


def test_what_was_said_long_ago_is_said_again() -> None:
    spoke = kept(Progressive(keep_tokens=24, noise=FIXED, refresh_blocks=5), shown(*[tokens()] * 12))
    assert [len(places) for places in spoke][:7] == [24, 1, 1, 1, 1, 20, 1]
    for number in range(12 - 5):
        assert {place for places in spoke[number : number + 6] for place in places} == set(range(24))


# VidCom2


def test_an_unusual_frame_keeps_more_than_a_usual_one() -> None:
    blocks = film(num_blocks=20, noise=0.1, is_moving=False)
    # Another scene, after a long one.
    other = tokens(seed=77) * 2 + 3 * tokens(1, seed=78)
    spoke = kept(VidCom2(keep_tokens=8), [*blocks, sight_of(x_TD=other, at_s=10.0)])
    usual = [len(places) for places in spoke[6:20]]
    assert len(spoke[20]) > max(usual)
    assert 4 <= min(usual) <= max(usual) <= 12
    assert VidCom2.is_offline_as_published


def test_until_the_channels_are_chosen_a_frame_is_its_own_centre() -> None:
    """A centre of other channels would be a point of another space."""
    frames = [tokens(seed=seed) + 2 * tokens(1, seed=90 + seed) for seed in range(6)]
    spoke = kept(VidCom2(keep_tokens=6, calibration_blocks=3, channel_share=1.0), shown(*frames))
    by_itself = []
    for x_TD, places in zip(frames, spoke, strict=True):
        x_TD = unit(x_TD)
        best = outlier(x_TD, x_TD.mean(0)).argsort(descending=True)[: len(places)]
        by_itself.append(places == sorted(best.tolist()))
    assert by_itself[:3] == [True] * 3
    assert not all(by_itself)


def test_the_channels_are_chosen_once() -> None:
    """After its first blocks the stream's channels stay, so that its centre is a mean of one space."""
    state = VidCom2(calibration_blocks=3).start()
    masks = []
    for seed, sight in enumerate(film(num_blocks=10, noise=0.2)):
        louder = sight.tokens.x_TD.clone()
        louder[:, seed % 32] *= 50
        state.compress(replace(sight, tokens=replace(sight.tokens, x_TD=louder)))
        masks.append(state._mask_D.clone())  # type: ignore[attr-defined]
    assert all(torch.equal(mask, masks[2]) for mask in masks[3:])
    assert not torch.equal(masks[0], masks[2])


def test_welford_is_the_variance_of_all() -> None:
    running, x_TD = Welford(), tokens(50, 8) * 3 + 1000
    for rows in x_TD.split(7):
        running.add(rows)
    assert torch.allclose(running.variance, x_TD.var(0, unbiased=False), rtol=1e-3)
    assert torch.allclose(running.mean, x_TD.mean(0))


def test_the_noise_floor_follows_the_stream_and_keeps_its_bounds() -> None:
    floor = NoiseFloor(NoiseRule(multiple=3.0, least=0.01, most=0.5))
    assert floor.threshold(torch.empty(0)) == 0.01
    assert floor.threshold(torch.full((40,), 0.05)) == pytest.approx(0.15)
    # A pan: all is new, and the threshold stays with the noise.
    assert floor.threshold(torch.full((40,), 0.9)) == pytest.approx(0.15)
    floor.reset()
    assert floor.threshold(torch.full((40,), 0.9)) == 0.5
    assert floor.threshold(torch.zeros(40)) == 0.01


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"multiple": 0.5}, "multiple must be at least 1; got 0.5"),
        ({"quantile": 2.0}, r"quantile must be in \[0, 1\]; got 2"),
        ({"least": 0.9, "most": 0.1}, "least and most must be in order .*; got 0.9 and 0.1"),
    ],
)
def test_a_wrong_noise_rule_is_refused(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        NoiseRule(**wrong)

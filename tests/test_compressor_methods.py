"""What the compressors that cover a frame, or answer a question, do of their own: their papers' promises."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from millpond.encoders.compressors import Budget
from millpond.encoders.compressors.attention import VisionDrop
from millpond.encoders.compressors.attention_places import HiPrune, HiRED, HoloV
from millpond.encoders.compressors.covering import MMTok, ToDRE, ToMe, UniformGrid
from millpond.encoders.compressors.mergers import soft_matching
from millpond.encoders.compressors.text import TemporalMerging

from .plain_sights import CHANNELS, kept, rand, sight

SEEDS = st.integers(0, 2**31 - 1)


# covering


@given(height=st.integers(1, 9), width=st.integers(1, 9), keep=st.integers(1, 81), seed=SEEDS)
@settings(max_examples=60)
def test_the_uniform_grid_is_spread_evenly_whatever_it_shows(height: int, width: int, keep: int, seed: int) -> None:
    num_places = height * width
    stays = kept(UniformGrid(keep_tokens=keep), sight(rand(seed, num_places, 4), (height, width)))
    assert len(stays) == min(keep, num_places)
    assert stays == kept(UniformGrid(keep_tokens=keep), sight(torch.zeros(num_places, 4), (height, width)))
    if keep >= max(height, width):  # no row or column is left out while another has two more than it
        rows = [sum(place // width == row for place in stays) for row in range(height)]
        assert min(rows) > 0 or max(rows) <= width


def test_the_uniform_grid_takes_every_second_row_and_column() -> None:
    assert kept(UniformGrid(keep_tokens=4), sight(torch.ones(16, 4), (4, 4))) == [5, 7, 13, 15]


def distances(x_TD: Tensor) -> Tensor:
    """Angles' chords: a metric, and in the order of 1 - cosine."""
    unit_TD = x_TD.double() / x_TD.double().norm(dim=-1, keepdim=True)
    return torch.cdist(unit_TD, unit_TD)


def radius(far_TT: Tensor, centres: tuple[int, ...] | list[int]) -> float:
    return float(far_TT[:, list(centres)].amin(1).max())


@given(seed=SEEDS, keep=st.integers(1, 4))
@settings(max_examples=30)
def test_todre_covers_within_twice_the_best_radius_there_is(seed: int, keep: int) -> None:
    x_TD = rand(seed, 9, 4)
    far_TT = distances(x_TD)
    stays = kept(ToDRE(keep_tokens=keep), sight(x_TD, (3, 3)))
    best = min(radius(far_TT, centres) for centres in itertools.combinations(range(9), keep))
    assert radius(far_TT, stays) <= 2.0 * best + 1e-6


@given(seed=SEEDS)
@settings(max_examples=20)
def test_each_pick_of_todre_is_the_farthest_from_those_before(seed: int) -> None:
    x_TD = rand(seed, 12, 6)
    far_TT = distances(x_TD)
    before = set(kept(ToDRE(keep_tokens=1), sight(x_TD, (3, 4))))
    for count in range(2, 12):
        now = set(kept(ToDRE(keep_tokens=count), sight(x_TD, (3, 4))))
        assert before < now
        (new,) = now - before
        nearest_T = far_TT[:, sorted(before)].amin(1)
        assert float(nearest_T[new]) == pytest.approx(float(nearest_T.max()), abs=1e-4)
        before = now


def test_todre_keeps_no_duplicate_while_anything_else_is_left() -> None:
    x_TD = rand(0, 5, CHANNELS)[torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 1])]
    stays = kept(ToDRE(keep_tokens=5), sight(x_TD, (3, 4)))
    assert len({tuple(x_TD[place].tolist()) for place in stays}) == 5


def covered(rows_RT: Tensor, picked: tuple[int, ...] | list[int]) -> float:
    return float(rows_RT[:, list(picked)].amax(1).sum())


@given(seed=SEEDS, with_words=st.booleans())
@settings(max_examples=20)
def test_mmtok_covers_nearly_as_much_as_the_best_set_and_more_with_each_token(seed: int, with_words: bool) -> None:
    x_TD = rand(seed, 9, 6)
    seen = sight(x_TD, (3, 3), text_MD=rand(seed + 1, 3, 6) if with_words else None)
    rows_RT = MMTok().rows(seen, x_TD)
    assert rows_RT.shape == (12 if with_words else 9, 9)
    so_far = 0.0
    for keep in range(1, 5):
        reached = covered(rows_RT, kept(MMTok(keep_tokens=keep), seen))
        best = max(covered(rows_RT, picked) for picked in itertools.combinations(range(9), keep))
        assert reached >= (1.0 - 1.0 / math.e) * best - 1e-6
        assert reached >= so_far - 1e-6
        so_far = reached


def test_mmtok_keeps_what_the_question_is_about() -> None:
    # Twenty tokens of one kind, which cover each other, and four odd ones, each like one word.
    x_TD = torch.cat([rand(1, 1, CHANNELS) + 0.01 * rand(2, 20, CHANNELS), rand(3, 4, CHANNELS)])
    for odd in range(20, 24):
        asked = sight(x_TD, (4, 6), text_MD=x_TD[odd : odd + 1] + 0.01 * rand(4, 1, CHANNELS))
        assert odd in kept(MMTok(keep_tokens=2, frame_weight=0.1), asked)


def test_mmtok_compares_the_towers_features_where_it_has_them() -> None:
    features_TC = torch.eye(3).repeat_interleave(4, dim=0)  # three kinds, four of each
    stays = kept(MMTok(keep_tokens=3), sight(rand(5, 12, CHANNELS), (3, 4), features_TC=features_TC))
    assert sorted(place // 4 for place in stays) == [0, 1, 2]


def test_mmtok_with_no_weight_on_the_frame_still_covers_it_where_nothing_is_asked() -> None:
    seen = sight(rand(6, 12, CHANNELS), (3, 4))
    assert kept(MMTok(keep_tokens=5, frame_weight=0.0), seen) == kept(MMTok(keep_tokens=5), seen)


@given(seed=SEEDS, num_tokens=st.integers(2, 24), keep=st.integers(1, 24))
@settings(max_examples=60)
def test_merged_tokens_weigh_what_their_parts_weighed(seed: int, num_tokens: int, keep: int) -> None:
    x_TD = rand(seed, num_tokens, 6)
    merged = soft_matching(x_TD, keep)
    assert merged.x_KD.shape[0] == min(keep, num_tokens)
    assert float(merged.num_K.sum()) == num_tokens
    torch.testing.assert_close((merged.num_K[:, None] * merged.x_KD).sum(0), x_TD.sum(0), atol=1e-4, rtol=1e-4)
    assert float(merged.x_KD.norm(dim=-1).max()) <= float(x_TD.norm(dim=-1).max()) * (1.0 + 1e-5)


def test_tome_merges_the_most_similar_first() -> None:
    x_TD = rand(7, 12, CHANNELS)
    x_TD[4] = x_TD[9] + 0.01 * rand(8, CHANNELS)  # an even and an odd one, by far the most alike
    out = ToMe(keep_tokens=11).start().compress(sight(x_TD, (3, 4)))
    assert out.kept_T.tolist() == [place for place in range(12) if place != 4]
    torch.testing.assert_close(out.x_TD[8], (x_TD[4] + x_TD[9]) / 2)
    torch.testing.assert_close(out.x_TD[[0, 1, 2, 3, 9, 10]], x_TD[[0, 1, 2, 3, 10, 11]])


def test_tome_leaves_one_of_each_kind() -> None:
    kinds_KD = rand(9, 6, CHANNELS)
    out = ToMe(keep_tokens=6).start().compress(sight(kinds_KD.repeat_interleave(2, dim=0), (3, 4)))
    torch.testing.assert_close(out.x_TD, kinds_KD)


# a question


WORDS = rand(100, 4, CHANNELS)


def scene(**words_at: int) -> Tensor:
    """A plain background, and a word's own token where it is shown."""
    x_TD = 0.1 * rand(101, 24, CHANNELS)
    for word, place in words_at.items():
        x_TD[place] = WORDS[int(word[1:])]
    return x_TD


def watch(compressor: TemporalMerging, frames: list[Tensor], questions: list[Tensor]) -> list[list[int]]:
    run = compressor.start()
    seen = [
        sight(x_TD, (4, 6), at_s=float(i), text_MD=text_MD)
        for i, (x_TD, text_MD) in enumerate(zip(frames, questions, strict=True))
    ]
    return [run.compress(each).kept_T.tolist() for each in seen]


def test_what_the_question_selected_before_is_absorbed() -> None:
    question = WORDS[:1]
    still, moved, other = scene(w0=3, w2=20), scene(w0=15, w2=20), scene(w0=3, w2=11)
    counts = [
        len(stays) for stays in watch(TemporalMerging(keep_tokens=6), [still, still, moved, other], [question] * 4)
    ]
    # what is asked about moves: a new frame; something else moves: the first frame again
    assert counts == [6, 1, 6, 1]


def test_how_alike_selections_must_be_can_be_set() -> None:
    still = scene(w0=3, w2=20)
    noisy = still + 0.1 * rand(102, 24, CHANNELS)
    for like, num_kept in ((0.75, 1), (0.9999, 6)):
        stays = watch(TemporalMerging(keep_tokens=6, like=like), [still, noisy], [WORDS[:1]] * 2)
        assert [len(places) for places in stays] == [6, num_kept]


def test_an_absorbed_frame_leaves_the_floor_and_the_most_relevant_of_it() -> None:
    compressor = TemporalMerging(keep_tokens=6, at_most=Budget(floor_tokens=2))
    _, again = watch(compressor, [scene(w0=3, w1=17)] * 2, [WORDS[:2]] * 2)
    assert again == [3, 17]


def test_another_question_starts_anew_and_picks_other_tokens() -> None:
    x_TD = scene(w0=3, w1=17)
    first, second, again = watch(
        TemporalMerging(keep_tokens=4, relevant_share=1.0), [x_TD] * 3, [WORDS[:1], WORDS[1:2], WORDS[1:2]]
    )
    assert len(first) == len(second) == 4
    assert 3 in first and 17 in second and first != second
    assert again == [17]


def test_a_longer_question_is_another() -> None:
    stays = watch(TemporalMerging(keep_tokens=4), [scene(w0=3, w1=17)] * 3, [WORDS[:1], WORDS[:2], WORDS[:2]])
    assert [len(places) for places in stays] == [4, 4, 1]


def test_a_frame_that_stays_the_same_is_sent_again_in_time() -> None:
    stays = watch(TemporalMerging(keep_tokens=6, refresh_blocks=3), [scene(w0=3)] * 7, [WORDS[:1]] * 7)
    assert [len(places) for places in stays] == [6, 1, 1, 6, 1, 1, 6]


def test_what_is_relevant_stays_as_it_is_and_the_rest_is_merged() -> None:
    x_TD = scene(w0=3, w1=17)
    run = TemporalMerging(keep_tokens=4).start()
    out = run.compress(sight(x_TD, (4, 6), text_MD=WORDS[:2]))
    at = out.kept_T.tolist()
    torch.testing.assert_close(out.x_TD[[at.index(3), at.index(17)]], x_TD[[3, 17]])
    assert out.num_tokens == 4 and float(out.x_TD.norm(dim=-1).min()) < float(x_TD.norm(dim=-1).min())


def test_rows_of_the_past_are_bounded() -> None:
    frames = [rand(seed, 24, CHANNELS) for seed in range(12)]
    run = TemporalMerging(num_rows=3, like=1.0).start()
    held = []
    for i, x_TD in enumerate(frames):
        run.compress(sight(x_TD, (4, 6), at_s=float(i), text_MD=WORDS))
        held.append(run.num_bytes)
    assert held[2:] == [held[2]] * 10 and held[2] == WORDS.nbytes + 3 * 4 * 24 * 4


def test_without_a_question_it_says_so() -> None:
    with pytest.raises(ValueError, match="TemporalMerging needs a question"):
        TemporalMerging().start().compress(sight(scene(), (4, 6)))


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (UniformGrid, {"keep_tokens": 0}),
        (MMTok, {"frame_weight": -1.0}),
        (MMTok, {"frame_temperature": 0.0}),
        (MMTok, {"text_temperature": math.nan}),
        (VisionDrop, {"dominant_share": 1.5}),
        (HoloV, {"num_bands": -1}),
        (HoloV, {"variance_weight": -0.1}),
        (HiRED, {"whole_share": math.nan}),
        (HiRED, {"tiles_per_side": 0}),
        (HiPrune, {"anchor_share": -0.1}),
        (TemporalMerging, {"keep_tokens": 0}),
        (TemporalMerging, {"relevant_share": 2.0}),
        (TemporalMerging, {"like": 0.4}),
        (TemporalMerging, {"temperature": 0.0}),
        (TemporalMerging, {"num_rows": 0}),
        (TemporalMerging, {"refresh_blocks": 0}),
    ],
)
def test_settings_out_of_range_are_refused(method: Any, wrong: dict[str, float]) -> None:
    (name, value) = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name} must be .*; got {value}"):
        method(**wrong)

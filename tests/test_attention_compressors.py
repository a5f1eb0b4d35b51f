"""What the compressors that look at attention do of their own: their papers' promises, without their slips."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.encoders.compressors import Budget, Compressor
from millpond.encoders.compressors.attention import VTCCLS, FasterVLM, FoPru, VisionDrop
from millpond.encoders.compressors.attention_places import HiPrune, HiRED, HoloV, neighbours

from .plain_sights import CHANNELS, kept, largest, rand, shares, sight

SEEDS = st.integers(0, 2**31 - 1)


@given(seed=SEEDS, keep=st.integers(1, 23))
@settings(max_examples=30)
def test_fastervlm_keeps_what_cls_looks_at_most(seed: int, keep: int) -> None:
    cls_T = shares(seed, 24)
    assert kept(FasterVLM(keep_tokens=keep), sight(rand(0, 24, 4), (4, 6), cls_T=cls_T)) == largest(cls_T, keep)


def test_vtc_cls_lets_several_layers_vote() -> None:
    cls_T, middle_T, last_T = (torch.full((12,), 0.01) for _ in range(3))
    cls_T[3] = 0.5  # one layer's favourite
    for row_T in (cls_T, middle_T, last_T):
        row_T[7] = 0.4  # and what all of them like
    rows_RT = torch.stack([middle_T / middle_T.sum(), last_T / last_T.sum()])
    seen = sight(rand(0, 12, 4), (3, 4), cls_T=cls_T / cls_T.sum(), received_RT=rows_RT)
    assert (kept(FasterVLM(keep_tokens=1), seen), kept(VTCCLS(keep_tokens=1), seen)) == ([3], [7])


@given(seed=SEEDS, height=st.integers(2, 6), width=st.integers(1, 6), keep=st.integers(1, 36))
@settings(max_examples=60)
def test_fopru_keeps_the_best_tokens_or_the_best_whole_rows(seed: int, height: int, width: int, keep: int) -> None:
    num_places = height * width
    keep = min(keep, num_places - 1) or 1
    received_RT = shares(seed, 2, num_places)
    seen = sight(rand(0, num_places, 4), (height, width), received_RT=received_RT)
    assert kept(FoPru(keep_tokens=keep), seen) == largest(received_RT[-1], keep)
    stays = kept(FoPru(keep_tokens=keep, by_rows=True), seen)
    rows = largest(received_RT[-1].view(height, width).sum(-1), max(1, keep // width))
    if keep >= width:
        assert stays == [row * width + column for row in rows for column in range(width)]
    else:
        assert len(stays) == keep and {place // width for place in stays} == set(rows)


def test_fopru_fills_up_from_the_next_row_where_the_floor_asks_for_it() -> None:
    received_RT = torch.tensor([[1.0, 2, 3, 4], [9, 9, 9, 9], [5, 8, 7, 6]]).flatten().expand(2, -1)
    seen = sight(rand(0, 12, 4), (3, 4), received_RT=received_RT / received_RT.sum(-1, keepdim=True))
    row_wise = FoPru(keep_tokens=6, by_rows=True, at_most=Budget(floor_tokens=6))
    assert kept(row_wise, seen) == [4, 5, 6, 7, 9, 10]


@given(seed=SEEDS, keep=st.integers(1, 23), dominant_share=st.floats(0.0, 1.0))
@settings(max_examples=40)
def test_visiondrop_keeps_the_attended_as_they_are_and_never_lengthens_the_rest(
    seed: int, keep: int, dominant_share: float
) -> None:
    x_TD, received_RT = rand(seed, 24, 8), shares(seed + 1, 2, 24)
    compressor = VisionDrop(keep_tokens=keep, dominant_share=dominant_share)
    out = compressor.start().compress(sight(x_TD, (4, 6), received_RT=received_RT))
    assert out.num_tokens == keep
    as_it_was = {place: bool((out.x_TD[i] == x_TD[place]).all()) for i, place in enumerate(out.kept_T.tolist())}
    dominant = largest(received_RT[-1], max(1, round(dominant_share * keep)))
    assert all(as_it_was.get(place, False) for place in dominant)
    assert float(out.x_TD.norm(dim=-1).max()) <= float(x_TD.norm(dim=-1).max()) * (1.0 + 1e-5)


def test_visiondrop_merges_like_with_like() -> None:
    x_TD = torch.eye(2, CHANNELS).repeat(6, 1)  # two kinds by turns
    received_RT = torch.linspace(0.02, 0.01, 12).expand(2, -1)
    out = VisionDrop(keep_tokens=4, dominant_share=0.5).start().compress(sight(x_TD, (3, 4), received_RT=received_RT))
    torch.testing.assert_close(out.x_TD, x_TD[out.kept_T])  # a mean of equals is the same, not twice it


# attention and places


@given(
    seed=SEEDS,
    grid_hw=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    keep=st.integers(1, 48),
    num_bands=st.integers(0, 60),
)
@settings(max_examples=60)
def test_holov_spends_all_it_has_and_takes_the_most_attended_of_each_band(
    seed: int, grid_hw: tuple[int, int], keep: int, num_bands: int
) -> None:
    num_places = math.prod(grid_hw)
    keep = min(keep, num_places - 1)
    cls_T = shares(seed, num_places)
    holov = HoloV(keep_tokens=keep, num_bands=num_bands)
    stays = kept(holov, sight(rand(seed + 1, num_places, 4), grid_hw, cls_T=cls_T))
    assert len(stays) == keep
    bands = min(num_places, num_bands or max(1, int(1.78 * num_places / keep)))
    for band in torch.arange(num_places).tensor_split(bands):
        of_band = [place for place in stays if place in set(band.tolist())]
        assert of_band == sorted(band[place].item() for place in largest(cls_T[band], len(of_band)))


def test_holovs_bands_each_get_their_share() -> None:
    even_T = torch.full((24,), 1 / 24)
    x_TD = rand(0, 6, CHANNELS).repeat(4, 1)  # each row like the others
    assert [place // 6 for place in kept(HoloV(keep_tokens=8, num_bands=4), sight(x_TD, (4, 6), cls_T=even_T))] == (
        [0, 0, 1, 1, 2, 2, 3, 3]
    )
    # All attention in the last row: the others get nothing but for their variety, where that is made to count.
    last_T = torch.cat([torch.zeros(18), torch.full((6,), 1 / 6)])
    seen = sight(x_TD, (4, 6), cls_T=last_T)
    assert kept(HoloV(keep_tokens=6, num_bands=4, variance_weight=0.0), seen) == [18, 19, 20, 21, 22, 23]
    assert {place // 6 for place in kept(HoloV(keep_tokens=8, num_bands=4, variance_weight=4.0), seen)} == {0, 1, 2, 3}


@given(seed=SEEDS, keep=st.integers(1, 34), whole_share=st.floats(0.0, 1.0), tiles=st.integers(1, 9))
@settings(max_examples=60)
def test_hired_uses_its_whole_budget_and_takes_nothing_twice(
    seed: int, keep: int, whole_share: float, tiles: int
) -> None:
    cls_T, received_RT = shares(seed, 35), shares(seed + 1, 2, 35)
    hired = HiRED(keep_tokens=keep, whole_share=whole_share, tiles_per_side=tiles)
    stays = kept(hired, sight(rand(0, 35, 4), (5, 7), cls_T=cls_T, received_RT=received_RT))
    assert len(set(stays)) == keep
    assert set(largest(cls_T, round(whole_share * keep))) <= set(stays)


def test_hired_gives_to_the_tile_that_the_early_layer_sees() -> None:
    early_T = torch.zeros(6, 6)
    early_T[3:, :3] = 1 / 9  # bottom left
    cls_T = torch.zeros(6, 6)
    cls_T[:3, 3:] = 1 / 9  # top right
    received_RT = torch.stack([early_T.flatten(), torch.full((36,), 1 / 36)])
    seen = sight(rand(0, 36, 4), (6, 6), cls_T=cls_T.flatten(), received_RT=received_RT)
    # a quarter of the picture is what the early layer counts, and all of it lies in one tile
    tile_T = HiRED().tiles((6, 6))
    by_tile = [int(tile_T[place]) for place in kept(HiRED(keep_tokens=8, whole_share=0.75), seen)]
    assert [by_tile.count(tile) for tile in range(4)] == [0, 6, 2, 0]


def test_hireds_tiles_are_parts_of_the_grid() -> None:
    assert HiRED().tiles((3, 4)).view(3, 4).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]


@given(grid_hw=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=SEEDS)
@settings(max_examples=60)
def test_neighbours_touch_and_never_wrap(grid_hw: tuple[int, int], seed: int) -> None:
    height, width = grid_hw
    mask_T = rand(seed, height * width) > 0.7
    marked = [divmod(place, width) for place in mask_T.nonzero().flatten().tolist()]
    touching = [
        any(abs(row - y) + abs(column - x) == 1 for y, x in marked) for row in range(height) for column in range(width)
    ]
    assert neighbours(mask_T, grid_hw).tolist() == touching


def test_hiprune_keeps_the_anchor_what_touches_it_and_registers() -> None:
    objects_T, whole_T = torch.full((20,), 0.01), torch.linspace(0.01, 0.02, 20)
    objects_T[9] = 1.0  # 4 rows of 5: the end of the second row; 10 is the start of the third
    seen = sight(rand(0, 20, 4), (4, 5), received_RT=torch.stack([objects_T, whole_T]))
    assert kept(HiPrune(keep_tokens=6), seen) == [4, 8, 9, 14, 18, 19]


@given(seed=SEEDS, keep=st.integers(1, 29), anchor_share=st.floats(0.0, 1.0))
@settings(max_examples=60)
def test_hiprune_puts_anchors_first_then_buffers_then_registers(seed: int, keep: int, anchor_share: float) -> None:
    objects_T, whole_T = shares(seed, 2, 30)
    seen = sight(rand(0, 30, 4), (5, 6), received_RT=torch.stack([objects_T, whole_T]))
    stays = set(kept(HiPrune(keep_tokens=keep, anchor_share=anchor_share), seen))
    assert len(stays) == keep
    anchors = set(largest(objects_T, max(1, round(anchor_share * keep / 5))))
    assert anchors <= stays
    mask_T = torch.zeros(30, dtype=torch.bool)
    mask_T[sorted(anchors)] = True
    buffers = set(neighbours(mask_T, (5, 6)).nonzero().flatten().tolist()) - anchors
    if not buffers <= stays:
        assert stays <= anchors | buffers
    rest = stays - anchors - buffers
    others = sorted(set(range(30)) - anchors - buffers)
    assert rest == {others[i] for i in largest(whole_T[others], len(rest))}


@pytest.mark.parametrize("method", [FasterVLM, VTCCLS, FoPru, VisionDrop, HoloV, HiRED, HiPrune])
def test_attention_that_is_not_there_is_asked_for(method: type[Compressor]) -> None:
    with pytest.raises(ValueError, match=f"{method.__name__} needs .* does not offer"):
        method().start().compress(sight(rand(0, 24, 4), (4, 6)))

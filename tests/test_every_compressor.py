"""What every compressor promises. A new row needs a line in SETTINGS, nothing else."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.encoders import FrameTokens
from millpond.encoders.compressors import COMPRESSORS, Budget, Compressor, NoCompressor, check_compressor
from millpond.encoders.compressors.attention import VTCCLS, FasterVLM, FoPru, VisionDrop
from millpond.encoders.compressors.attention_places import HiPrune, HiRED, HoloV
from millpond.encoders.compressors.base import EVIDENCE
from millpond.encoders.compressors.covering import MMTok, ToDRE, ToMe, UniformGrid
from millpond.encoders.compressors.temporal import TemporalDrop
from millpond.encoders.compressors.temporal_anchor import STCPruner
from millpond.encoders.compressors.temporal_outlier import VidCom2
from millpond.encoders.compressors.temporal_pixels import DifferencePruning
from millpond.encoders.compressors.temporal_progressive import Progressive
from millpond.encoders.compressors.temporal_split import StaticDynamic
from millpond.encoders.compressors.text import TemporalMerging
from millpond.encoders.sight import Need, Sight

from .method_docs import missing_from_docs
from .sights import FAMILIES, copied, film, same_tokens, sight_of

# Shapes: T tokens, D channels of the language model.


class Row(NamedTuple):
    """A row's settings, and what it promises besides what all do.

    is_pick: keep_tokens of a frame, whatever came before; all of them: all stay as they are.
    falls_silent: a picture shown again and again costs the floor, but for its refresh.
    is_placeless: it looks at tokens and scores, not at where they lie.
    """

    recipes: tuple[Compressor, ...]
    is_pick: bool = False
    falls_silent: bool = False
    is_placeless: bool = False


SETTINGS: dict[str, Row] = {
    "none": Row((NoCompressor(),)),
    "uniform": Row((UniformGrid(keep_tokens=7),), is_pick=True),
    "temporal_drop": Row((TemporalDrop(), TemporalDrop(keep_tokens=7, refresh_blocks=5)), falls_silent=True),
    "static_dynamic": Row((StaticDynamic(keep_tokens=7),), is_pick=True, is_placeless=True),
    "stc_pruner": Row((STCPruner(keep_tokens=7, window_blocks=2),), is_pick=True, is_placeless=True),
    "vidcom2": Row((VidCom2(keep_tokens=7),), is_pick=True, is_placeless=True),
    "difference_pruning": Row(
        (DifferencePruning(), DifferencePruning(keep_tokens=7)), falls_silent=True, is_placeless=True
    ),
    "progressive": Row((Progressive(keep_tokens=7),), falls_silent=True),
    "temporal_merging": Row((TemporalMerging(keep_tokens=7),)),
    "holov": Row((HoloV(keep_tokens=7),), is_pick=True),
    "hiprune": Row((HiPrune(keep_tokens=7),), is_pick=True),
    "hired": Row((HiRED(keep_tokens=7),), is_pick=True),
    "fopru": Row((FoPru(keep_tokens=7), FoPru(keep_tokens=7, by_rows=True)), is_pick=True),
    "fastervlm": Row((FasterVLM(keep_tokens=7),), is_pick=True, is_placeless=True),
    "vtc_cls": Row((VTCCLS(keep_tokens=7),), is_pick=True, is_placeless=True),
    "visiondrop": Row((VisionDrop(keep_tokens=7),), is_pick=True),
    "todre": Row((ToDRE(keep_tokens=7),), is_pick=True, is_placeless=True),
    "mmtok": Row((MMTok(keep_tokens=7),), is_pick=True, is_placeless=True),
    "tome": Row((ToMe(keep_tokens=7),), is_pick=True),
}


def params(*wanted: str) -> list[object]:
    rows = {name: row for name, row in SETTINGS.items() if all(getattr(row, what) for what in wanted)}
    return [pytest.param(one, id=f"{name}-{i}") for name, row in rows.items() for i, one in enumerate(row.recipes)]


EVERY, PICKS, SILENT = params(), params("is_pick"), params("falls_silent")
PLACELESS = params("is_placeless")
# A budget cannot hold for one that keeps everything.
BOUNDED = [param for param in EVERY if param.id != "none-0"]  # type: ignore[attr-defined]


def run(recipe: Compressor, blocks: list[Sight]) -> list[FrameTokens]:
    state = recipe.start()
    return [state.compress(block) for block in blocks]


def num_grid(tokens: FrameTokens) -> int:
    """Tokens of the grid, without what a family appends."""
    return int((tokens.kept_T < tokens.grid_hw[0] * tokens.grid_hw[1]).sum())


def test_every_row_has_settings() -> None:
    assert set(SETTINGS) == set(COMPRESSORS)
    for name, row in SETTINGS.items():
        assert all(type(recipe) is COMPRESSORS[name] for recipe in row.recipes)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_says_where_it_comes_from(name: str) -> None:
    assert missing_from_docs(COMPRESSORS[name]) == []


@pytest.mark.parametrize("name", COMPRESSORS)
def test_can_be_made_without_a_setting_and_is_one_value(name: str) -> None:
    assert COMPRESSORS[name]() == COMPRESSORS[name]()
    assert hash(COMPRESSORS[name]()) == hash(COMPRESSORS[name]())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recipe", EVERY)
def test_some_of_the_tokens_stay_with_all_that_is_theirs(recipe: Compressor, family: str) -> None:
    state = recipe.start()
    for sight in film(family, noise=0.05):
        before, given_ones = copied(sight), sight.tokens
        kept = state.compress(sight)
        assert all(torch.equal(was, now) for was, now in zip(before, copied(sight), strict=True)), "input written"
        assert 1 <= kept.num_tokens <= given_ones.num_tokens
        at = torch.searchsorted(given_ones.kept_T, kept.kept_T)
        assert torch.equal(given_ones.kept_T[at], kept.kept_T)
        assert torch.equal(given_ones.pos_3T[:, at], kept.pos_3T)
        assert (kept.grid_hw, kept.advance, kept.span) == (given_ones.grid_hw, given_ones.advance, given_ones.span)
        assert kept.x_TD.dtype == given_ones.x_TD.dtype
        assert bool(kept.x_TD.isfinite().all())
        assert (kept.deep_ETD is None) == (given_ones.deep_ETD is None)
        if kept.deep_ETD is not None and given_ones.deep_ETD is not None:
            assert torch.equal(given_ones.deep_ETD[:, at], kept.deep_ETD)
        if family == "llava_onevision":
            assert int(kept.kept_T[-1]) == int(given_ones.kept_T[-1]), "the newline is gone"
            assert torch.equal(kept.x_TD[-1], given_ones.x_TD[-1])


@pytest.mark.parametrize("recipe", EVERY)
def test_what_is_kept_is_no_view_of_what_came(recipe: Compressor) -> None:
    sight = sight_of()
    kept = recipe.start().compress(sight)
    was = kept.x_TD.clone()
    sight.tokens.x_TD.zero_()
    assert torch.equal(kept.x_TD, was)


@pytest.mark.parametrize("recipe", EVERY)
def test_state_is_its_own_too(recipe: Compressor) -> None:
    """A caller that reuses its buffer changes nothing of what the stream remembers."""
    clean, reused = recipe.start(), recipe.start()
    for sight in film(num_blocks=5, noise=0.05):
        wanted = clean.compress(sight)
        copy = replace(sight, tokens=replace(sight.tokens, x_TD=sight.tokens.x_TD.clone()))
        assert same_tokens(reused.compress(copy), wanted)
        copy.tokens.x_TD.fill_(7.0)


@pytest.mark.parametrize("recipe", EVERY)
def test_streams_do_not_touch_each_other(recipe: Compressor) -> None:
    films = [film("qwen3_vl", 7, seed=seed, noise=0.05) for seed in range(3)]
    alone = [run(recipe, blocks) for blocks in films]
    states = [recipe.start() for _ in films]
    for number in range(7):
        for which in (2, 0, 1):
            assert same_tokens(states[which].compress(films[which][number]), alone[which][number])


@pytest.mark.parametrize("recipe", EVERY)
def test_a_stream_can_be_saved_and_go_on(recipe: Compressor) -> None:
    blocks = film("qwen3_vl", 8, noise=0.05)
    wanted, state = run(recipe, blocks), recipe.start()
    for sight in blocks[:4]:
        state.compress(sight)
    again = copy.deepcopy(state)
    for sight, tokens in zip(blocks[4:], wanted[4:], strict=True):
        assert same_tokens(again.compress(sight), tokens)


@pytest.mark.parametrize("recipe", PLACELESS)
def test_where_a_token_lies_does_not_matter(recipe: Compressor) -> None:
    """Those that look at tokens and scores alone keep the same ones of a shuffled picture."""
    order_T = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    plain, shuffled = recipe.start(), recipe.start()
    for sight in film(num_blocks=6, noise=0.05):
        kept = set(plain.compress(sight).kept_T.tolist())
        tokens = replace(sight.tokens, x_TD=sight.tokens.x_TD[order_T])
        evidence = {name: getattr(sight, name)[..., order_T] for name in ("change_T", "cls_T", "received_RT")}
        evidence["features_TC"] = sight.features_TC[order_T]
        other = shuffled.compress(replace(sight, tokens=tokens, **evidence))
        assert {int(order_T[place]) for place in other.kept_T} == kept


@pytest.mark.parametrize("recipe", PICKS)
def test_room_for_all_keeps_all(recipe: Compressor) -> None:
    open_wide = replace(recipe, keep_tokens=10_000)  # type: ignore[call-arg]
    for sight, kept in zip(film("qwen3_vl"), run(open_wide, film("qwen3_vl")), strict=True):
        assert same_tokens(kept, sight.tokens)


@pytest.mark.parametrize("recipe", PICKS)
@pytest.mark.parametrize("keep", [1, 2, 5, 23])
def test_a_pick_keeps_no_more_than_it_says(recipe: Compressor, keep: int) -> None:
    # VidCom2 moves up to half of its count from one frame to another.
    most = math.ceil(1.5 * keep) if isinstance(recipe, VidCom2) else keep
    for kept in run(replace(recipe, keep_tokens=keep), film(num_blocks=5)):  # type: ignore[call-arg]
        assert 1 <= kept.num_tokens <= most


@pytest.mark.parametrize("recipe", BOUNDED)
@pytest.mark.parametrize("family", ["smolvlm", "llava_onevision"])
@settings(max_examples=10)
@given(
    tokens_per_s=st.floats(0.5, 80.0),
    floor_tokens=st.integers(1, 30),
    burst_s=st.floats(0.1, 4.0),
    seed=st.integers(0, 9),
)
def test_keeps_to_its_budget_and_its_floor(
    recipe: Compressor, family: str, tokens_per_s: float, floor_tokens: int, burst_s: float, seed: int
) -> None:
    at_most = Budget(tokens_per_s=tokens_per_s, floor_tokens=floor_tokens, burst_s=burst_s)
    blocks = film(family, 8, (3, 4), seed=seed, noise=0.1)
    kept = run(replace(recipe, at_most=at_most), blocks)
    assert all(num_grid(tokens) >= min(floor_tokens, 12) for tokens in kept)
    extra = 1 if family == "llava_onevision" else 0
    left = at_most.start()
    for tokens in kept:
        assert tokens.num_tokens <= max(left.grant(tokens.span.start_s), floor_tokens + extra)
        left.spend(tokens.span.start_s, tokens.num_tokens)
    for first, last in itertools.combinations_with_replacement(range(len(kept)), 2):
        long_s = kept[last].span.start_s - kept[first].span.start_s
        spent = sum(tokens.num_tokens for tokens in kept[first : last + 1])
        floors = (last - first + 1) * (floor_tokens + extra)
        assert spent <= tokens_per_s * (long_s + burst_s) + floors + 1e-6


@pytest.mark.parametrize("recipe", SILENT)
def test_a_picture_shown_again_falls_to_the_floor(recipe: Compressor) -> None:
    recipe = replace(recipe, at_most=Budget(floor_tokens=2))
    if hasattr(recipe, "refresh_blocks"):
        recipe = replace(recipe, refresh_blocks=1000)
    counts = [tokens.num_tokens for tokens in run(recipe, film(num_blocks=12, is_moving=False))]
    assert counts[-1] == 2
    assert counts[0] > 2
    assert sum(counts) <= 24 + 2 * 11, "more was said than there is"


@pytest.mark.parametrize("recipe", SILENT)
def test_noise_is_not_news(recipe: Compressor) -> None:
    if hasattr(recipe, "refresh_blocks"):
        recipe = replace(recipe, refresh_blocks=1000)
    blocks = film(num_blocks=24, noise=0.7, is_moving=False, num_channels=64)
    late = [tokens.num_tokens for tokens in run(recipe, blocks)[12:]]
    assert sum(late) <= 0.15 * 24 * len(late), late


@pytest.mark.parametrize("recipe", SILENT)
def test_what_moves_is_seen_through_the_noise(recipe: Compressor) -> None:
    for number, kept in enumerate(run(recipe, film(num_blocks=20, noise=0.1, num_channels=64))):
        if number >= 12:
            assert number % 24 in kept.kept_T.tolist()


@pytest.mark.parametrize("recipe", EVERY)
def test_state_stays_small(recipe: Compressor) -> None:
    state, held = recipe.start(), []
    for sight in film(num_blocks=80, grid_hw=(3, 4), noise=0.2, num_channels=16):
        state.compress(sight)
        held.append(state.num_bytes)
    # One map of features, its mask and ages; or as many means or rows as a window holds.
    assert max(held[40:]) == max(held)
    assert max(held) <= 40 * 12 * 16 * 4


@pytest.mark.parametrize("recipe", EVERY)
def test_a_change_of_size_starts_anew(recipe: Compressor) -> None:
    small, large = film(num_blocks=3, noise=0.05), film(num_blocks=3, grid_hw=(5, 3), seed=5, start_s=90.0)
    state = recipe.start()
    for sight in small:
        state.compress(sight)
    for sight, wanted in zip(large, run(recipe, large), strict=True):
        assert same_tokens(state.compress(sight), wanted)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recipe", EVERY)
def test_a_grid_of_one_token(recipe: Compressor, family: str) -> None:
    for sight, kept in zip(film(family, 3, (1, 1)), run(recipe, film(family, 3, (1, 1))), strict=True):
        assert kept.kept_T.tolist() == sight.tokens.kept_T.tolist()


@pytest.mark.parametrize("fill", [0.0, 1.0, 1e30])
@pytest.mark.parametrize("recipe", EVERY)
def test_tokens_that_are_all_alike(recipe: Compressor, fill: float) -> None:
    blocks = [sight_of(x_TD=torch.full((24, 32), fill), at_s=float(i)) for i in range(3)]
    for kept in run(recipe, blocks):
        assert 1 <= kept.num_tokens <= 24
        # Mixes of equal tokens are that token, but for rounding.
        assert torch.allclose(kept.x_TD, torch.full_like(kept.x_TD, fill), rtol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("recipe", EVERY)
def test_features_that_are_no_numbers_are_refused_and_forgotten(recipe: Compressor, bad: float) -> None:
    blocks = film(num_blocks=4, noise=0.05)
    wanted = run(recipe, blocks)
    state = recipe.start()
    for sight, tokens in zip(blocks, wanted, strict=True):
        x_TD = sight.tokens.x_TD.clone()
        x_TD[3, 5] = bad
        with pytest.raises(ValueError, match=r"1 values of x_TD are not finite at Span\(\d"):
            state.compress(replace(sight, tokens=replace(sight.tokens, x_TD=x_TD)))
        assert same_tokens(state.compress(sight), tokens)


@pytest.mark.parametrize("recipe", EVERY)
def test_evidence_that_is_no_number_is_refused_where_it_is_looked_at(recipe: Compressor) -> None:
    for need in recipe.needs | recipe.uses:
        field = EVIDENCE[need]
        sight = sight_of()
        values = getattr(sight, field).clone()
        values.view(-1)[0] = math.nan
        with pytest.raises(ValueError, match=f"1 values of {field} are not finite"):
            recipe.start().compress(replace(sight, **{field: values}))


@pytest.mark.parametrize("recipe", EVERY)
def test_keeps_in_bfloat16_what_it_keeps_in_float32(recipe: Compressor) -> None:
    same = total = 0
    # Rounded first, so that both see the same values; what differs is arithmetic alone.
    blocks = film(num_blocks=6, noise=0.05, dtype=torch.bfloat16)
    fine = [replace(one, tokens=replace(one.tokens, x_TD=one.tokens.x_TD.float())) for one in blocks]
    for rough, exact in zip(run(recipe, blocks), run(recipe, fine), strict=True):
        kept, wanted = set(rough.kept_T.tolist()), set(exact.kept_T.tolist())
        same, total = same + len(kept & wanted), total + len(kept | wanted)
        assert rough.x_TD.dtype == torch.bfloat16
    assert same >= 0.95 * total


@pytest.mark.parametrize("recipe", EVERY)
def test_rounding_to_bfloat16_changes_little(recipe: Compressor) -> None:
    same = total = 0
    for rough, exact in zip(
        run(recipe, film(num_blocks=6, noise=0.05, dtype=torch.bfloat16)),
        run(recipe, film(num_blocks=6, noise=0.05)),
        strict=True,
    ):
        kept, wanted = set(rough.kept_T.tolist()), set(exact.kept_T.tolist())
        same, total = same + len(kept & wanted), total + len(kept | wanted)
    assert same >= 0.8 * total


@pytest.mark.parametrize("recipe", EVERY)
def test_says_what_it_lacks(recipe: Compressor) -> None:
    name = type(recipe).__name__
    for need in recipe.needs:
        with pytest.raises(ValueError, match=f"{name} needs {need.value.split('[')[0]}"):
            check_compressor(recipe, frozenset(Need) - {need}, "this model")
        with pytest.raises(ValueError, match=f"{name} needs"):
            recipe.start().compress(replace(sight_of(), **{EVIDENCE[need]: None}))
    check_compressor(recipe, frozenset(Need), "this model")
    # What it only uses may be missing.
    rest = {field: None for need, field in EVIDENCE.items() if need not in recipe.needs}
    for sight in film(num_blocks=3):
        kept = recipe.start().compress(replace(sight, **rest))
        assert 1 <= kept.num_tokens <= 24


@pytest.mark.parametrize("recipe", EVERY)
def test_part_of_a_grid_is_refused(recipe: Compressor) -> None:
    sight = sight_of()
    part = recipe.start().compress(sight) if not isinstance(recipe, NoCompressor) else None
    if part is not None and part.num_tokens < 24:
        with pytest.raises(ValueError, match="compresses whole grids, once; got FrameTokens"):
            recipe.start().compress(replace(sight, tokens=part))


def test_one_that_looks_ahead_is_refused() -> None:
    class Ahead(NoCompressor):
        look_ahead_frames = 3

    with pytest.raises(ValueError, match="Ahead wants to see 3 later frames first"):
        check_compressor(Ahead(), frozenset(Need), "a live stream")


def test_none_keeps_all_and_refuses_a_limit() -> None:
    for sight, kept in zip(film("qwen3_vl"), run(NoCompressor(), film("qwen3_vl")), strict=True):
        assert same_tokens(kept, sight.tokens)
    with pytest.raises(ValueError, match="no compressor can keep to"):
        NoCompressor(at_most=Budget(tokens_per_s=5.0))


@pytest.mark.parametrize("recipe", EVERY)
def test_wrong_settings_are_refused(recipe: Compressor) -> None:
    if hasattr(recipe, "keep_tokens"):
        with pytest.raises(ValueError, match=r"must be at least 1.*got .*0"):
            replace(recipe, keep_tokens=0)

"""The primitives that compressors are made of: against their formulas, and at their edges."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from millpond.encoders.compressors.budgets import (
    Budget,
    bonus_share,
    capped_count,
    mass_count,
    proportional_counts,
    uniform_counts,
)
from millpond.encoders.compressors.mergers import nearest_centre, soft_matching, static_mean
from millpond.encoders.compressors.picks import (
    coverage,
    density_peaks,
    diverse,
    farthest_first,
    over_threshold,
    strided_grid,
    topk,
)
from millpond.encoders.compressors.scorers import (
    cls_share,
    cosines,
    moved_average,
    novelty,
    outlier,
    pixel_change,
    received,
    steadiest_channels,
    text_relevance,
    unit,
    value_weighted,
    virtual_cls,
)

# Shapes: T tokens, D channels, R rows to be covered.


def tokens(num_tokens: int, num_channels: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(num_tokens, num_channels, generator=torch.Generator().manual_seed(seed))


def scores(x_TD: Tensor) -> Tensor:
    return x_TD.float().abs().sum(-1)


PICKS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "topk": lambda x, k: topk(scores(x), k),
    "over_threshold": lambda x, k: over_threshold(scores(x), 0.5, min(k, 1), k),
    "strided_grid": lambda x, k: strided_grid((1, x.shape[0]), k),
    "farthest_first": farthest_first,
    "farthest_first_enough": lambda x, k: farthest_first(x, k, enough=0.3, least=min(k, 2)),
    "coverage": lambda x, k: coverage(cosines(x, x).softmax(-1), k),
    "diverse": lambda x, k: diverse(x, scores(x), k),
    "density_peaks": density_peaks,
}
FULL = sorted(set(PICKS) - {"over_threshold", "farthest_first_enough"})
HARD = {
    "one token": tokens(1),
    "random": tokens(13),
    "equal": torch.ones(6, 8),
    "zero": torch.zeros(5, 8),
    "some zero": torch.cat([torch.zeros(3, 8), tokens(4)]),
    "twice each": tokens(5).repeat(2, 1),
    "more than channels": tokens(30, 3),
    "huge": tokens(7) * 1e30,
    "tiny": tokens(7) * 1e-30,
    "bfloat16": tokens(9).bfloat16(),
}


@pytest.mark.parametrize("hard", HARD)
@pytest.mark.parametrize("name", PICKS)
def test_every_pick_gives_increasing_indices_and_no_more_than_asked(name: str, hard: str) -> None:
    x_TD = HARD[hard]
    for count in (0, 1, 2, 5, x_TD.shape[0], x_TD.shape[0] + 3):
        before = x_TD.clone()
        index = PICKS[name](x_TD, count)
        wanted = min(count, x_TD.shape[0])
        assert index.dtype == torch.int64
        assert index.shape[0] == wanted if name in FULL else index.shape[0] <= wanted
        assert bool((index[1:] > index[:-1]).all())
        assert index.numel() == 0 or (0 <= int(index[0]) and int(index[-1]) < x_TD.shape[0])
        assert torch.equal(PICKS[name](x_TD, count), index)
        assert torch.equal(x_TD, before)


@pytest.mark.parametrize("name", [name for name in FULL if name != "strided_grid"])
def test_more_room_keeps_what_less_room_kept(name: str) -> None:
    for count in range(1, 13):
        assert set(PICKS[name](tokens(13), count).tolist()) <= set(PICKS[name](tokens(13), count + 1).tolist())


def test_topk_gives_ties_to_the_first() -> None:
    assert topk(torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0]), 3).tolist() == [0, 1, 3]


def test_over_threshold_has_a_floor_and_a_cap() -> None:
    score_T = torch.tensor([0.1, 0.9, 0.5, 0.8])
    assert over_threshold(score_T, 0.6, 1, 4).tolist() == [1, 3]
    assert over_threshold(score_T, 0.6, 3, 4).tolist() == [1, 2, 3]
    assert over_threshold(score_T, 0.0, 1, 2).tolist() == [1, 3]


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 400))
def test_strided_grid_gives_just_as_many_and_spreads_them(height: int, width: int, count: int) -> None:
    index = strided_grid((height, width), count)
    assert index.shape[0] == min(count, height * width)
    # From anywhere it is not far to a kept one.
    rows, columns = torch.arange(height * width) // width, torch.arange(height * width) % width
    far = torch.maximum((rows[:, None] - rows[index]).abs(), (columns[:, None] - columns[index]).abs())
    assert int(far.amin(1).max()) <= 2 * math.ceil(math.sqrt(height * width / index.shape[0]))


def test_strided_grid_is_a_grid() -> None:
    assert strided_grid((4, 4), 4).tolist() == [5, 7, 13, 15]
    assert strided_grid((2, 6), 3).tolist() == [7, 9, 11]


def greedy(gain: Callable[[list[int], int], float], num_all: int, count: int) -> list[int]:
    """What each greedy pick comes to, one candidate at a time."""
    picked: list[int] = []
    for _ in range(count):
        rest = [i for i in range(num_all) if i not in picked]
        picked.append(max(rest, key=lambda i: (gain(picked, i), -i)))
    return sorted(picked)


def test_farthest_first_is_greedy_max_min() -> None:
    x_TD = tokens(17)
    apart = (1.0 - cosines(x_TD, x_TD)).tolist()
    first = (unit(x_TD) @ unit(x_TD.mean(0))).argmin().item()

    def gain(picked: list[int], i: int) -> float:
        return min(apart[i][j] for j in picked) if picked else float(i == first)

    assert farthest_first(x_TD, 6).tolist() == greedy(gain, 17, 6)


def test_farthest_first_starts_from_what_is_kept_elsewhere_and_stops_at_enough() -> None:
    x_TD = torch.eye(8)
    nearest_T = torch.tensor([0.9, 0.0, 0.3, 0.0, 0.0, 0.8, 0.0, 0.0])
    assert farthest_first(x_TD, 2, nearest_T).tolist() == [0, 5]
    assert farthest_first(x_TD, 8, nearest_T, enough=0.2).tolist() == [0, 2, 5]
    assert farthest_first(x_TD, 8, nearest_T, enough=0.2, least=4).tolist() == [0, 1, 2, 5]
    assert farthest_first(x_TD, 8, torch.zeros(8), enough=0.2).tolist() == [0]


def test_coverage_is_greedy_facility_location() -> None:
    rows_RT = torch.rand(9, 12, generator=torch.Generator().manual_seed(1))
    table = rows_RT.tolist()

    def gain(picked: list[int], i: int) -> float:
        return sum(max(0.0, row[i] - max((row[j] for j in picked), default=0.0)) for row in table)

    assert coverage(rows_RT, 5).tolist() == greedy(gain, 12, 5)


def test_diverse_is_the_greedy_mode_of_the_determinant() -> None:
    x_TD, relevance_T = tokens(10), torch.rand(10, generator=torch.Generator().manual_seed(2)) + 0.1
    kernel = (relevance_T[:, None] * cosines(x_TD, x_TD) * relevance_T).double()

    def gain(picked: list[int], i: int) -> float:
        some = torch.tensor([*picked, i])
        return float(torch.det(kernel[some][:, some]))

    assert diverse(x_TD, relevance_T, 5).tolist() == greedy(gain, 10, 5)


def test_density_peaks_are_the_middles_of_clusters() -> None:
    around = torch.tensor([[0.0, 0.0], [0.1, 0.0], [-0.1, 0.0], [0.0, 0.1], [0.0, -0.1]])
    x_TD = torch.cat([around, around + 5.0, around - 7.0])
    assert density_peaks(x_TD, 3, num_neighbours=4).tolist() == [0, 5, 10]


def test_density_peaks_follow_their_formula() -> None:
    x_TD, neighbours = tokens(14), 4
    d = [[float((a - b).norm()) / 8**0.5 for b in x_TD] for a in x_TD]
    rho = [math.exp(-sum(sorted(row)[i + 1] ** 2 for i in range(neighbours)) / neighbours) for row in d]
    delta = [
        min((d[i][j] for j in range(14) if rho[j] > rho[i]), default=max(max(row) for row in d)) for i in range(14)
    ]
    wanted = sorted(sorted(range(14), key=lambda i: -rho[i] * delta[i])[:5])
    assert density_peaks(x_TD, 5, neighbours).tolist() == wanted


def test_novelty_is_one_minus_cosine_and_zero_for_equals() -> None:
    x_TD, y_TD = tokens(20), tokens(20, seed=1)
    assert torch.allclose(novelty(x_TD, y_TD), 1.0 - torch.cosine_similarity(x_TD, y_TD), atol=1e-6)
    assert torch.equal(novelty(x_TD, x_TD), torch.zeros(20))
    assert torch.equal(novelty(torch.zeros(2, 8), torch.zeros(2, 8)), torch.zeros(2))
    assert torch.equal(novelty(torch.zeros(2, 8), torch.ones(8)), torch.ones(2))
    assert torch.allclose(novelty(x_TD * 1e30, x_TD * 1e-30), torch.zeros(20), atol=1e-6)
    assert torch.allclose(novelty(x_TD, -x_TD), torch.full((20,), 2.0))


def test_outlier_sums_its_kernels() -> None:
    x_TD = unit(tokens(6))
    centre_D = x_TD.mean(0)
    wanted = [
        -sum(math.exp(-float((row - centre_D).square().sum()) / (2 * a)) for a in (1 / 8, 1 / 4, 1 / 2, 1, 2))
        for row in x_TD
    ]
    assert torch.allclose(outlier(x_TD, centre_D), torch.tensor(wanted))


def test_virtual_cls_is_the_mean_query() -> None:
    q_THC, k_THC = tokens(10, 12).view(10, 3, 4), tokens(10, 12, seed=1).view(10, 3, 4)
    wanted = sum(torch.softmax(k_THC[:, h] @ q_THC[:, h].mean(0) / 2.0, 0) for h in range(3)) / 3
    assert torch.allclose(virtual_cls(q_THC, k_THC), torch.as_tensor(wanted), atol=1e-6)
    assert float(virtual_cls(q_THC, k_THC).sum()) == pytest.approx(1.0)


def test_shares_of_attention() -> None:
    attention_HQT = tokens(4 * 5, 7).softmax(-1).view(4, 5, 7)
    assert torch.allclose(received(attention_HQT), attention_HQT.mean((0, 1)))
    # Under a causal mask the first token is seen by all queries, the last by one: the mean is over those that see it.
    causal_1QT = torch.ones(3, 3).tril()[None] / torch.tensor([1.0, 2.0, 3.0])[None, :, None]
    counted_T = received(causal_1QT, torch.tensor([3, 2, 1]))
    assert counted_T.tolist() == pytest.approx([(1 + 1 / 2 + 1 / 3) / 3, (1 / 2 + 1 / 3) / 2, 1 / 3])
    assert float(cls_share(attention_HQT[:, 0]).sum()) == pytest.approx(1.0)
    assert cls_share(torch.zeros(2, 4)).tolist() == [0.25] * 4


def test_smaller_scorers() -> None:
    x_TD = tokens(5)
    assert torch.allclose(text_relevance(x_TD, x_TD[:2]), cosines(x_TD, x_TD[:2]).mean(-1))
    assert float(text_relevance(x_TD, x_TD[:2], temperature=0.1).sum()) == pytest.approx(1.0)
    assert value_weighted(torch.tensor([1.0, 2.0]), torch.tensor([[1.0, -3.0], [0.0, 0.5]])).tolist() == [4.0, 1.0]
    assert pixel_change(torch.tensor([[1.0, 5.0]]), torch.tensor([[2.0, 2.0]])).tolist() == [2.0]
    assert moved_average(None, torch.ones(2), 0.1).tolist() == [1.0, 1.0]
    assert moved_average(torch.zeros(2), torch.ones(2), 0.25).tolist() == [0.25, 0.25]
    assert steadiest_channels(torch.tensor([3.0, 1.0, 2.0, 1.0]), 0.5).tolist() == [False, True, False, True]
    assert steadiest_channels(torch.tensor([3.0]), 0.1).tolist() == [True]


@pytest.mark.parametrize("hard", HARD)
@pytest.mark.parametrize("count", [1, 2, 5, 50])
def test_mergers_are_convex_and_account_for_every_token(hard: str, count: int) -> None:
    x_TD = HARD[hard]
    low, high = x_TD.float().amin(0), x_TD.float().amax(0)
    slack = 1e-5 * x_TD.float().abs().amax() + 1e-38
    for merged in (soft_matching(x_TD, count), nearest_centre(x_TD, topk(scores(x_TD), count))):
        assert merged.x_KD.shape == (min(count, x_TD.shape[0]), x_TD.shape[1])
        assert bool((merged.index_K[1:] > merged.index_K[:-1]).all())
        assert int(merged.num_K.sum()) == x_TD.shape[0]
        assert bool((merged.x_KD >= low - slack).all() and (merged.x_KD <= high + slack).all())


def test_soft_matching_keeps_the_sum() -> None:
    x_TD = tokens(21)
    merged = soft_matching(x_TD, 4)
    assert torch.allclose((merged.x_KD * merged.num_K[:, None]).sum(0), x_TD.sum(0), atol=1e-4)


def test_soft_matching_joins_the_most_alike_first() -> None:
    x_TD = torch.eye(6)
    x_TD[4] = torch.tensor([0.0, 0.9, 0.0, 0.1, 0.0, 0.0])
    merged = soft_matching(x_TD, 5)
    assert merged.index_K.tolist() == [0, 1, 2, 3, 5]
    assert torch.allclose(merged.x_KD[1], (x_TD[1] + x_TD[4]) / 2)


def test_nearest_centre_mixes_and_leaves_the_lonely_alone() -> None:
    x_TD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.1], [0.6, 0.3]])
    merged = nearest_centre(x_TD, torch.tensor([0, 1]), own_share=0.6)
    assert torch.allclose(merged.x_KD[0], 0.6 * x_TD[0] + 0.4 * x_TD[2:].mean(0))
    assert torch.equal(merged.x_KD[1], x_TD[1])


def test_static_mean_knows_what_stood_still() -> None:
    x_WTD = tokens(4).repeat(3, 1, 1)
    x_WTD[2, 1] = -x_WTD[2, 1]
    static_T, mean_TD = static_mean(x_WTD, 0.1)
    assert static_T.tolist() == [True, False, True, True]
    assert torch.allclose(mean_TD[0], x_WTD[0, 0])


@given(
    st.lists(st.tuples(st.floats(0, 1e6, allow_subnormal=False), st.integers(0, 40)), min_size=1, max_size=12),
    st.integers(0, 300),
)
def test_proportional_counts_give_all_there_is(parts: list[tuple[float, int]], total: int) -> None:
    shares, capacities = torch.tensor([p[0] for p in parts]), [p[1] for p in parts]
    counts = proportional_counts(shares, total, capacities)
    assert sum(counts) == min(total, sum(capacities))
    assert all(0 <= count <= most for count, most in zip(counts, capacities, strict=True))
    if float(shares.sum()) > 0 and all(total <= most for most in capacities):
        exact = (shares.double() / shares.double().sum() * total).tolist()
        assert all(abs(count - wanted) < 1.0 + 1e-6 for count, wanted in zip(counts, exact, strict=True))


def test_counts_at_their_edges() -> None:
    assert uniform_counts(7, [5, 5, 5]) == [3, 2, 2]
    assert uniform_counts(7, [1, 5, 5]) == [1, 3, 3]
    assert proportional_counts(torch.tensor([0.5, 0.25, 0.25]), 7, [9, 9, 9]) == [3, 2, 2]
    assert proportional_counts(torch.zeros(2), 4, [9, 9]) == [2, 2]
    assert proportional_counts(torch.tensor([math.nan, math.inf, 1.0]), 4, [9, 9, 2]) == [1, 1, 2]
    with pytest.raises(ValueError, match="one share for each of 3 parts; got 2"):
        proportional_counts(torch.ones(2), 4, [9, 9, 9])
    assert bonus_share(0.5, 0.5, 0.25) == 0.25
    assert bonus_share(1.0, 0.0, 0.75) == 1.0
    assert capped_count(9, 2, 5) == 5
    assert capped_count(1, 2, 5) == 2


def test_mass_is_the_fewest_that_reach_the_share() -> None:
    score_N = torch.tensor([1.0, 4.0, 2.0, 3.0])
    assert [mass_count(score_N, share) for share in (0.0, 0.4, 0.41, 0.7, 1.0)] == [1, 1, 2, 2, 4]
    assert mass_count(torch.zeros(3), 0.5) == 1
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\]; got 2"):
        mass_count(score_N, 2)


@given(
    tokens_per_s=st.floats(0.1, 1000.0),
    floor_tokens=st.integers(1, 50),
    burst_s=st.floats(0.01, 10.0),
    steps=st.lists(st.tuples(st.floats(-1.0, 20.0), st.floats(0.0, 1.0)), min_size=1, max_size=30),
)
def test_no_window_spends_more_than_its_allowance(
    tokens_per_s: float, floor_tokens: int, burst_s: float, steps: list[tuple[float, float]]
) -> None:
    left = Budget(tokens_per_s=tokens_per_s, floor_tokens=floor_tokens, burst_s=burst_s).start()
    at_s, spent = 0.0, []
    for step_s, share in steps:
        at_s += step_s  # a clock may step back
        granted = left.grant(at_s)
        assert granted >= floor_tokens
        assert left.grant(at_s) == granted, "a question that acts"
        count = round(share * granted)
        left.spend(at_s, count)
        spent.append((at_s, count))
    for first in range(len(spent)):
        seen_s = [when for when, _ in spent[: first + 1]]
        for last in range(first, len(spent)):
            long_s = max(0.0, max(when for when, _ in spent[: last + 1]) - max(seen_s))
            total = sum(count for _, count in spent[first : last + 1])
            assert total <= tokens_per_s * (long_s + burst_s) * (1 + 1e-9) + (last - first + 1) * floor_tokens


def test_a_budget_saves_up_and_no_more_than_its_burst() -> None:
    left = Budget(tokens_per_s=10.0, floor_tokens=2, burst_s=3.0).start()
    assert left.grant(0.0) == 30
    left.spend(0.0, 30)
    assert left.grant(0.0) == 2
    assert left.grant(1.5) == 15
    assert left.grant(1000.0) == 30
    assert Budget().start().grant(0.0) > 10**9


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tokens_per_s": 0.0}, "tokens_per_s must be above 0 .*; got 0"),
        ({"tokens_per_s": math.nan}, "tokens_per_s must be above 0 .*; got nan"),
        ({"floor_tokens": 0}, "floor_tokens must be at least 1; got 0"),
        ({"burst_s": 0.0}, "burst_s must be finite and above 0; got 0"),
        ({"burst_s": math.inf}, "burst_s must be finite and above 0; got inf"),
    ],
)
def test_a_wrong_budget_is_refused(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Budget(**wrong)  # type: ignore[arg-type]

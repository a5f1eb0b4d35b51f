"""VLA-Pruner: its two criteria and its choice against slow twins, and the weights of its history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from millpond.encoders.policies import PI0Policy
from millpond.encoders.policies.base import Held, SavingRun
from millpond.encoders.policies.eyes import scattered
from millpond.encoders.policies.vla_pruner import VLAPruner, VLAPrunerRun, choose, with_floor

from .tiny_pi0 import NUM_LAYERS, TOKENS, inputs, observe, tiny_pi0

NEAR = {"atol": 1e-4, "rtol": 1e-4}
NUM_VISUAL = 2 * TOKENS


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def policy() -> PI0Policy:
    return PI0Policy(tiny_pi0())


class Hiding(SavingRun):
    """The slow twin of dropping: all tokens are computed in all layers, and those dropped are hidden from all."""

    def __init__(self, kept_T: Tensor, from_layer: int) -> None:
        self.kept_T, self.from_layer = kept_T, from_layer

    def held(self, layer: int, alive_R: Tensor, k_1KRD: Tensor, v_1KRD: Tensor) -> Held:
        if layer < self.from_layer:
            return Held(k_1KRD, v_1KRD, alive_R)
        return Held(k_1KRD[:, :, self.kept_T], v_1KRD[:, :, self.kept_T], alive_R[self.kept_T])


def warm(policy: PI0Policy, recipe: VLAPruner, **kwargs: Any) -> Any:
    run = policy.start(recipe)
    for seed in range(recipe.window):
        shown = inputs(seed=seed, **kwargs)
        policy.act(run, observe(policy, shown), noise_1AJ=shown["noise"])
    return run


@pytest.mark.parametrize("num_padding", [0, 3])
def test_dropped_tokens_are_as_if_hidden_and_all_others_keep_their_places(policy: PI0Policy, num_padding: int) -> None:
    run = warm(policy, VLAPruner(keep_share=0.3, prune_layer=2), num_padding=num_padding)
    shown = inputs(seed=9, num_padding=num_padding)
    read = policy.read(run, observe(policy, shown))
    ours = policy.denoise(run, read, noise_1AJ=shown["noise"])
    twin = policy.start()
    twin.state = Hiding(read.held[-1].slots_U, 2)
    theirs = policy.act(twin, observe(policy, shown), noise_1AJ=shown["noise"])
    num_tokens, num_kept = shown["input_ids"].shape[1], round(0.3 * NUM_VISUAL)
    dropped = num_tokens - NUM_VISUAL + num_kept
    assert ours.rows_per_layer == ours.slots_per_layer == (num_tokens, num_tokens, dropped, dropped)
    assert theirs.rows_per_layer == (num_tokens,) * NUM_LAYERS
    torch.testing.assert_close(ours.actions_AJ, theirs.actions_AJ, **NEAR)
    plain = policy.act(policy.start(), observe(policy, shown), noise_1AJ=shown["noise"])
    assert not torch.allclose(ours.actions_AJ, plain.actions_AJ, atol=1e-3)


def test_tokens_that_a_feed_left_out_are_as_if_hidden_from_the_first_layer_on(policy: PI0Policy) -> None:
    shown = inputs(seed=3, num_padding=2)
    whole = observe(policy, shown)
    present_CP = torch.rand(2, TOKENS, generator=torch.Generator().manual_seed(4)) < 0.4
    camera_K = present_CP.nonzero()[:, 0]
    kept_K3 = torch.stack([camera_K, *_row_column(present_CP)], dim=1)
    x_CPD, again_CP = scattered(whole.x_CPD[present_CP], kept_K3, 2, (4, 4))
    assert torch.equal(again_CP, present_CP) and 0 < len(camera_K) < NUM_VISUAL
    few = replace(whole, x_CPD=x_CPD, present_CP=present_CP)
    ours = policy.act(policy.start(), few, noise_1AJ=shown["noise"])
    there_T = torch.cat([present_CP.flatten(), torch.ones(7, dtype=torch.bool)])
    twin = policy.start()
    twin.state = Hiding(there_T.nonzero().squeeze(1), 0)
    theirs = policy.act(twin, whole, noise_1AJ=shown["noise"])
    torch.testing.assert_close(ours.actions_AJ, theirs.actions_AJ, **NEAR)
    assert set(ours.rows_per_layer) == {int(present_CP.sum()) + 7}
    assert bool((ours.looked_CP[~present_CP] == 0).all()) and bool((ours.looked_CP[present_CP] > 0).all())
    with pytest.raises(
        ValueError, match="VLAPruner chooses among whole grids; got an observation with tokens left out"
    ):
        policy.act(policy.start(VLAPruner()), few)
    with pytest.raises(ValueError, match="camera, row and column of each of 1 tokens"):
        scattered(torch.zeros(1, 32), torch.tensor([[0, 4, 0]]), 2, (4, 4))


def _row_column(present_CP: Tensor) -> tuple[Tensor, Tensor]:
    place_K = present_CP.nonzero()[:, 1]
    return place_K // 4, place_K % 4


def test_nothing_is_pruned_before_there_is_history(policy: PI0Policy) -> None:
    run = policy.start(VLAPruner(prune_layer=1, window=3))
    last_rows = []
    for seed in range(5):
        shown = inputs(seed=seed)
        last_rows.append(policy.act(run, observe(policy, shown)).rows_per_layer[-1])
    whole = shown["input_ids"].shape[1]
    assert last_rows == [whole] * 3 + [whole - NUM_VISUAL // 2] * 2


def test_both_criteria_are_transformers_own_attention() -> None:
    model = tiny_pi0(attention="eager")
    policy = PI0Policy(model)
    recipe = VLAPruner(prune_layer=2, window=1, floor_share=0.0, action_layer=1)
    run = warm(policy, recipe, num_padding=3)
    state: VLAPrunerRun = run.state
    shown = inputs(seed=0, num_padding=3)
    seen: dict[str, list[Tensor]] = {"meaning": [], "action": []}
    hooks = [
        layers[1].self_attn.register_forward_hook(lambda module, args, out, name=name: seen[name].append(out[1]))
        for name, layers in (("meaning", model.model.vlm.language_model.layers), ("action", model.model.dit.layers))
    ]
    model.sample_actions(**shown)
    for hook in hooks:
        hook.remove()
    # Padding neither looks nor is looked at.
    meaning_N = seen["meaning"][0][0, :, :-3].mean(dim=(0, 1))[:NUM_VISUAL]
    action_N = torch.stack(seen["action"])[:, 0, :, 1:].mean(dim=(0, 1, 2))[:NUM_VISUAL]
    torch.testing.assert_close(state.action_prior(), action_N / action_N.sum(), **NEAR)
    policy.read(run, observe(policy, shown))
    torch.testing.assert_close(state._meaning_N, meaning_N, **NEAR)
    assert float(meaning_N.std() / meaning_N.mean()) > 0.1


@settings(max_examples=30)
@given(
    rows=st.lists(st.lists(st.floats(0, 1), min_size=6, max_size=6), min_size=1, max_size=4), decay=st.floats(0.1, 0.95)
)
def test_the_newest_chunk_weighs_most(rows: list[list[float]], decay: float) -> None:
    recipe = VLAPruner(window=4, decay=decay)
    run = recipe.start()
    weights = [decay**age for age in reversed(range(len(rows)))]  # oldest first, as they come
    assert weights == sorted(weights) and weights[-1] == 1
    run._history.extend(torch.tensor(row) for row in rows)
    wanted = [sum(w * row[i] for w, row in zip(weights, rows, strict=True)) / sum(weights) for i in range(6)]
    torch.testing.assert_close(run.action_prior(), torch.tensor(wanted), atol=1e-6, rtol=1e-5)


def test_a_dropped_token_can_come_back_by_action(policy: PI0Policy) -> None:
    """With the paper's floor of 0, what was dropped once has no weight ever after; with one, it has."""
    priors = {}
    for floor in (0.0, 0.5):
        # The layer of action lies under the first pruned one, so dropped tokens are not there to be looked at.
        run = warm(policy, VLAPruner(prune_layer=1, window=1, floor_share=floor, action_layer=2))
        for seed in (5, 6):
            shown = inputs(seed=seed)
            chunk = policy.act(run, observe(policy, shown))
        priors[floor] = run.state.action_prior()
        dropped_N = chunk.looked_CP.flatten() == 0
        assert int(dropped_N.sum()) == NUM_VISUAL // 2
        torch.testing.assert_close(priors[floor].sum(), torch.tensor(1.0))
    assert int((priors[0.0] == 0).sum()) == NUM_VISUAL // 2
    assert bool((priors[0.5] > 0).all())


@given(looked=st.lists(st.floats(0, 1e3), min_size=1, max_size=30), floor=st.floats(0, 1))
@settings(max_examples=60)
def test_shares_sum_to_one_and_none_is_under_the_floor(looked: list[float], floor: float) -> None:
    shares_N = with_floor(torch.tensor(looked), floor)
    torch.testing.assert_close(shares_N.sum(), torch.tensor(1.0), atol=1e-5, rtol=0)
    # Raised ones add up to `floor` at most, and all shrink by that when they are made to sum to 1 again.
    assert float(shares_N.min()) >= floor / len(looked) / (1 + floor) - 1e-6


@settings(max_examples=60)
@given(data=st.data(), num_tokens=st.integers(1, 24), seed=st.integers(0, 2**16))
def test_the_choice_is_that_of_the_words_of_the_paper(data: st.DataObject, num_tokens: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(num_tokens, 5, generator=rng)
    action_N, meaning_N = torch.rand(2, num_tokens, generator=rng)
    num_kept = data.draw(st.integers(1, num_tokens))
    fresh = data.draw(st.sets(st.integers(0, num_tokens - 1), max_size=6))
    fresh_N = torch.zeros(num_tokens, dtype=torch.bool)
    fresh_N[list(fresh)] = True
    chosen = choose(x_ND, action_N, meaning_N, num_kept, fresh_N).tolist()
    assert chosen == sorted(set(chosen)) and fresh <= set(chosen)
    assert len(chosen) == max(num_kept, len(fresh))
    assert chosen == sorted(slow_choice(x_ND, action_N, meaning_N, num_kept, fresh))


def slow_choice(x_ND: Tensor, action_N: Tensor, meaning_N: Tensor, num_kept: int, fresh: set[int]) -> set[int]:
    def best(score_N: Tensor) -> set[int]:
        return set(sorted(range(len(score_N)), key=lambda i: -float(score_N[i]))[:num_kept])

    def far(i: int, j: int) -> float:
        return 1 - float(torch.nn.functional.cosine_similarity(x_ND[i], x_ND[j], dim=0))

    pool = best(action_N) | best(meaning_N) | fresh
    if len(pool) <= num_kept:
        return pool
    chosen = set(fresh)
    while len(chosen) < num_kept:
        others = chosen or pool
        chosen.add(max(sorted(pool - chosen), key=lambda i: min(far(i, j) for j in others if j != i)))
    return chosen


def test_where_action_cannot_tell_meaning_does() -> None:
    x_ND, even_N = torch.randn(8, 4), torch.full((8,), 1 / 8)
    meaning_N = torch.arange(8).float()
    chosen = choose(x_ND, even_N, meaning_N, 3, torch.zeros(8, dtype=torch.bool))
    assert chosen.tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keep_share": 0.0}, "keep_share must be above 0; got 0.0"),
        ({"keep_share": 1.5}, "keep_share is a share"),
        ({"decay": 0.0}, "decay must be above 0"),
        ({"floor_share": -0.1}, "floor_share is a share"),
        ({"window": 0}, "window must be a whole number"),
        ({"prune_layer": 0}, "prune_layer must be a whole number"),
        ({"action_layer": -1}, "action_layer is the number of a layer"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VLAPruner(**wrong)


@pytest.mark.parametrize("wrong", [{"prune_layer": NUM_LAYERS}, {"action_layer": NUM_LAYERS}])
def test_layers_that_a_policy_does_not_have_are_refused(policy: PI0Policy, wrong: dict[str, int]) -> None:
    run = policy.start(VLAPruner(**wrong))
    with pytest.raises(ValueError, match=r"must be one of .* got 4"):
        policy.act(run, observe(policy, inputs()))

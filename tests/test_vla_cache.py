"""VLA-Cache: what is reused and what is not, stale keys at their places, and its schedule over the layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from millpond.encoders.policies import Observation, PI0Policy
from millpond.encoders.policies.base import Held, SavingRun
from millpond.encoders.policies.vla_cache import VLACache, VLACacheRun, patches, reusable, reuse_shares

from .tiny_pi0 import NUM_LAYERS, PATCH_PX, TOKENS, inputs, observe, tiny_pi0

NEAR = {"atol": 1e-4, "rtol": 1e-4}
SAVING = VLACache(relevant_share=0.2, still_share=0.8)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def policy() -> PI0Policy:
    return PI0Policy(tiny_pi0())


def still_and_moved(policy: PI0Policy) -> tuple[Observation, Observation, Tensor]:
    """Two moments: half of the patches, the lower rows, show something else in the second. With noise to start from."""
    before, after = inputs(seed=1), inputs(seed=1)
    after["pixel_values"][..., 28:, :] = inputs(seed=2)["pixel_values"][..., 28:, :]
    return observe(policy, before), observe(policy, after), before["noise"]


class Replacing(SavingRun):
    """The slow twin: all tokens are computed in all layers, and then the last chunk's keys and values put over some."""

    def __init__(self, last: list[Held], alive: list[Tensor]) -> None:
        self.last, self.alive = last, alive

    def held(self, layer: int, alive_R: Tensor, k_1KRD: Tensor, v_1KRD: Tensor) -> Held:
        old = [i for i in alive_R.tolist() if i not in set(self.alive[layer].tolist())]
        k, v = k_1KRD.clone(), v_1KRD.clone()
        k[:, :, old], v[:, :, old] = self.last[layer].k_1KUD[:, :, old], self.last[layer].v_1KUD[:, :, old]
        return Held(k, v, alive_R)


def test_reused_tokens_are_the_last_chunks_keys_and_values_at_their_places(policy: PI0Policy) -> None:
    first, second, noise = still_and_moved(policy)
    run = policy.start(SAVING)
    last = policy.read(run, first)
    policy.denoise(run, last, noise_1AJ=noise)
    alive: list[Tensor] = []
    chosen = run.state.rows

    def rows(layer: int, alive_R: Tensor) -> Tensor:
        alive.append(chosen(layer, alive_R))
        return alive[-1]

    run.state.rows = rows  # type: ignore[method-assign]
    read = policy.read(run, second)
    ours = policy.denoise(run, read, noise_1AJ=noise)
    num_tokens = first.ids_1T.shape[1]
    assert ours.slots_per_layer == (num_tokens,) * NUM_LAYERS and ours.rows_per_layer[-1] < num_tokens
    moved = {camera * TOKENS + place for camera in range(2) for place in range(TOKENS // 2, TOKENS)}
    for layer, alive_R in enumerate(alive):
        left_out = sorted(set(range(num_tokens)) - set(alive_R.tolist()))
        assert not moved & set(left_out)
        assert torch.equal(read.held[layer].k_1KUD[:, :, left_out], last.held[layer].k_1KUD[:, :, left_out])
        assert not torch.allclose(
            read.held[layer].k_1KUD[:, :, sorted(moved)], last.held[layer].k_1KUD[:, :, sorted(moved)]
        )
    twin = policy.start()
    twin.state = Replacing(list(last.held), alive)
    theirs = policy.act(twin, second, noise_1AJ=noise)
    torch.testing.assert_close(ours.actions_AJ, theirs.actions_AJ, **NEAR)
    plain = policy.act(policy.start(), second, noise_1AJ=noise)
    assert not torch.allclose(ours.actions_AJ, plain.actions_AJ, atol=1e-4)


def test_where_nothing_moved_actions_are_the_same_for_less(policy: PI0Policy) -> None:
    observation, _, noise = still_and_moved(policy)
    run = policy.start(SAVING)
    whole = policy.act(run, observation, noise_1AJ=noise)
    for _ in range(2):
        again = policy.act(run, observation, noise_1AJ=noise)
        assert sum(again.rows_per_layer) < sum(whole.rows_per_layer)
        torch.testing.assert_close(again.actions_AJ, whole.actions_AJ, **NEAR)


def test_where_all_moved_nothing_is_reused(policy: PI0Policy) -> None:
    run = policy.start(SAVING)
    for seed in (1, 2):
        shown = inputs(seed=seed)
        chunk = policy.act(run, observe(policy, shown), noise_1AJ=shown["noise"])
    plain = policy.act(policy.start(), observe(policy, shown), noise_1AJ=shown["noise"])
    assert torch.equal(chunk.actions_AJ, plain.actions_AJ)


@pytest.mark.parametrize(("against", "is_seen"), [("computed", True), ("last", False)])
def test_slow_change_is_seen_against_what_was_computed(policy: PI0Policy, against: Any, is_seen: bool) -> None:
    """One picture fades into another in steps that are each too small to count."""
    run = policy.start(VLACache(against=against, relevant_share=0.0, still_share=1.0))
    one, other = inputs(seed=1), inputs(seed=2)["pixel_values"]
    fewest_reused = 2 * TOKENS
    for step in range(40):
        shown = {**one, "pixel_values": torch.lerp(one["pixel_values"], other, step / 40)}
        policy.act(run, observe(policy, shown))
        if step:
            fewest_reused = min(fewest_reused, run.state.reused_N.shape[0])  # type: ignore[attr-defined]
    assert (fewest_reused < 2 * TOKENS) == is_seen


def test_what_it_cannot_work_on_is_refused(policy: PI0Policy) -> None:
    shown = inputs()
    plain = observe(policy, shown)
    without_pixels = Observation(plain.ids_1T, plain.state_1S, plain.x_CPD)
    with pytest.raises(ValueError, match="without pixels_C3HW; give it"):
        policy.act(policy.start(SAVING), without_pixels)
    with pytest.raises(ValueError, match="a prompt without words; give it one"):
        policy.act(policy.start(SAVING), observe(policy, {**shown, "input_ids": shown["input_ids"][:, :-5]}))
    for wrong, message in (
        ({"same_cosine": 1.2}, "same_cosine is a share"),
        ({"still_share": -0.1}, "still_share is a share"),
        ({"layers_of_32": (6, 2)}, "must be increasing"),
        ({"layers_of_32": (0,)}, "from 1 to 31"),
        ({"against": "first"}, "must be 'computed' or 'last'"),
    ):
        with pytest.raises(ValueError, match=message):
            VLACache(**wrong)  # type: ignore[arg-type]


def test_patches_are_the_raw_pixels_of_each_token() -> None:
    pixels = torch.rand(2, 3, 59, 59) * 2 - 1  # three pixels at the edge are in no patch, as in a tower's convolution
    patches_NV = patches(pixels, 2 * TOKENS)
    wanted = (pixels[1, :, PATCH_PX : 2 * PATCH_PX, 2 * PATCH_PX : 3 * PATCH_PX] + 1) / 2
    torch.testing.assert_close(patches_NV[TOKENS + 4 + 2], wanted.flatten())
    with pytest.raises(ValueError, match="a square grid; got 7"):
        patches(pixels, 7)


def test_black_is_like_black(policy: PI0Policy) -> None:
    run = policy.start(VLACache(relevant_share=0.0, still_share=1.0))
    shown = inputs()
    shown["pixel_values"].fill_(-1.0)
    for _ in range(2):
        policy.act(run, observe(policy, shown))
    assert run.state.reused_N.shape[0] == 2 * TOKENS  # type: ignore[attr-defined]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    num_cameras=st.integers(1, 3),
    num_tokens=st.integers(1, 12),
    still=st.floats(0, 1),
    relevant=st.floats(0, 1),
)
def test_what_is_reused_stands_still_is_not_at_work_and_the_surest_comes_first(
    seed: int, num_cameras: int, num_tokens: int, still: float, relevant: float
) -> None:
    rng = torch.Generator().manual_seed(seed)
    alike_N, relevance_N, fresh_N = torch.rand(3, num_cameras * num_tokens, generator=rng)
    recipe = VLACache(same_cosine=0.4, still_share=still, relevant_share=relevant)
    chosen = reusable(alike_N, relevance_N, fresh_N > 0.8, num_cameras, recipe).tolist()
    assert len(set(chosen)) == len(chosen)
    assert all(float(alike_N[i]) >= 0.4 and float(fresh_N[i]) <= 0.8 for i in chosen)
    assert [float(alike_N[i]) for i in chosen] == sorted((float(alike_N[i]) for i in chosen), reverse=True)
    for camera in range(num_cameras):
        mine = range(camera * num_tokens, (camera + 1) * num_tokens)
        at_work = sorted(mine, key=lambda i: -float(relevance_N[i]))[: round(relevant * num_tokens)]
        assert not set(at_work) & set(chosen)
        assert len(set(mine) & set(chosen)) <= round(still * num_tokens)


@settings(max_examples=60)
@given(entropies=st.lists(st.floats(0, 5), min_size=1, max_size=18))
def test_layers_whose_attention_spreads_reuse_less(entropies: list[float]) -> None:
    shares = reuse_shares(torch.tensor(entropies)).tolist()
    assert all(-1e-6 <= share <= 1 + 1e-6 for share in shares)
    if max(entropies) - min(entropies) > 1e-3:
        # The layer that spreads most may reuse next to nothing: what it rises from is at most its neighbour's share.
        assert shares[0] == pytest.approx(
            1 - (entropies[0] - min(entropies)) / (max(entropies) - min(entropies)), abs=1e-4
        )


def test_a_rise_is_damped_and_a_fall_is_not() -> None:
    shares = reuse_shares(torch.tensor([4.0, 2.0, 4.0, 0.0])).tolist()
    assert shares == pytest.approx([0.0, 0.55 * 0.5, 0.0, 0.55 * 1.0])
    assert reuse_shares(torch.tensor([2.0, 2.0])).tolist() == [1.0, 1.0]


def test_its_bytes_are_those_of_the_prefix_once(policy: PI0Policy) -> None:
    run = policy.start(SAVING)
    observation, _, _ = still_and_moved(policy)
    policy.act(run, observation)
    state = run.state
    assert isinstance(state, VLACacheRun)
    kv_bytes = 2 * NUM_LAYERS * observation.ids_1T.shape[1] * 8 * 4
    beside_bytes = 2 * TOKENS * (3 * PATCH_PX**2 + 1) * 4 + NUM_LAYERS * 4
    assert run.num_bytes == kv_bytes + beside_bytes

"""The promises of Saving, for every row of SAVINGS, on a small random pi0."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from millpond.encoders.policies import SAVINGS, Chunk, PI0Policy, PolicyRun, Saving

from .method_docs import missing_from_docs
from .tiny_pi0 import NUM_LAYERS, TOKENS, inputs, observe, tiny_pi0

# Settings under which each row saves something on the small model, so that its promises are put to the test.
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "vla_cache": {"relevant_share": 0.2, "still_share": 0.8},
    "vla_pruner": {"prune_layer": 1, "window": 2, "keep_share": 0.4},
}
NUM_WORDS = 5


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def policy() -> PI0Policy:
    return PI0Policy(tiny_pi0())


@pytest.fixture(params=sorted(SAVINGS))
def saving(request: pytest.FixtureRequest) -> Saving:
    return SAVINGS[request.param](**SETTINGS[request.param])


def scene(step: int, *, seed: int = 0, **kwargs: Any) -> dict[str, Any]:
    """A still scene in which one corner of each camera moves."""
    given = inputs(seed=seed, **kwargs)
    moving = inputs(seed=1000 + step)["pixel_values"]
    given["pixel_values"][..., :14, :14] = moving[..., :14, :14]
    return given


def act(policy: PI0Policy, run: PolicyRun, given: dict[str, Any], **more: Any) -> Chunk:
    return policy.act(run, observe(policy, given, **more), noise_1AJ=given["noise"])


def exact(policy: PI0Policy, given: dict[str, Any]) -> Chunk:
    return act(policy, policy.start(), given)


def warm(policy: PI0Policy, saving: Saving, num_chunks: int = 3) -> PolicyRun:
    run = policy.start(saving)
    for step in range(num_chunks):
        act(policy, run, scene(step))
    return run


def test_every_row_has_settings_and_says_where_it_is_from() -> None:
    assert set(SETTINGS) == set(SAVINGS)
    for name in SAVINGS:
        assert not missing_from_docs(SAVINGS[name])


def test_something_is_saved_once_it_is_warm(policy: PI0Policy, saving: Saving) -> None:
    num_tokens = 2 * TOKENS + NUM_WORDS
    rows = act(policy, warm(policy, saving), scene(9)).rows_per_layer
    assert rows[0] == num_tokens and list(rows) == sorted(rows, reverse=True)
    assert (rows[-1] < num_tokens) == (type(saving).__name__ != "NoSaving")


def test_an_episodes_first_chunk_is_exact(policy: PI0Policy, saving: Saving) -> None:
    given = scene(0)
    assert torch.equal(act(policy, policy.start(saving), given).actions_AJ, exact(policy, given).actions_AJ)


@pytest.mark.parametrize("why", ["reset", "cut", "instruction", "cameras"])
def test_a_new_beginning_is_exact(policy: PI0Policy, saving: Saving, why: str) -> None:
    run = warm(policy, saving)
    more: dict[str, Any] = {}
    given = scene(9)
    if why == "reset":
        run.reset()
    elif why == "cut":
        more["is_cut"] = True
    elif why == "instruction":
        given = scene(9, num_words=NUM_WORDS + 1)
    else:
        given = inputs(3)
    assert torch.equal(act(policy, run, given, **more).actions_AJ, exact(policy, given).actions_AJ)


def test_what_is_marked_fresh_is_computed_and_held_in_every_layer(policy: PI0Policy, saving: Saving) -> None:
    for share in (0.2, 0.9):
        run = warm(policy, saving)
        fresh_CP = torch.rand(2, TOKENS, generator=torch.Generator().manual_seed(1)) < share
        observation = observe(policy, scene(9), fresh_CP=fresh_CP)
        alive = [torch.arange(observation.ids_1T.shape[1])]
        chosen = run.state.rows

        def rows(layer: int, alive_R: torch.Tensor, chosen: Any = chosen, alive: Any = alive) -> torch.Tensor:
            alive.append(chosen(layer, alive_R))
            return alive[-1]

        run.state.rows = rows  # type: ignore[method-assign]
        read = policy.read(run, observation)
        wanted = {*fresh_CP.flatten().nonzero().squeeze(1).tolist(), *range(2 * TOKENS, 2 * TOKENS + NUM_WORDS)}
        assert len(alive) == 1 + NUM_LAYERS
        for alive_R, held in zip(alive[1:], read.held, strict=True):
            assert wanted <= set(alive_R.tolist()) <= set(held.slots_U.tolist())


def test_all_marked_fresh_is_exact(policy: PI0Policy, saving: Saving) -> None:
    run = warm(policy, saving)
    given = scene(9)
    chunk = act(policy, run, given, fresh_CP=torch.ones(2, TOKENS, dtype=torch.bool))
    assert torch.equal(chunk.actions_AJ, exact(policy, given).actions_AJ)


def test_the_same_observations_give_the_same_actions_alone_and_beside_others(policy: PI0Policy, saving: Saving) -> None:
    alone = [act(policy, run, scene(step)) for run in [policy.start(saving)] for step in range(4)]
    run, other = policy.start(saving), policy.start(saving)
    for step, before in enumerate(alone):
        act(policy, other, scene(step, seed=7))
        again = act(policy, run, scene(step))
        assert torch.equal(again.actions_AJ, before.actions_AJ) and again.rows_per_layer == before.rows_per_layer


def test_state_is_bounded(policy: PI0Policy, saving: Saving) -> None:
    run = warm(policy, saving, 4)
    held_bytes = run.num_bytes
    for step in range(4, 9):
        act(policy, run, scene(step))
        assert run.num_bytes == held_bytes
    run.reset()
    assert run.num_bytes == 0


def test_after_an_error_the_episode_starts_anew(policy: PI0Policy, saving: Saving) -> None:
    run = warm(policy, saving)
    given = scene(9)

    def fail(*args: Any) -> None:
        raise RuntimeError("out of memory, say")

    for layers in (policy.model.model.dit.layers, policy.model.model.vlm.language_model.layers):
        hook = layers[-1].mlp.register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            act(policy, run, given)
        hook.remove()
        assert run.num_bytes == 0
        assert torch.equal(act(policy, run, given).actions_AJ, exact(policy, given).actions_AJ)


def test_a_refused_observation_changes_nothing(policy: PI0Policy, saving: Saving) -> None:
    run, other = warm(policy, saving), warm(policy, saving)
    given = scene(9)
    with pytest.raises(ValueError, match="placeholder"):
        act(policy, run, {**given, "pixel_values": given["pixel_values"][:, :1]})
    assert torch.equal(act(policy, run, given).actions_AJ, act(policy, other, given).actions_AJ)

"""pi0 driven by our code: with nothing saved, transformers' own actions; what it shows besides is true."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from millpond.encoders.policies import Observation, PI0Policy
from millpond.encoders.policies.flops import GemmaSize, chunk_flops
from millpond.encoders.policies.layers import finish, mask_for, project

from .tiny_pi0 import CHUNK, IMAGE_ID, JOINTS, NUM_LAYERS, TOKENS, inputs, observe, tiny_pi0

NEAR = {"atol": 1e-5, "rtol": 1e-5}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_pi0()


@pytest.fixture(scope="module")
def policy(model: Any) -> PI0Policy:
    return PI0Policy(model)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("num_cameras", [1, 3])
@pytest.mark.parametrize("num_padding", [0, 4])
def test_with_nothing_saved_actions_are_transformers_own_to_the_bit(
    attention: str, num_cameras: int, num_padding: int
) -> None:
    model = tiny_pi0(attention=attention)
    policy = PI0Policy(model)
    run = policy.start()
    for seed, num_steps in ((1, None), (2, 5)):
        given = inputs(num_cameras, seed=seed, num_padding=num_padding)
        theirs = model.sample_actions(**given, num_steps=num_steps)
        ours = policy.act(run, observe(policy, given), noise_1AJ=given["noise"], num_steps=num_steps)
        assert torch.equal(ours.actions_AJ, theirs[0])
        num_tokens = given["input_ids"].shape[1]
        assert ours.rows_per_layer == ours.slots_per_layer == (num_tokens,) * NUM_LAYERS


def test_the_comparison_can_fail(model: Any, policy: PI0Policy) -> None:
    given = inputs(num_padding=4)
    theirs = model.sample_actions(**given)
    del given["attention_mask"]
    ours = policy.act(policy.start(), observe(policy, given), noise_1AJ=given["noise"])
    assert not torch.allclose(ours.actions_AJ, theirs[0], atol=1e-3)


def test_a_camera_that_is_not_there_is_left_out(model: Any, policy: PI0Policy) -> None:
    given = inputs(2)
    theirs_given = {**given, "pixel_attention_mask": torch.tensor([[True, False]])}
    theirs_given["input_ids"] = given["input_ids"][:, TOKENS:]
    theirs = model.sample_actions(**theirs_given)
    alone = {**given, "pixel_values": given["pixel_values"][:, :1], "input_ids": theirs_given["input_ids"]}
    ours = policy.act(policy.start(), observe(policy, alone), noise_1AJ=given["noise"])
    torch.testing.assert_close(ours.actions_AJ, theirs[0], **NEAR)


def test_where_actions_looked_is_transformers_own_attention() -> None:
    model = tiny_pi0(attention="eager")
    policy = PI0Policy(model)
    given = inputs(2, num_padding=3)
    seen: list[Tensor] = []
    hook = model.model.dit.layers[NUM_LAYERS // 2].self_attn.register_forward_hook(
        lambda module, args, out: seen.append(out[1])
    )
    model.sample_actions(**given)
    hook.remove()
    wanted_N = torch.stack(seen)[:, 0, :, 1:].mean(dim=(0, 1, 2))[: 2 * TOKENS]
    ours = policy.act(policy.start(), observe(policy, given), noise_1AJ=given["noise"])
    assert tuple(ours.looked_CP.shape) == (2, TOKENS)
    torch.testing.assert_close(ours.looked_CP.flatten(), wanted_N / wanted_N.sum(), **NEAR)
    assert float(wanted_N.std() / wanted_N.mean()) > 0.1  # or an even spread would do as well


def test_a_prefix_is_denoised_once_and_only_while_it_is_the_newest(policy: PI0Policy) -> None:
    run, observation = policy.start(), observe(policy, inputs())
    old, new = policy.read(run, observation), policy.read(run, observation)
    assert len(repr(new)) < 120
    with pytest.raises(ValueError, match=r"the prefix that it read last, once; got ReadPrefix\(37 tokens"):
        policy.denoise(run, old)
    policy.denoise(run, new)
    with pytest.raises(ValueError, match="call read again"):
        policy.denoise(run, new)
    new = policy.read(run, observation)
    run.reset()
    with pytest.raises(ValueError, match="call read again"):
        policy.denoise(run, new)


def test_noise_is_drawn_where_none_is_given(policy: PI0Policy) -> None:
    observation = observe(policy, inputs())
    first, second = (policy.act(policy.start(), observation).actions_AJ for _ in range(2))
    assert first.shape == (CHUNK, JOINTS) and not torch.equal(first, second)


def test_what_cannot_be_driven_is_refused(model: Any, policy: PI0Policy) -> None:
    with pytest.raises(ValueError, match="drives transformers' PI0ForConditionalGeneration; got 'Linear'"):
        PI0Policy(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"in training; call eval\(\)"):
        PI0Policy(tiny_pi0().train())
    flex = tiny_pi0()
    flex.model.dit.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="got 'flex_attention'; load it with"):
        PI0Policy(flex)
    given = inputs()
    observation = observe(policy, given)
    with pytest.raises(ValueError, match=r"noise_1AJ must be .*; got"):
        policy.act(policy.start(), observation, noise_1AJ=torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="one denoising step or more; got 0"):
        policy.act(policy.start(), observation, num_steps=0)
    one_camera = {**given, "pixel_values": given["pixel_values"][:, :1]}
    with pytest.raises(ValueError, match=f"each of {TOKENS} visual tokens; got {2 * TOKENS}; put"):
        policy.act(policy.start(), observe(policy, one_camera))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids_1T": torch.zeros(2, 3, dtype=torch.int64)}, r"int64 of shape \(1, tokens\); got"),
        ({"state_1S": torch.zeros(4)}, r"of shape \(1, numbers\); got"),
        ({"x_CPD": torch.zeros(2, 16)}, r"\(cameras, tokens, channels\); got"),
        ({"x_CPD": torch.full((2, 16, 32), torch.nan)}, "must be finite; got 2 cameras"),
        ({"mask_1T": torch.ones(1, 2)}, "shape of ids_1T"),
        ({"fresh_CP": torch.zeros(2, 3, dtype=torch.bool)}, "a bool for each of"),
        ({"present_CP": torch.zeros(2, TOKENS)}, "present_CP must be a bool for each of"),
        ({"pixels_C3HW": torch.zeros(3, 3, 8, 8)}, "2 cameras, 3, rows, columns"),
    ],
)
def test_an_observation_checks_itself(change: dict[str, Tensor], message: str) -> None:
    plain = {
        "ids_1T": torch.full((1, 32), IMAGE_ID),
        "state_1S": torch.zeros(1, 7),
        "x_CPD": torch.zeros(2, TOKENS, 32),
    }
    assert len(repr(Observation(**plain))) < 120
    with pytest.raises(ValueError, match=message):
        Observation(**{**plain, **change})


def test_operations_are_counted_as_torch_counts_them() -> None:
    model = tiny_pi0(attention="eager")  # whose products the counter knows on a CPU
    given = inputs(2)
    policy = PI0Policy(model)
    chunk = policy.act(policy.start(), observe(policy, given), noise_1AJ=given["noise"], num_steps=2)
    with FlopCounterMode(display=False) as counter:
        model.sample_actions(**given, num_steps=2)
    assert chunk_flops(model.config, chunk, 2, num_cameras=2).total == counter.get_total_flops()


@torch.no_grad()
def test_operations_of_some_rows_are_counted_as_torch_counts_them() -> None:
    model = tiny_pi0(attention="eager")
    layer, half = model.model.vlm.language_model.layers[0], model.model.vlm.language_model
    x_1RD, held = torch.randn(1, 5, 32), torch.randn(1, 1, 9, 8)
    cos, sin = half.rotary_emb(x_1RD, position_ids=torch.arange(5)[None])
    mask = mask_for("eager", torch.ones(5, 9, dtype=torch.bool), torch.float32)
    with FlopCounterMode(display=False) as counter:
        q, _, _ = project(layer, x_1RD, cos, sin)
        finish(layer, x_1RD, q, held, held, mask)
    assert GemmaSize.of(half.config).layer_flops(5, 9) == counter.get_total_flops()

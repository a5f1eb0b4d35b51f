"""Visual tokens at rest: one byte a channel, off by no more than is said, and nothing hostile gets through."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from millpond.encoders import FAMILIES, FrameTokens
from millpond.encoders.tokens_at_rest import rest_tokens, wake_tokens
from millpond.stream import Span

from .watched import pictures, tiny

# Shapes: T visual tokens, D channels of the language model, E extra taps (DeepStack).

SPAN = Span(3.0, 4.0)


def made(x_TD: Tensor, deep_ETD: Tensor | None = None) -> FrameTokens:
    num_tokens = x_TD.shape[0]
    return FrameTokens(
        x_TD=x_TD,
        kept_T=torch.arange(num_tokens) * 2,
        grid_hw=(2, num_tokens),
        pos_3T=torch.arange(3 * num_tokens).view(3, num_tokens),
        advance=num_tokens + 3,
        span=SPAN,
        deep_ETD=deep_ETD,
    )


def check_near(woken: Tensor, given_: Tensor) -> None:
    """Within 1/254 of each token's own largest channel, and what float rounding adds."""
    exact, peak = given_.double(), given_.double().abs().amax(-1, keepdim=True)
    slack = 1e-6 + (0 if woken.dtype == torch.float32 else torch.finfo(woken.dtype).eps)
    assert woken.dtype == given_.dtype and woken.shape == given_.shape
    assert bool(((woken.double() - exact).abs() <= peak * (1 / 254 + slack)).all())


@given(
    num_tokens=st.integers(1, 9),
    num_channels=st.integers(1, 17),
    num_taps=st.integers(0, 3),
    magnitude=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 5e4]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 2**32),
)
def test_each_token_is_off_by_no_more_than_is_said(
    num_tokens: int, num_channels: int, num_taps: int, magnitude: float, dtype: torch.dtype, seed: int
) -> None:
    dice = torch.Generator().manual_seed(seed)
    x_TD = magnitude * torch.randn(num_tokens, num_channels, generator=dice)
    x_TD = (x_TD * 10 ** torch.randint(-3, 4, (num_tokens, 1), generator=dice)).to(dtype)
    deep_ETD = torch.randn(num_taps, num_tokens, num_channels, generator=dice).to(dtype) if num_taps else None
    rested = rest_tokens(made(x_TD, deep_ETD))
    woken = wake_tokens(rested, SPAN, dtype)
    check_near(woken.x_TD, x_TD)
    assert (woken.deep_ETD is None) == (deep_ETD is None)
    if deep_ETD is not None and woken.deep_ETD is not None:
        check_near(woken.deep_ETD, deep_ETD)
    assert rested["x"].dtype == torch.int8 and rested["x"].numel() == x_TD.numel()
    again = rest_tokens(woken)
    if dtype == torch.float32:
        assert torch.equal(again["x"], rested["x"]), "to rest twice costs no more than once"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_a_family_saw_wakes_in_its_place(family: str) -> None:
    model = tiny(family)
    (seen,) = model.see(pictures(model.spec.frames_per_block))
    woken = wake_tokens(rest_tokens(seen), seen.span, model.spec.dtype)
    assert torch.equal(woken.kept_T, seen.kept_T.cpu()) and torch.equal(woken.pos_3T, seen.pos_3T.cpu())
    assert (woken.grid_hw, woken.advance, woken.span) == (seen.grid_hw, seen.advance, seen.span)
    check_near(woken.x_TD, seen.x_TD)
    assert (woken.deep_ETD is not None) == (family == "qwen3_vl") == (seen.deep_ETD is not None)
    if woken.deep_ETD is not None and seen.deep_ETD is not None:
        check_near(woken.deep_ETD, seen.deep_ETD)


HOSTILE = {
    **{f"no {name}": {name: None} for name in ("x", "x_scale", "kept", "pos", "grid", "advance")},
    "x of floats": {"x": torch.zeros(4, 6)},
    "x of one axis": {"x": torch.zeros(4, dtype=torch.int8), "x_scale": torch.tensor(1.0)},
    "too few scales": {"x_scale": torch.ones(3)},
    "half scales": {"x_scale": torch.ones(4, dtype=torch.float16)},
    "kept of floats": {"kept": torch.arange(4.0)},
    "kept twice": {"kept": torch.zeros(4, dtype=torch.int64)},
    "fewer kept": {"kept": torch.arange(3)},
    "pos of int32": {"pos": torch.zeros(3, 4, dtype=torch.int32)},
    "two rows of pos": {"pos": torch.zeros(2, 4, dtype=torch.int64)},
    "a grid of three": {"grid": torch.ones(3, dtype=torch.int64)},
    "two advances": {"advance": torch.ones(2, dtype=torch.int64)},
    "no tokens": {"x": torch.zeros(0, 6, dtype=torch.int8), "x_scale": torch.zeros(0)},
    "deep of other tokens": {"deep": torch.zeros(2, 5, 6, dtype=torch.int8), "deep_scale": torch.ones(2, 5)},
    "a scale that is none": {"x_scale": torch.tensor([1.0, float("nan"), 1.0, 1.0])},
    "an endless scale": {"x_scale": torch.tensor([1.0, float("inf"), 1.0, 1.0])},
    "time that goes back": {"advance": torch.tensor([-1])},
    "a place before the first": {"pos": -torch.ones(3, 4, dtype=torch.int64)},
    "deep without scales": {"deep": torch.zeros(2, 4, 6, dtype=torch.int8), "deep_scale": None},
}


@pytest.mark.parametrize("planted", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_tensors_are_refused(planted: dict[str, Tensor | None]) -> None:
    rested = rest_tokens(made(torch.randn(4, 6), torch.randn(2, 4, 6)))
    wake_tokens(rested, SPAN, torch.float32)
    changed = {name: x for name, x in {**rested, **planted}.items() if x is not None}
    with pytest.raises(ValueError, match="got "):
        wake_tokens(changed, SPAN, torch.float32)

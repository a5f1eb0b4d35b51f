"""Contexts by themselves: what they hold, how they grow, how they are taken back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from millpond.encoders.context import Context, Mark, rotate
from millpond.memory import KVBlock, KVSpec
from millpond.stream import Span

# Shapes: L layers, K key/value heads, T tokens, D channels.

SPEC = KVSpec(num_layers=2, num_kv_heads=3, head_dim=4, dtype=torch.float32)
CPU = torch.device("cpu")


def empty(spec: KVSpec = SPEC) -> Context:
    return Context(spec, CPU, owner=None)


def block(num_tokens: int, seed: int = 0, spec: KVSpec = SPEC) -> KVBlock:
    random = torch.Generator().manual_seed(seed)
    shape = (spec.num_layers, spec.num_kv_heads, num_tokens, spec.head_dim)
    k_LKTD, v_LKTD = (torch.randn(shape, generator=random).to(spec.dtype) for _ in range(2))
    return KVBlock(k_LKTD, v_LKTD, torch.arange(num_tokens).repeat(3, 1), num_tokens, Span(0, 0))


def cos_sin(num_tokens: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    angle_TD = torch.arange(num_tokens)[:, None] * torch.tensor([1.0, 0.1]).repeat(2)
    return angle_TD.cos().to(dtype), angle_TD.sin().to(dtype)


def write(context: Context, k_LKTD: Tensor, v_LKTD: Tensor) -> None:
    """What a call does in all its layers."""
    num_tokens = k_LKTD.shape[2]
    context.reserve(num_tokens)
    cut = slice(context.length, context.length + num_tokens)
    context.k_LKCD[:, :, cut], context.v_LKCD[:, :, cut] = k_LKTD, v_LKTD
    context.commit(num_tokens, num_tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rotation_is_transformers_own_to_the_bit(dtype: torch.dtype) -> None:
    x = torch.randn(1, 3, 7, 4).to(dtype)
    cos, sin = cos_sin(7, dtype)
    wanted, _ = apply_rotary_pos_emb(x, x, cos[None], sin[None])
    assert torch.equal(rotate(x, cos, sin), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_tensors(dtype: torch.dtype) -> None:
    context = empty(KVSpec(2, 3, 4, dtype))
    assert context.num_bytes == 0
    for num_tokens in (1, 70, 3, 500):
        context.reserve(num_tokens)
        context.commit(num_tokens, num_tokens)
        held = context.k_LKCD.untyped_storage().nbytes() + context.v_LKCD.untyped_storage().nbytes()
        assert context.num_bytes == held == context.capacity * context.spec.bytes_per_token
        context.check()


def test_growing_keeps_what_is_held_and_copies_seldom() -> None:
    context, num_grown = empty(), 0
    whole = block(2000)
    for i in range(2000):
        before = context.capacity
        write(context, whole.k_LKTD[:, :, i : i + 1], whole.v_LKTD[:, :, i : i + 1])
        num_grown += context.capacity != before
    assert torch.equal(context.k_LKCD[:, :, :2000], whole.k_LKTD)
    assert torch.equal(context.v_LKCD[:, :, :2000], whole.v_LKTD)
    assert num_grown < 12 and context.capacity <= 2000 * 1.5 + 64


def test_fill_rotates_each_block_to_its_place() -> None:
    context, blocks = empty(), [block(5, 1), block(2, 2)]
    write(context, block(9).k_LKTD, block(9).v_LKTD)
    cos_TD, sin_TD = cos_sin(7)
    context.fill(blocks, cos_TD, sin_TD, next_position=11)
    assert (context.length, context.next_position) == (7, 11)
    k_LKTD = torch.cat([b.k_LKTD for b in blocks], dim=2)
    assert torch.equal(context.k_LKCD[:, :, :7], rotate(k_LKTD, cos_TD, sin_TD))
    assert torch.equal(context.v_LKCD[:, :, :7], torch.cat([b.v_LKTD for b in blocks], dim=2))
    context.check()
    context.fill([], cos_TD[:0], sin_TD[:0], next_position=0)
    assert (context.length, context.next_position) == (0, 0)


def test_marks_of_another_fill_or_further_on_are_refused() -> None:
    context = empty()
    write(context, block(4).k_LKTD, block(4).v_LKTD)
    mark = context.mark()
    write(context, block(3).k_LKTD, block(3).v_LKTD)
    further = context.mark()
    context.rewind(mark)
    context.rewind(mark)
    assert (context.length, context.next_position) == (4, 4)
    with pytest.raises(ValueError, match="rewound further since"):
        context.rewind(further)
    context.clear()
    with pytest.raises(ValueError, match="filled anew"):
        context.rewind(mark)
    assert context.length == 0


def test_wrong_sizes_are_refused() -> None:
    context = empty()
    with pytest.raises(ValueError, match="do not fit"):
        context.commit(1, 1)
    with pytest.raises(ValueError, match="need cos and sin of that shape"):
        context.fill([block(3)], *cos_sin(4), next_position=3)
    other = KVSpec(2, 3, 4, torch.float16)
    with pytest.raises(ValueError, match="this context holds"):
        context.fill([block(3, spec=other)], *cos_sin(3), next_position=3)
    with pytest.raises(ValueError, match="must not be negative"):
        context.reserve(-1)
    assert len(repr(context)) < 120


def test_check_finds_what_contradicts() -> None:
    context = empty()
    write(context, block(4).k_LKTD, block(4).v_LKTD)
    context.length = 10**6
    with pytest.raises(AssertionError, match="tokens in buffers"):
        context.check()
    context.length = 4
    context.v_LKCD = context.v_LKCD.half()
    with pytest.raises(AssertionError, match="a buffer is"):
        context.check()


class AnyUse(RuleBasedStateMachine):
    """Against the plain way: lists of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.context = empty()
        self.k: list[Tensor] = []
        self.marks: list[tuple[Mark, int]] = []
        self.seed = 0

    @rule(num_tokens=st.integers(1, 90))
    def append(self, num_tokens: int) -> None:
        self.seed += 1
        new = block(num_tokens, self.seed)
        write(self.context, new.k_LKTD, new.v_LKTD)
        self.k += new.k_LKTD.unbind(2)

    @rule()
    def mark(self) -> None:
        self.marks.append((self.context.mark(), len(self.k)))

    @precondition(lambda self: self.marks)
    @rule(data=st.data())
    def rewind(self, data: Any) -> None:
        number = data.draw(st.integers(0, len(self.marks) - 1))
        mark, length = self.marks[number]
        # Marks after the one gone back to mean nothing any more.
        del self.marks[number + 1 :]
        self.context.rewind(mark)
        del self.k[length:]

    @rule(num_tokens=st.lists(st.integers(1, 60), min_size=1, max_size=4))
    def fill(self, num_tokens: list[int]) -> None:
        blocks = [block(num, self.seed + i) for i, num in enumerate(num_tokens)]
        cos_TD, sin_TD = cos_sin(sum(num_tokens))
        self.context.fill(blocks, cos_TD, sin_TD, next_position=sum(num_tokens))
        self.k = list(rotate(torch.cat([b.k_LKTD for b in blocks], 2), cos_TD, sin_TD).unbind(2))
        self.marks.clear()

    @rule()
    def clear(self) -> None:
        self.context.clear()
        self.k.clear()
        self.marks.clear()

    @invariant()
    def holds_what_it_should(self) -> None:
        self.context.check()
        assert self.context.length == len(self.k)
        if self.k:
            assert torch.equal(self.context.k_LKCD[:, :, : len(self.k)], torch.stack(self.k, dim=2))


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=25, stateful_step_count=15)

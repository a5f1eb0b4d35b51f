"""KVSpec, KVBlock, PackedBlock and owned storage: what they refuse, and that they count what is held."""

from __future__ import annotations

import pytest
import torch

from millpond.memory import KVBlock, KVSpec, PackedBlock, next_block_id
from millpond.memory.codecs.plain import PlainCodec
from millpond.memory.owned import owned, owned_block, storage_bytes
from millpond.stream import Span

from .blocks import make_block


def test_spec_counts_one_tokens_bytes() -> None:
    assert KVSpec(28, 4, 128, torch.bfloat16).bytes_per_token == 57_344


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((0, 1, 1, torch.float32), "num_layers must be at least 1; got 0"),
        ((1, 0, 1, torch.float32), "num_kv_heads must be at least 1; got 0"),
        ((1, 1, -1, torch.float32), "head_dim must be at least 1; got -1"),
        ((1, 1, 1, torch.int8), "floating-point dtype; got torch.int8"),
    ],
)
def test_spec_refuses(fields: tuple[int, int, int, torch.dtype], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KVSpec(*fields)


def test_block_knows_its_spec_and_bytes() -> None:
    block = make_block(num_tokens=5, shape_LKD=(2, 3, 8), dtype=torch.bfloat16)
    assert block.spec == KVSpec(2, 3, 8, torch.bfloat16)
    assert block.num_tokens == 5
    assert block.num_bytes == 5 * block.spec.bytes_per_token + 3 * 5 * 8
    assert block.num_bytes == storage_bytes((block.k_LKTD, block.v_LKTD, block.pos_3T))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"v_LKTD": torch.zeros(2, 2, 4, 4)}, r"one dtype and shape .* got \(2, 2, 3, 4\)"),
        ({"v_LKTD": torch.zeros(2, 2, 3, 4, dtype=torch.float16)}, "torch.float16"),
        ({"pos_3T": torch.zeros(3, 2, dtype=torch.int64)}, r"shape \(3, 3\); got torch.int64 \(3, 2\)"),
        ({"pos_3T": torch.zeros(3, 3)}, "must be int64 .* got torch.float32"),
        ({"advance": -1}, "advance must not be negative; got -1"),
        ({"k_LKTD": torch.zeros(2, 2, 0, 4), "v_LKTD": torch.zeros(2, 2, 0, 4)}, "at least one token"),
    ],
)
def test_block_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_block(**fields)  # type: ignore[arg-type]


def test_packed_block_refuses_no_tokens() -> None:
    with pytest.raises(ValueError, match="at least one token; got 0"):
        PackedBlock("plain", make_block().spec, {}, 0, 0, Span(0.0, 0.0), "frame", next_block_id())


def test_ids_grow_and_reprs_are_small() -> None:
    first, second = make_block(), make_block(123_456.0, num_tokens=10_000)
    assert second.id > first.id
    for value in (first, second, PlainCodec().pack(second)):
        assert len(repr(value)) < 120
        assert str(value.id) in repr(value)


def test_owned_copies_what_pins_a_larger_storage_and_nothing_else() -> None:
    buffer = torch.randn(100, 8)
    view = buffer[3:5]
    copied = owned(view)
    assert torch.equal(copied, view)
    assert storage_bytes([copied]) == 2 * 8 * 4 < storage_bytes([view])
    assert owned(copied) is copied
    expanded = torch.arange(4).expand(3, -1)  # shows more than it holds
    assert storage_bytes([owned(expanded)]) == 3 * 4 * 8


def test_owned_block_is_the_block_itself_where_nothing_is_pinned() -> None:
    whole = make_block()
    assert owned_block(whole) is whole
    kv = torch.randn(2, 2, 2, 6, 4)
    part = KVBlock(kv[0, :, :, :3], kv[1, :, :, :3], whole.pos_3T, 3, whole.span)
    freed = owned_block(part)
    assert freed.id == part.id and torch.equal(freed.k_LKTD, part.k_LKTD)
    assert storage_bytes((freed.k_LKTD, freed.v_LKTD, freed.pos_3T)) == freed.num_bytes
    graph = make_block(k_LKTD=torch.zeros(2, 2, 3, 4, requires_grad=True))
    assert not owned_block(graph).k_LKTD.requires_grad

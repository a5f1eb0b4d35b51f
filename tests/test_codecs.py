"""Codecs with an error: their packing, their sizes, their worst cases, and what they refuse."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory import CODECS, Codec, KVBlock
from millpond.memory.codecs.bits import pack_codes, packed_bytes, unpack_codes

from .blocks import make_block, same

# Shapes: L layers, K key/value heads, T tokens, D channels per head.

RATIOS = {"fp8": 1.99, "int8": 1.93, "int4": 3.45, "int2": 6.1, "adaptive": 7.1, "vidkv": 9.2, "zipcache": 4.5}
"""How many times smaller than bfloat16 a frame of a 7B model is."""
CODERS = [pytest.param(CODECS[name](), id=name) for name in CODECS if name != "plain"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@cache
def frame() -> KVBlock:
    """A frame of a 7B model: 28 layers, 4 heads, 200 tokens, 128 channels, some of them outliers as real keys have."""
    torch.manual_seed(0)
    block = make_block(num_tokens=200, shape_LKD=(28, 4, 128), dtype=torch.bfloat16)
    k_LKTD = block.k_LKTD * torch.linspace(0.5, 4, 128).bfloat16()
    return dataclasses.replace(block, k_LKTD=k_LKTD + 3 * torch.randn(28, 4, 1, 128).bfloat16())


def with_contents(k_LKTD: torch.Tensor, v_LKTD: torch.Tensor) -> KVBlock:
    return make_block(num_tokens=k_LKTD.shape[2], k_LKTD=k_LKTD, v_LKTD=v_LKTD)


def off_by(codec: Codec, block: KVBlock) -> list[float]:
    """Largest error of keys and of values, as shares of the largest magnitudes."""
    back = codec.unpack(codec.pack(block))
    shares = []
    for was, now in ((block.k_LKTD, back.k_LKTD), (block.v_LKTD, back.v_LKTD)):
        assert now.dtype == was.dtype and torch.isfinite(now).all()
        error, largest = (now.double() - was.double()).abs().max(), was.double().abs().max()
        shares.append(float(error / largest) if largest else float(error))
    return shares


@given(levels=st.sampled_from([2, 3, 4, 16, 256]), shape=st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_codes_come_back_in_as_few_bytes(levels: int, shape: list[int]) -> None:
    codes = torch.randint(0, levels, shape, dtype=torch.uint8)
    packed = pack_codes(codes, levels)
    assert packed.dtype == torch.uint8 and packed.shape == (packed_bytes(codes.numel(), levels),)
    assert torch.equal(unpack_codes(packed, levels, tuple(shape)), codes)
    per_byte = {2: 8, 3: 5, 4: 4, 16: 2, 256: 1}[levels]
    assert per_byte * packed.numel() - codes.numel() in range(per_byte)


def test_packing_refuses_other_sizes_and_levels() -> None:
    packed = pack_codes(torch.zeros(9, dtype=torch.uint8), 4)
    for wrong in (packed[:-1], packed.int(), packed[None]):
        with pytest.raises(ValueError, match="9 codes of 4 levels are 3 bytes of uint8; got "):
            unpack_codes(wrong, 4, (9,))
    with pytest.raises(ValueError, match="got 5"):
        pack_codes(packed, 5)


@pytest.mark.parametrize("codec", CODERS)
def test_a_real_frame_is_as_small_as_stated(codec: Codec) -> None:
    packed = codec.pack(frame())
    assert frame().num_bytes / packed.num_bytes >= RATIOS[codec.name]
    assert packed.num_bytes / 200 == pytest.approx(codec.bytes_per_token(packed.spec), rel=0.1)
    assert set(RATIOS) == set(CODECS) - {"plain"}


def test_error_grows_as_bits_fall() -> None:
    def mean_error(name: str) -> list[float]:
        back = CODECS[name]().unpack(CODECS[name]().pack(frame()))
        pairs = ((frame().k_LKTD, back.k_LKTD), (frame().v_LKTD, back.v_LKTD))
        return [float((now.float() - was.float()).square().mean()) for was, now in pairs]

    by_keys, by_values = zip(*map(mean_error, ("int8", "int4", "zipcache", "int2", "vidkv")), strict=True)
    assert list(by_keys) == sorted(by_keys)
    assert by_values[0] < by_values[1] < by_values[2] < by_values[3] < 0.25
    assert by_values[3] < by_values[4] < 0.25  # ternary keeps three quarters of what varies, or more
    assert by_values[0] < mean_error("fp8")[1] < by_values[1]


@pytest.mark.parametrize("codec", CODERS)
@given(
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
    levels=st.integers(1, 5),
    num_tokens=st.sampled_from([1, 2, 3, 17, 64, 257]),
)
def test_lumpy_contents_stay_within_the_worst_error(
    codec: Codec, dtype: torch.dtype, seed: int, levels: int, num_tokens: int
) -> None:
    shape, rng = (2, 1, num_tokens, 64), torch.Generator().manual_seed(seed)
    lumps = [torch.randint(-levels, levels + 1, shape, generator=rng) / levels for _ in range(2)]
    nudge = torch.rand(shape, generator=rng) * 0.3
    block = with_contents((lumps[0] + nudge).to(dtype), (lumps[1] ** 3 - nudge).to(dtype))
    assert max(off_by(codec, block)) <= codec.worst_error


@pytest.mark.parametrize("codec", CODERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_tokens", [1, 40])
def test_every_range_of_numbers_is_held(codec: Codec, dtype: torch.dtype, num_tokens: int) -> None:
    info = torch.finfo(dtype)
    base = torch.rand(2, 2, num_tokens, 64) * 2 - 1
    base[0, 0, 0, 0] = 1
    for scale in (info.max, -info.max, info.max / 3, 1e4, 1, info.tiny * 3, info.tiny, info.tiny / 4):
        x = (base * scale).to(dtype)
        assert max(off_by(codec, with_contents(x, x))) <= codec.worst_error
    steps = torch.full_like(base, info.max)
    steps[:, :, ::2, 1::2] = -info.max
    uneven = base.clone()
    uneven[1] *= 1e-20
    for x in (torch.zeros_like(base), steps, uneven):
        assert max(off_by(codec, with_contents(x.to(dtype), steps.to(dtype)))) <= codec.worst_error


@pytest.mark.parametrize("codec", CODERS)
def test_zeros_are_exact_and_so_are_constant_keys(codec: Codec) -> None:
    zeros = torch.zeros(2, 2, 64, 64, dtype=torch.bfloat16)
    constant = zeros + torch.randn(2, 2, 1, 64).bfloat16()
    assert off_by(codec, with_contents(zeros, zeros)) == [0, 0]
    if codec.name != "fp8":
        assert off_by(codec, with_contents(constant, zeros)) == [0, 0]


@pytest.mark.parametrize("codec", CODERS)
def test_no_head_pays_for_anothers_range(codec: Codec) -> None:
    block = make_block(num_tokens=64, shape_LKD=(2, 2, 64))
    alone = codec.unpack(codec.pack(block)).k_LKTD[0, 0]
    block.k_LKTD[1] *= 1e12
    assert torch.equal(codec.unpack(codec.pack(block)).k_LKTD[0, 0], alone)


@pytest.mark.parametrize("codec", CODERS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", ["keys", "values"])
def test_refuses_what_is_not_finite(codec: Codec, bad: float, which: str) -> None:
    block = make_block(12.5)
    (block.k_LKTD if which == "keys" else block.v_LKTD)[1, 0, 2, 3] = bad
    with pytest.raises(ValueError) as error:
        codec.pack(block)
    assert f"got NaN or infinity in the {which} of the block showing {block.span}" in str(error.value)


@pytest.mark.parametrize("codec", CODERS)
@pytest.mark.parametrize(
    ("far", "dtype"),
    [(0, torch.int16), (-(2**15), torch.int16), (2**15, torch.int32), (2**31, torch.int64), (-(2**60), torch.int64)],
)
def test_positions_are_exact_in_the_smallest_dtype(codec: Codec, far: int, dtype: torch.dtype) -> None:
    pos_3T = torch.randint(0, 50, (3, 40))
    pos_3T[1, 7] = far
    block = make_block(num_tokens=40, pos_3T=pos_3T)
    packed = codec.pack(block)
    assert packed.buffers["pos"].dtype == dtype
    assert torch.equal(codec.unpack(packed).pos_3T, pos_3T)


@pytest.mark.parametrize("codec", CODERS)
def test_blocks_too_small_to_gain_are_kept_as_they_are(codec: Codec) -> None:
    block = make_block(num_tokens=1, shape_LKD=(1, 1, 1), dtype=torch.float16)
    assert codec.pack(block).num_bytes <= block.num_bytes
    assert same(codec.unpack(codec.pack(block)), block)


@pytest.mark.parametrize("codec", CODERS)
def test_needs_nothing_but_the_block(codec: Codec) -> None:
    block = make_block(num_tokens=64, shape_LKD=(2, 2, 64))
    first = codec.pack(block)
    codec.pack(make_block(num_tokens=300, shape_LKD=(2, 2, 64)))
    again = type(codec)().pack(block)
    assert all(torch.equal(first.buffers[name], again.buffers[name]) for name in first.buffers)
    assert all(buffer.is_contiguous() for buffer in first.buffers.values())


@pytest.mark.parametrize("codec", CODERS)
@pytest.mark.parametrize("num_tokens", [1, 64])
def test_refuses_damaged_buffers(codec: Codec, num_tokens: int) -> None:
    shape = (1, 1, 1) if num_tokens == 1 else (2, 2, 64)
    packed = codec.pack(make_block(num_tokens=num_tokens, shape_LKD=shape))

    def refused(match: str, **changes: object) -> None:
        with pytest.raises(ValueError, match=match):
            codec.unpack(dataclasses.replace(packed, **changes))

    assert ("k" in packed.buffers) is (num_tokens == 1), "both forms are tried"
    for name, buffer in packed.buffers.items():
        others = {other: packed.buffers[other] for other in packed.buffers if other != name}
        refused("damaged: its buffers are .*; got ", buffers=others)
        for wrong in (buffer[:-1], buffer[None], buffer.bool(), torch.cat([buffer, buffer])):
            refused("damaged: .*; got ", buffers={**others, name: wrong})
    refused("damaged: its buffers are .*; got ", buffers={**packed.buffers, "more": torch.zeros(1)})
    refused("damaged: .*; got ", num_tokens=num_tokens + 1)
    refused("damaged: .*; got ", spec=dataclasses.replace(packed.spec, head_dim=packed.spec.head_dim + 2))


def test_zipcache_spends_its_bits_on_what_is_attended_to() -> None:
    torch.manual_seed(0)
    k_LKTD = torch.randn(1, 1, 100, 64)
    looked_at = torch.randn(64)
    k_LKTD[..., :50, :] += looked_at  # half of the tokens share a direction that every probe has too
    k_LKTD[..., 50:, :] -= 0.1 * looked_at
    v_LKTD = torch.randn(1, 1, 100, 64)
    back = CODECS["zipcache"]().unpack(CODECS["zipcache"]().pack(with_contents(k_LKTD, v_LKTD)))
    error_T = (back.v_LKTD - v_LKTD).square().mean(-1).flatten()
    assert error_T[:50].mean() < 0.2 * error_T[50:].mean()


def test_vidkv_gives_two_bits_to_the_wide_channels() -> None:
    k_LKTD = torch.randn(1, 1, 100, 64) * torch.tensor([1.0, 4.0]).repeat(32)
    back = CODECS["vidkv"]().unpack(CODECS["vidkv"]().pack(with_contents(k_LKTD, torch.randn(1, 1, 100, 64))))
    levels_D = [back.k_LKTD[0, 0, :, channel].unique().numel() for channel in range(64)]
    assert levels_D == [2, 4] * 32

"""What every codec promises. A new row needs a line in SETTINGS, nothing else."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory import CODECS, Codec, KVBlock
from millpond.memory.codecs.adaptive import AdaptiveCodec
from millpond.memory.codecs.fp8 import Fp8Codec
from millpond.memory.codecs.int2 import Int2Codec
from millpond.memory.codecs.int4 import Int4Codec
from millpond.memory.codecs.int8 import Int8Codec
from millpond.memory.codecs.plain import PlainCodec
from millpond.memory.codecs.vidkv import VidKVCodec
from millpond.memory.codecs.zipcache import ZipCacheCodec
from millpond.memory.owned import storage_bytes

from .blocks import make_block, same
from .method_docs import missing_from_docs

SETTINGS: dict[str, list[Codec]] = {
    "plain": [PlainCodec()],
    "fp8": [Fp8Codec()],
    "int8": [Int8Codec()],
    "int4": [Int4Codec()],
    "int2": [Int2Codec()],
    "adaptive": [AdaptiveCodec()],
    "vidkv": [VidKVCodec()],
    "zipcache": [ZipCacheCodec()],
}
EVERY = [pytest.param(codec, id=f"{name}-{i}") for name in SETTINGS for i, codec in enumerate(SETTINGS[name])]

blocks = st.builds(
    make_block,
    st.floats(0, 1e6),
    num_tokens=st.integers(1, 40),
    shape_LKD=st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from([2, 8])),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    advance=st.integers(0, 50),
    kind=st.sampled_from(["frame", "text"]),
)


def test_every_row_has_settings() -> None:
    assert set(SETTINGS) == set(CODECS)
    for name, codecs in SETTINGS.items():
        assert all(type(codec) is CODECS[name] and codec.name == name for codec in codecs)


@pytest.mark.parametrize("name", CODECS)
def test_says_where_it_comes_from(name: str) -> None:
    assert missing_from_docs(CODECS[name]) == []


@pytest.mark.parametrize("codec", EVERY)
@given(block=blocks)
def test_comes_back_within_its_worst_error(codec: Codec, block: KVBlock) -> None:
    before = dataclasses.replace(
        block, k_LKTD=block.k_LKTD.clone(), v_LKTD=block.v_LKTD.clone(), pos_3T=block.pos_3T.clone()
    )
    packed = codec.pack(block)
    back = codec.unpack(packed)
    assert same(block, before), "the input was written"
    assert (back.spec, back.num_tokens, back.advance, back.span, back.kind, back.id) == (
        block.spec,
        block.num_tokens,
        block.advance,
        block.span,
        block.kind,
        block.id,
    )
    assert torch.equal(back.pos_3T, block.pos_3T)
    for was, now in ((block.k_LKTD, back.k_LKTD), (block.v_LKTD, back.v_LKTD)):
        limit = codec.worst_error * was.double().abs().max()
        assert (now.double() - was.double()).abs().max() <= limit
    if codec.worst_error == 0:
        assert same(back, block)


@pytest.mark.parametrize("codec", EVERY)
@given(block=blocks)
def test_counts_its_bytes(codec: Codec, block: KVBlock) -> None:
    packed = codec.pack(block)
    assert packed.num_bytes == storage_bytes(packed.buffers.values())
    assert packed.num_bytes <= block.num_bytes
    many = codec.pack(make_block(num_tokens=1024, dtype=block.spec.dtype))
    assert many.num_bytes == pytest.approx(1024 * codec.bytes_per_token(many.spec), rel=0.02)


@pytest.mark.parametrize("codec", EVERY)
def test_refuses_what_another_packed(codec: Codec) -> None:
    packed = dataclasses.replace(codec.pack(make_block()), codec="other")
    with pytest.raises(ValueError, match=f"packed by codec 'other', not '{codec.name}'"):
        codec.unpack(packed)

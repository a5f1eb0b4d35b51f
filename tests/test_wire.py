"""The wire: what goes in comes out, bit for bit; whatever else comes in is refused before anything is allocated."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory import CODECS
from millpond.memory.wire import WireError, decode_block, encode_block, pack_tensors, unpack_tensors

from .blocks import make_block, same
from .packed import equal, packed_block

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
HEAD = struct.Struct("<4sHxxI")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=6),
    data=st.data(),
    meta=st.dictionaries(st.text(), json_values, max_size=4),
    wrap=st.sampled_from([bytes, bytearray, memoryview]),
)
def test_tensors_come_back_bit_for_bit(shapes: list[list[int]], data: st.DataObject, meta: Any, wrap: Any) -> None:
    tensors = {}
    for i, shape in enumerate(shapes):
        dtype = data.draw(st.sampled_from(DTYPES))
        tensors[f"t{i}"] = (
            torch.randint(-9, 9, shape).to(dtype).transpose(0, -1) if shape else torch.tensor(1).to(dtype)
        )
    got = unpack_tensors(wrap(b"".join(pack_tensors(tensors, meta))))
    assert got.meta == meta and list(got.tensors) == list(tensors)
    for name, tensor in tensors.items():
        back = got.tensors[name]
        assert back.dtype == tensor.dtype and back.shape == tensor.shape and raw(back) == raw(tensor)
        assert back.untyped_storage().nbytes() == back.numel() * back.element_size()


def test_nan_payloads_and_negative_zero_survive() -> None:
    odd = torch.tensor([0x7FC00001, -0x80000000, 0x7F800000], dtype=torch.int64).to(torch.int32).view(torch.float32)
    back = unpack_tensors(b"".join(pack_tensors({"x": odd}, {}))).tensors["x"]
    assert raw(back) == raw(odd)


def test_packing_copies_no_tensor_and_unpacking_gives_tensors_that_can_be_written() -> None:
    x = torch.zeros(1000)
    pieces = pack_tensors({"x": x}, {})
    x[3] = 7.0
    message = b"".join(pieces)
    back = unpack_tensors(message).tensors["x"]
    assert back[3] == 7.0
    back[3] = 8.0
    assert unpack_tensors(message).tensors["x"][3] == 7.0


def test_only_the_tensors_that_are_asked_for_are_copied_out() -> None:
    message = b"".join(pack_tensors({"a": torch.ones(2), "b": torch.ones(3)}, {"n": 1}))
    assert unpack_tensors(message, names=[]) == ({"n": 1}, {})
    assert list(unpack_tensors(message, names={"b", "c"}).tensors) == ["b"]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("num_tokens", [1, 40])
def test_blocks_of_every_codec_come_back(name: str, num_tokens: int) -> None:
    codec = CODECS[name]()
    dtype = torch.bfloat16
    block = make_block(1.5, num_tokens=num_tokens, shape_LKD=(2, 2, 64), dtype=dtype, last_s=2.25, num_before=1)
    packed, row = codec.pack(block), torch.randn(3, 5).bfloat16()
    got = decode_block(b"".join(encode_block(packed, row)))
    assert equal(got.block, packed) and got.row is not None and torch.equal(got.row, row)
    assert same(codec.unpack(got.block), codec.unpack(packed))
    assert decode_block(b"".join(encode_block(packed))).row is None


def test_every_message_that_is_cut_short_or_goes_on_is_refused() -> None:
    message = b"".join(encode_block(packed_block(2), torch.ones(3)))
    for length in range(len(message)):
        with pytest.raises(WireError, match="got "):
            decode_block(message[:length])
    with pytest.raises(WireError, match=r"got a message of \d+ bytes; its directory says \d+"):
        decode_block(message + b"\0")


@given(data=st.data())
def test_flipped_bits_give_a_block_or_a_wire_error(data: st.DataObject) -> None:
    message = bytearray(b"".join(encode_block(packed_block(2), torch.ones(3))))
    for at in data.draw(st.lists(st.integers(0, 8 * len(message) // 2), min_size=1, max_size=4)):
        message[at // 8] ^= 1 << at % 8
    try:
        block, row = decode_block(message)
    except WireError:
        return
    held = [*block.buffers.values(), *([] if row is None else [row])]
    assert sum(t.untyped_storage().nbytes() for t in held) <= len(message)


@given(junk=st.binary(max_size=300))
def test_junk_is_refused(junk: bytes) -> None:
    for message in (junk, HEAD.pack(b"MLPD", 1, len(junk)) + junk):
        with pytest.raises(WireError, match=r"got |; "):
            unpack_tensors(message)


@given(directory=json_values | st.fixed_dictionaries({"meta": json_values, "tensors": json_values}))
def test_any_directory_is_refused_or_read(directory: Any) -> None:
    try:
        assert unpack_tensors(message_of(directory)) == (directory["meta"], {})
    except WireError:
        pass


def message_of(directory: Any, payload: bytes = b"") -> bytes:
    text = directory if isinstance(directory, bytes) else json.dumps(directory).encode()
    head = HEAD.pack(b"MLPD", 1, len(text)) + text
    return head + (bytes(-len(head) % 64) + payload if payload else b"")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["x", "float32", [2**50]], "its directory says"),
        (["x", "float32", [2**40, 2**40]], "a tensor is listed as"),
        (["x", "float32", [2**62, 0]], "a tensor is listed as"),
        (["x", "float32", [-4]], "a tensor is listed as"),
        (["x", "float32", [True]], "a tensor is listed as"),
        (["x", "float32", [1.0]], "a tensor is listed as"),
        (["x", "float32", [1] * 9], "a tensor is listed as"),
        (["x", "complex64", [1]], "a tensor is listed as"),
        (["x", "torch.float32", [1]], "a tensor is listed as"),
        (["x", "__class__", [1]], "a tensor is listed as"),
        (["x" * 129, "float32", [1]], "a tensor is listed as"),
        ([1, "float32", [1]], "a tensor is listed as"),
        (["x", "float32"], "a tensor is listed as"),
        ("xfl", "a tensor is listed as"),
        (None, "a tensor is listed as"),
    ],
)
def test_lies_about_tensors_are_refused(entry: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", lambda *a, **k: pytest.fail("allocated for a message that is a lie"))
    with pytest.raises(WireError, match=message):
        unpack_tensors(message_of({"meta": {}, "tensors": [entry]}, bytes(4)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "at least 12 bytes; got 0"),
        (HEAD.pack(b"PK\3\4", 1, 0), "begins with b'MLPD'; got b'PK"),
        (HEAD.pack(b"MLPD", 2, 0), "got a message of version 2; this program reads version 1"),
        (HEAD.pack(b"MLPD", 1, 2**32 - 1), "got a directory of 4294967295 bytes in a message of 12"),
        (message_of(b"[" * 100_000), "the directory is not JSON"),
        (message_of(b"\xff\xfe"), "the directory is not JSON"),
        (message_of(b"9" * 10_000), "the directory is not JSON"),
        (message_of(b'{"meta":{"x":NaN},"tensors":[]}'), "got NaN"),
        (message_of({"meta": {}, "tensors": [], "more": 1}), "got something else"),
        (message_of({"meta": [], "tensors": []}), "got something else"),
        (message_of({"meta": {}, "tensors": [["x", "int8", [0]]] * 257}), "at most 256 tensors"),
        (message_of({"meta": {}, "tensors": [["x", "int8", [2]]] * 2}, bytes(66)), "a name of its own"),
    ],
)
def test_broken_messages_are_refused_with_a_sentence(data: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        unpack_tensors(data)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("codec", 3, "codec is a word"),
        ("codec", "x" * 1000, "codec is a word"),
        ("dtype", "int7", "keys and values are of one of"),
        ("dtype", "int8", "floating-point dtype; got torch.int8"),
        ("layers", 0, "num_layers must be at least 1; got 0"),
        ("heads", -1, "heads is a whole number"),
        ("channels", 2**63, "channels is a whole number"),
        ("tokens", 0, "at least one token; got 0"),
        ("tokens", True, "tokens is a whole number"),
        ("advance", 1.0, "advance is a whole number"),
        ("start_s", 9.0, "a span must end at or after its start"),
        ("start_s", 0, "start_s is a finite number"),
        ("end_s", None, "end_s is a finite number"),
        ("kind", "picture", "of kind frame or text; got picture"),
        ("id", "7", "id is a whole number"),
        ("before", 4, "must fit into 2 tokens; got 4"),
    ],
)
def test_blocks_that_cannot_be_are_refused(field: str, value: Any, message: str) -> None:
    meta, tensors = unpack_tensors(b"".join(encode_block(packed_block(2))))
    assert field in meta
    with pytest.raises(WireError, match=message):
        decode_block(b"".join(pack_tensors(tensors, {**meta, field: value})))
    del meta[field]
    with pytest.raises(WireError, match="got None"):
        decode_block(b"".join(pack_tensors(tensors, meta)))


def test_a_span_without_end_is_refused() -> None:
    message = b"".join(encode_block(packed_block(2)))
    at = message.index(b'"end_s":0.0')
    message = message[:at] + b'"end_s":9e9' + message[at + 11 :]
    assert decode_block(message).block.span.end_s == 9e9
    at = message.index(b'"end_s":9e9')
    longer = message[:at] + b'"end_s":9e999' + message[at + 11 :]
    with pytest.raises(WireError, match="got "):
        decode_block(longer)
    with pytest.raises(WireError, match="end_s is a finite number of seconds; got inf"):
        meta, _ = unpack_tensors(message)
        text = json.dumps({"meta": meta, "tensors": []}).replace("9000000000.0", "9e999").encode()
        decode_block(message_of(text))


def test_a_tensor_that_is_no_buffer_is_refused() -> None:
    meta, tensors = unpack_tensors(b"".join(encode_block(packed_block(2))))
    with pytest.raises(WireError, match="a block has a row and buffers; got a tensor named 'other'"):
        decode_block(b"".join(pack_tensors({**tensors, "other": torch.ones(1)}, meta)))


@pytest.mark.parametrize(
    ("tensors", "meta", "message"),
    [
        ({"x": torch.zeros(1, dtype=torch.complex64)}, {}, "must be of one of .*; got torch.complex64"),
        ({f"{i}": torch.zeros(1) for i in range(257)}, {}, "at most 256 tensors; got 257"),
        ({"x" * 129: torch.zeros(1)}, {}, "at most 128 letters"),
        ({"x": torch.zeros([1] * 9)}, {}, "8 dimensions"),
        ({}, {"x": float("nan")}, "what JSON can say; got"),
        ({}, {"x": torch.zeros(1)}, "what JSON can say; got"),
        ({}, {"x": "y" * 2**20}, "1048576 bytes at most; got 10486"),
    ],
)
def test_what_cannot_be_packed_is_refused(tensors: Any, meta: Any, message: str) -> None:
    with pytest.raises(WireError, match=message):
        pack_tensors(tensors, meta)


def test_a_view_that_is_no_row_of_bytes_is_refused() -> None:
    for view in (memoryview(bytes(64)).cast("I"), memoryview(bytes(64))[::2], memoryview(bytes(64)).cast("B", (8, 8))):
        with pytest.raises(WireError, match="a row of bytes; got"):
            unpack_tensors(view)

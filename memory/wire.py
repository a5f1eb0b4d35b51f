"""Tensors and packed blocks as bytes, for disk and network, and back: whatever is read is hostile until checked."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..stream import Span
from .block import BlockId, KVSpec, PackedBlock

# A message, numbers little-endian:
#
#     head: magic, version, bytes of the directory | directory: JSON | zeros | tensor 0 | zeros | tensor 1 | ...
#                                                                    ^ each begins at a multiple of 64
#
# The directory is {"meta": {...}, "tensors": [[name, dtype, shape], ...]}. It says how long the message is, and a
# message of any other length is refused, so nothing larger than what was read is ever allocated.

VERSION = 1

_MAGIC = b"MLPD"
_HEAD = struct.Struct("<4sHxxI")
_ALIGN = 64
_MAX_DIRECTORY_BYTES = 2**20
_MAX_TENSORS = 256
_MAX_NAME = 128
_MAX_DIMS = 8

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}

_ROW = "row"
_BUFFER = "buffer."


class WireError(ValueError):
    """Bytes that are not what they say, or that this version cannot read."""


class Unpacked(NamedTuple):
    """What a message holds."""

    meta: dict[str, Any]
    tensors: dict[str, Tensor]


class DecodedBlock(NamedTuple):
    """A block as it was at rest, and its row in the index of those days; None where it had none."""

    block: PackedBlock
    row: Tensor | None


class _Entry(NamedTuple):
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    at: int  # its first byte in the message
    num_bytes: int


def pack_tensors(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> list[bytes | memoryview]:
    """One message, as pieces to be written one after the other (`b"".join` makes one of them).

    Contiguous tensors on the host are not copied: their pieces show the tensors' own memory.

    Args:
        tensors: by name, at most 256; of any shape and device.
        meta: what JSON can say, NaN and infinity left out; small: the directory is at most 1 MiB.
    """
    if len(tensors) > _MAX_TENSORS:
        raise WireError(f"a message holds at most {_MAX_TENSORS} tensors; got {len(tensors)}")
    table = []
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise WireError(f"tensor {name!r} must be of one of {', '.join(_DTYPES)}; got {tensor.dtype}")
        if len(name) > _MAX_NAME or tensor.ndim > _MAX_DIMS:
            raise WireError(
                f"tensor names have at most {_MAX_NAME} letters, tensors {_MAX_DIMS} dimensions; got {name[:200]!r} "
                f"of shape {tuple(tensor.shape)}"
            )
        table.append([name, _NAMES[tensor.dtype], list(tensor.shape)])
    try:
        directory = json.dumps({"meta": dict(meta), "tensors": table}, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"meta must be what JSON can say; got {error}") from error
    if len(directory) > _MAX_DIRECTORY_BYTES:
        raise WireError(f"meta must be small, {_MAX_DIRECTORY_BYTES} bytes at most; got {len(directory)}")
    pieces: list[bytes | memoryview] = [_HEAD.pack(_MAGIC, VERSION, len(directory)), directory]
    at = _HEAD.size + len(directory)
    for tensor in tensors.values():
        view = _bytes_of(tensor)
        pieces += [bytes(-at % _ALIGN), view]
        at += -at % _ALIGN + len(view)
    return [piece for piece in pieces if len(piece)]


def unpack_tensors(data: bytes | bytearray | memoryview, names: Collection[str] | None = None) -> Unpacked:
    """What `pack_tensors` was given, in storages of their own; WireError for anything else.

    Args:
        data: one message, whole.
        names: which of its tensors to copy out, where they are there; all of them by default.
    """
    view = memoryview(data)
    if view.ndim != 1 or view.itemsize != 1 or not view.contiguous:
        raise WireError(f"a message is a row of bytes; got {view.ndim} dimensions of {view.itemsize} bytes each")
    meta, entries = _read_directory(view.cast("B"))
    tensors = {}
    for entry in entries:
        if names is None or entry.name in names:
            raw = torch.empty(entry.num_bytes, dtype=torch.uint8)
            raw.numpy().data[:] = view[entry.at : entry.at + entry.num_bytes].cast("B")
            tensors[entry.name] = raw.view(entry.dtype).view(entry.shape)
    return Unpacked(meta, tensors)


def encode_block(block: PackedBlock, row: Tensor | None = None) -> list[bytes | memoryview]:
    """The block as one message, in pieces as of `pack_tensors`; `row` is what the index needs to know of it."""
    meta = {
        "codec": block.codec,
        "layers": block.spec.num_layers,
        "heads": block.spec.num_kv_heads,
        "channels": block.spec.head_dim,
        "dtype": _NAMES.get(block.spec.dtype),
        "tokens": block.num_tokens,
        "advance": block.advance,
        "start_s": float(block.span.start_s),
        "end_s": float(block.span.end_s),
        "kind": block.kind,
        "id": block.id,
        "before": block.num_before,
        "after": block.num_after,
    }
    tensors = {_BUFFER + name: tensor for name, tensor in block.buffers.items()}
    return pack_tensors(tensors if row is None else {**tensors, _ROW: row}, meta)


def decode_block(data: bytes | bytearray | memoryview) -> DecodedBlock:
    """What `encode_block` was given; WireError for anything else.

    That the buffers are what the codec named in the block makes is for that codec to check, when it unpacks them.
    """
    meta, tensors = unpack_tensors(data)
    row = tensors.pop(_ROW, None)
    for name in tensors:
        if not name.startswith(_BUFFER):
            raise WireError(f"a block has a row and buffers; got a tensor named {name!r}")
    buffers = {name.removeprefix(_BUFFER): tensor for name, tensor in tensors.items()}
    try:
        dtype_name = _text(meta, "dtype")
        if dtype_name not in _DTYPES:
            raise WireError(f"keys and values are of one of {', '.join(_DTYPES)}; got {dtype_name[:40]!r}")
        spec = KVSpec(_count(meta, "layers"), _count(meta, "heads"), _count(meta, "channels"), _DTYPES[dtype_name])
        block = PackedBlock(
            codec=_text(meta, "codec"),
            spec=spec,
            buffers=buffers,
            num_tokens=_count(meta, "tokens"),
            advance=_count(meta, "advance"),
            span=Span(_seconds(meta, "start_s"), _seconds(meta, "end_s")),
            kind=_kind(meta),
            id=BlockId(_count(meta, "id")),
            num_before=_count(meta, "before"),
            num_after=_count(meta, "after"),
        )
    except WireError:
        raise
    except ValueError as error:  # what a block, a span or a spec says of itself
        raise WireError(f"this is no block; {error}") from error
    return DecodedBlock(block, row)


def _bytes_of(tensor: Tensor) -> memoryview:
    tensor = tensor.detach().to("cpu").contiguous().reshape(-1)
    return tensor.view(torch.uint8).numpy().data


def _read_directory(view: memoryview) -> tuple[dict[str, Any], list[_Entry]]:
    if len(view) < _HEAD.size:
        raise WireError(f"a message has at least {_HEAD.size} bytes; got {len(view)}")
    magic, version, directory_bytes = _HEAD.unpack_from(view)
    if magic != _MAGIC:
        raise WireError(f"a message begins with {_MAGIC!r}; got {magic!r}")
    if version != VERSION:
        raise WireError(f"got a message of version {version}; this program reads version {VERSION}")
    at = _HEAD.size + directory_bytes
    if directory_bytes > _MAX_DIRECTORY_BYTES or at > len(view):
        raise WireError(
            f"got a directory of {directory_bytes} bytes in a message of {len(view)}; at most "
            f"{_MAX_DIRECTORY_BYTES} are read"
        )
    try:
        directory = json.loads(bytes(view[_HEAD.size : at]).decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the directory is not JSON; got {str(error)[:200]}") from error
    match directory:
        case {"meta": dict(meta), "tensors": list(table), **rest} if not rest and len(table) <= _MAX_TENSORS:
            pass
        case _:
            raise WireError(f"a directory has a meta and at most {_MAX_TENSORS} tensors; got something else")
    entries: list[_Entry] = []
    for listed in table:
        entries.append(_read_entry(listed, at + -at % _ALIGN))
        at = entries[-1].at + entries[-1].num_bytes
    if at != len(view):
        raise WireError(f"got a message of {len(view)} bytes; its directory says {at}")
    if len({entry.name for entry in entries}) < len(entries):
        raise WireError(f"every tensor has a name of its own; got {[entry.name for entry in entries][:20]}")
    return meta, entries


def _read_entry(listed: object, at: int) -> _Entry:
    match listed:
        case [str(name), str(dtype_name), list(shape)] if (
            len(name) <= _MAX_NAME
            and dtype_name in _DTYPES
            and len(shape) <= _MAX_DIMS
            and all(type(side) is int and side >= 0 for side in shape)
            and math.prod(max(side, 1) for side in shape) < 2**60  # an empty tensor has strides too
        ):
            dtype = _DTYPES[dtype_name]
            return _Entry(name, dtype, tuple(shape), at, math.prod(shape) * dtype.itemsize)
        case _:
            raise WireError(f"a tensor is listed as name, dtype and shape; got {str(listed)[:200]}")


def _refuse(constant: str) -> None:
    raise WireError(f"numbers are finite; got {constant}")


def _count(meta: Mapping[str, Any], name: str) -> int:
    value = meta.get(name)
    if type(value) is not int or not 0 <= value < 2**63:
        raise WireError(f"{name} is a whole number, not negative; got {str(value)[:40]}")
    return value


def _seconds(meta: Mapping[str, Any], name: str) -> float:
    value = meta.get(name)
    if type(value) is not float or not math.isfinite(value):
        raise WireError(f"{name} is a finite number of seconds; got {str(value)[:40]}")
    return value


def _text(meta: Mapping[str, Any], name: str) -> str:
    value = meta.get(name)
    if type(value) is not str or len(value) > _MAX_NAME:
        raise WireError(f"{name} is a word of at most {_MAX_NAME} letters; got {str(value)[:40]}")
    return value


def _kind(meta: Mapping[str, Any]) -> Literal["frame", "text"]:
    match meta.get("kind"):
        case "frame":
            return "frame"
        case "text":
            return "text"
        case other:
            raise WireError(f"a block is of kind frame or text; got {str(other)[:40]}")

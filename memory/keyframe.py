"""Keyframe: a picture of the archive, and the two records that it is kept as."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..stream import Span
from ..stream.jpeg import decode_jpeg, encode_jpeg
from .wire import WireError, pack_tensors, unpack_tensors

# Shapes: H rows of pixels, W columns, 3 colours, D channels of the picture's vector.

_EXTRA = "extra."
_MAX_NAME = 128


class Keyframe(NamedTuple):
    """Made by Archive, read by recall. vector_D: float32 and of length 1; None where it was of another model."""

    number: int
    span: Span
    event: int
    picture_HW3: np.ndarray
    vector_D: Tensor | None
    extra: dict[str, Tensor]


class Head(NamedTuple):
    """What the archive's index knows of a keyframe. vectors: the name of what made the vector."""

    number: int
    span: Span
    event: int
    is_first: bool
    vectors: str
    vector_D: Tensor


class Pixels(NamedTuple):
    """What a keyframe shows, and what came along with it."""

    picture_HW3: np.ndarray
    extra: dict[str, Tensor]


def encode_head(head: Head) -> list[bytes | memoryview]:
    """The small record: read when an archive is opened again."""
    meta = {
        "record": "head",
        "number": head.number,
        "start_s": float(head.span.start_s),
        "end_s": float(head.span.end_s),
        "event": head.event,
        "is_first": head.is_first,
        "vectors": head.vectors,
    }
    return pack_tensors({"vector": head.vector_D.to(torch.float16)}, meta)


def decode_head(data: bytes) -> Head:
    """What `encode_head` was given; WireError for anything else."""
    meta, tensors = unpack_tensors(data)
    vector_D = tensors.get("vector")
    if vector_D is None or vector_D.dtype != torch.float16 or vector_D.ndim != 1 or not vector_D.numel():
        raise WireError(f"a keyframe's head has a vector of halves; got {None if vector_D is None else vector_D.dtype}")
    if not bool(torch.isfinite(vector_D).all()) or float(vector_D.float().norm()) > 1.01:
        raise WireError(f"a keyframe's vector has length 1; got {float(vector_D.float().norm())}")
    match meta:
        case {
            "record": "head",
            "number": int(number),
            "start_s": float(start_s),
            "end_s": float(end_s),
            "event": int(event),
            "is_first": bool(is_first),
            "vectors": str(vectors),
        } if (
            0 <= number < 2**61
            and 0 <= event < 2**62
            and math.isfinite(start_s)
            and start_s <= end_s < math.inf
            and len(vectors) <= _MAX_NAME
        ):
            return Head(number, Span(start_s, end_s), event, is_first, vectors, vector_D)
        case _:
            raise WireError(f"this is no keyframe's head; got {str(meta)[:200]}")


def encode_pixels(number: int, picture_HW3: np.ndarray, quality: int, extra: Mapping[str, Tensor]) -> list[Any]:
    """The large record: read when the keyframe is."""
    jpeg = torch.frombuffer(bytearray(encode_jpeg(picture_HW3, quality)), dtype=torch.uint8)
    tensors = {"jpeg": jpeg, **{_EXTRA + name: tensor for name, tensor in extra.items()}}
    return pack_tensors(tensors, {"record": "pixels", "number": number})


def decode_pixels(data: bytes, number: int, max_pixels: int) -> Pixels:
    """What `encode_pixels` was given; ValueError for anything else."""
    jpeg, tensors = _unpack_pixels(data, number)
    if not all(name.startswith(_EXTRA) for name in tensors):
        raise WireError(f"a picture has a JPEG and extras; got {list(tensors)[:20]}")
    extra = {name.removeprefix(_EXTRA): tensor for name, tensor in tensors.items()}
    return Pixels(decode_jpeg(memoryview(jpeg.reshape(-1).numpy()), max_pixels), extra)


def picture_bytes(data: bytes, number: int) -> bytes:
    """The JPEG alone, as it was written; WireError for anything but what `encode_pixels` makes."""
    jpeg, _ = _unpack_pixels(data, number)
    return jpeg.reshape(-1).numpy().tobytes()


def _unpack_pixels(data: bytes, number: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The JPEG, and all besides."""
    meta, tensors = unpack_tensors(data)
    jpeg = tensors.pop("jpeg", None)
    if meta != {"record": "pixels", "number": number} or jpeg is None or jpeg.dtype != torch.uint8:
        raise WireError(f"this is not picture {number}; got {str(meta)[:200]}")
    return jpeg, tensors

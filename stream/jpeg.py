"""Pictures as JPEG, and back: what is decoded is hostile until checked."""

from __future__ import annotations

import io
import struct

import numpy as np

# Shapes: H rows of pixels, W columns, 3 colours.

MAX_SIDE = 65535
"""Pixels of the longest side that JPEG can say."""

_MAX_PIXELS = 2**25


def check_picture(rgb_HW3: np.ndarray) -> None:
    """ValueError unless `encode_jpeg` takes this picture."""
    if not isinstance(rgb_HW3, np.ndarray) or rgb_HW3.ndim != 3 or rgb_HW3.shape[2] != 3 or rgb_HW3.dtype != np.uint8:
        got = f"{rgb_HW3.dtype} {rgb_HW3.shape}" if isinstance(rgb_HW3, np.ndarray) else type(rgb_HW3).__name__
        raise ValueError(f"a picture is a uint8 RGB array of shape (height, width, 3); got {got}")
    if not 1 <= min(rgb_HW3.shape[:2]) <= max(rgb_HW3.shape[:2]) <= MAX_SIDE:
        raise ValueError(f"a JPEG picture has sides of 1 to {MAX_SIDE} pixels; got shape {rgb_HW3.shape}")


def encode_jpeg(rgb_HW3: np.ndarray, quality: int = 85) -> bytes:
    """The picture as JPEG.

    Args:
        rgb_HW3: uint8.
        quality: 1 (small) to 95 (faithful).
    """
    check_picture(rgb_HW3)
    if not 1 <= quality <= 95:
        raise ValueError(f"JPEG quality goes from 1 to 95; got {quality}")
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb_HW3)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def decode_jpeg(data: bytes | bytearray | memoryview, max_pixels: int = _MAX_PIXELS) -> np.ndarray:
    """The picture, uint8 RGB; ValueError for what is no JPEG, cut short, or larger than `max_pixels`.

    Sides are read from the header, and refused, before pixels are allocated.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        # Not Image.open: it tries other formats, and warns of large pictures where this refuses them.
        image = JpegImageFile(io.BytesIO(data))
    except (SyntaxError, OSError, ValueError, struct.error, ArithmeticError, LookupError) as error:
        raise ValueError(f"got {len(data)} bytes that are no JPEG picture ({_short(error)})") from error
    with image:
        if not 1 <= image.width * image.height <= max_pixels:
            raise ValueError(
                f"got a JPEG picture of {image.width}x{image.height} pixels; at most {max_pixels} are decoded"
            )
        try:
            return np.array(image.convert("RGB"))
        except (SyntaxError, OSError, ValueError, struct.error, ArithmeticError, LookupError) as error:
            raise ValueError(f"got a damaged JPEG picture of {len(data)} bytes ({_short(error)})") from error


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"

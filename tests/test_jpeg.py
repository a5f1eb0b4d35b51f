"""JPEG: pictures come back alike, and what is no picture is refused with a sentence."""

from __future__ import annotations

import io
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from millpond.stream.jpeg import decode_jpeg, encode_jpeg

# Shapes: H rows of pixels, W columns, 3 colours.


def picture(height: int = 40, width: int = 56) -> np.ndarray:
    """Soft colours, as JPEG likes them."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 3 % 256, columns * 2 % 256, (rows + columns) % 256], -1).astype(np.uint8)


JPEG = encode_jpeg(picture())


@settings(max_examples=30)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(60, 95))
def test_a_picture_comes_back_alike(height: int, width: int, quality: int) -> None:
    rgb_HW3 = picture(height, width)
    back_HW3 = decode_jpeg(encode_jpeg(rgb_HW3, quality))
    assert (back_HW3.shape, back_HW3.dtype) == (rgb_HW3.shape, rgb_HW3.dtype)
    assert np.abs(back_HW3.astype(int) - rgb_HW3).mean() < 12


def test_a_view_that_is_not_contiguous_is_coded_as_it_shows() -> None:
    whole_HW3 = picture(64, 64)
    part_HW3 = whole_HW3[::2, ::-2]
    assert encode_jpeg(part_HW3) == encode_jpeg(part_HW3.copy())


def test_higher_quality_is_larger_and_nearer() -> None:
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    small, large = encode_jpeg(noise_HW3, 20), encode_jpeg(noise_HW3, 95)
    far, near = (np.abs(decode_jpeg(data).astype(int) - noise_HW3).mean() for data in (small, large))
    assert len(small) < len(large) and far > near


@pytest.mark.parametrize(
    ("rgb", "sentence"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 RGB array.*got uint8 \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "got float32"),
        (np.zeros((0, 4, 3), np.uint8), "1 to 65535 pixels; got shape"),
        (np.zeros((1, 65536, 3), np.uint8), "1 to 65535 pixels; got shape"),
        ("picture", "got str"),
    ],
)
def test_what_is_no_picture_is_not_coded(rgb: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        encode_jpeg(rgb)


@pytest.mark.parametrize("quality", [0, 96, -1])
def test_quality_has_limits(quality: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 95; got {quality}"):
        encode_jpeg(picture(), quality)


def as_png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture()).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8", b"hello", as_png(), b"\xff\xd8\xff" + bytes(100)])
def test_what_is_no_jpeg_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=f"got (a damaged JPEG picture of )?{len(data)} bytes"):
        decode_jpeg(data)


@pytest.mark.parametrize("num_bytes", [2, 20, 100, 400, len(JPEG) - 200, len(JPEG) - 3])
def test_a_picture_cut_short_is_refused(num_bytes: int) -> None:
    with pytest.raises(ValueError, match="got"):
        decode_jpeg(JPEG[:num_bytes])


def test_a_bomb_is_refused_before_its_pixels_are_allocated() -> None:
    at = re.search(rb"\xff\xc0..\x08", JPEG, re.DOTALL)
    assert at is not None
    bomb = JPEG[: at.end()] + b"\xff\xff\xff\xff" + JPEG[at.end() + 4 :]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="65535x65535 pixels; at most"):
            decode_jpeg(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_max_pixels_is_the_last_that_is_decoded() -> None:
    assert decode_jpeg(JPEG, 40 * 56).shape == (40, 56, 3)
    with pytest.raises(ValueError, match="56x40 pixels; at most 2239"):
        decode_jpeg(JPEG, 40 * 56 - 1)


def test_a_grey_picture_comes_back_with_three_colours() -> None:
    out = io.BytesIO()
    Image.fromarray(picture()[:, :, 0]).save(out, "JPEG")
    assert decode_jpeg(out.getvalue()).shape == (40, 56, 3)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, len(JPEG) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_flipped_bytes_give_a_picture_or_a_sentence(flips: list[tuple[int, int]]) -> None:
    data = bytearray(JPEG)
    for at, value in flips:
        data[at] = value
    try:
        assert decode_jpeg(data, 10**6).dtype == np.uint8
    except ValueError as error:
        assert "got" in str(error)

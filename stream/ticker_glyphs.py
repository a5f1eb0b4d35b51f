"""The ticker of a wide world, painted: two digits of five by seven dots on a strip along the lower edge."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np

from .world import TICKER_SHARE, Ticker

# Shapes: N moments, H height, W width; h rows of the strip.

_DOTS = {
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111",
    "3": "11110 00001 00001 01110 00001 00001 11110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "00110 01000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00010 01100",
}
_COLUMNS = 6  # of the picture's width; a digit stands in the middle of one
_WIDTH, _HEIGHT = 0.66, 0.84  # of its column and of the strip


def paint_ticker(ticker: Ticker, rgb_NHW3: np.ndarray, times_N: np.ndarray) -> None:
    """Paints the strip over the pictures, floats in 0..1, in place."""
    _, height, width, _ = rgb_NHW3.shape
    begin = round(height * (1 - TICKER_SHARE))
    ground, ink = (0.06, 0.95) if ticker.is_dark else (0.93, 0.05)
    for picture_HW3, time_s in zip(rgb_NHW3, times_N, strict=True):
        shape_hW = _digits(ticker.reading(float(time_s)), ticker.column, height - begin, width)
        picture_HW3[begin:] = (ground + (ink - ground) * shape_hW)[..., None]


@cache
def _glyph(digit: str) -> np.ndarray:
    return np.array([[dot == "1" for dot in row] for row in _DOTS[digit].split()], dtype=np.float32)


@lru_cache(maxsize=512)
def _digits(number: str, column: int, height: int, width: int) -> np.ndarray:
    """Where the ink is: 0 to 1, of three by three samples a pixel."""
    y = (np.arange(3 * height) + 0.5) / (3 * height)
    x = (np.arange(3 * width) + 0.5) / (3 * width) * _COLUMNS
    ink = np.zeros((3 * height, 3 * width), dtype=np.float32)
    for place, digit in enumerate(number):
        row = np.floor((y - (1 - _HEIGHT) / 2) / _HEIGHT * 7).astype(int)
        dot = np.floor((x - (column + place) - (1 - _WIDTH) / 2) / _WIDTH * 5).astype(int)
        inside = ((row >= 0) & (row < 7))[:, None] & ((dot >= 0) & (dot < 5))[None, :]
        ink += _glyph(digit)[row.clip(0, 6)][:, dot.clip(0, 4)] * inside
    return ink.reshape(height, 3, width, 3).mean((1, 3))

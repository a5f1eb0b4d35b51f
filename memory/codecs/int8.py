"""8 bits a number: about half of bfloat16, and hardly told from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .grid import Grid
from .kivi import KiviCodec


@dataclass(frozen=True)
class Int8Codec(KiviCodec):
    """Keys per channel over 256 tokens, values per token over 128 channels, 256 levels from smallest to largest.

    Off by at most half a step, 1/255 of the largest magnitude, and rounding to the block's dtype.

    Baseline: round to nearest, 8 bits.
    Differs from the paper: None.
    """

    name: ClassVar[str] = "int8"
    worst_error: ClassVar[float] = 0.008
    keys: ClassVar[Grid] = Grid(256, group=256)
    values: ClassVar[Grid] = Grid(256, group=128)

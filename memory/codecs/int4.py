"""4 bits a number, keys per channel and values per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .grid import Grid
from .kivi import KiviCodec


@dataclass(frozen=True)
class Int4Codec(KiviCodec):
    """Keys per channel over 256 tokens, values per token over 32 channels, 16 levels from smallest to largest.

    Off by at most half a step, 1/15 of the largest magnitude, and rounding to the block's dtype.

    Paper: KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache (arXiv 2402.02750)
    Differs from the paper: statistics are of one block, keys in groups of 256 tokens (the paper: 32), so that scales
        cost an eighth of a bit and not one; no residual window is kept here: the tiers above hold recent blocks exact.
    """

    name: ClassVar[str] = "int4"
    worst_error: ClassVar[float] = 0.071
    keys: ClassVar[Grid] = Grid(16, group=256)
    values: ClassVar[Grid] = Grid(16, group=32)

"""A whole block of frames through a tower, and the evidence that compressors want of it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..sight import Need
from ..towers import Prepared, Tower
from ..towers.walk import walk
from .evidence import Evidence, probed_layers

# Shapes: T patches, C tower channels, H heads, D channels per head, U units, O language channels, E DeepStack taps.


class Passed(NamedTuple):
    """What a pass gave: every unit's row for the language model, its taps, and the evidence asked for."""

    y_UO: Tensor
    deep_EUO: Tensor | None
    evidence: Evidence


def pass_all(tower: Tower, prepared: Prepared, needs: frozenset[Need]) -> Passed:
    """All patches through all layers, as the family's own `see` computes them, with an eye on what is needed."""
    evidence = Evidence(probed_layers(tower, needs))

    def look(layer: int, x_TC: Tensor, q_THD: Tensor, k_THD: Tensor, v_THD: Tensor) -> None:
        evidence.look(layer, q_THD, k_THD, needs)

    walked = walk(tower, prepared, look)
    if Need.FEATURES in needs:
        evidence.x_TC = walked.x_TC
    return Passed(walked.y_UO, walked.deep_EUO, evidence)

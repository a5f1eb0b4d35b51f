"""Delta reuse: a frame costs what is new in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...stream.change import ChangeRule
from ..model import VisionHalf
from .base import Reuser

if TYPE_CHECKING:
    from .delta_seer import DeltaSeer


@dataclass(frozen=True, slots=True)
class DeltaReuse(Reuser):
    """Only patches that changed since they were last computed go through the tower, and attend to all the others.

    For each block of frames: nothing changed: the cached tokens are copied. Something did: the units (patches that
    become one token together) in which a patch changed, those that must be fresh, and the oldest of the rest get
    norms, queries, keys, values, attention, projection and MLP in every layer, the same ones in all layers; keys and
    values of the others stay cached. After a cut, where most changed, and where the features of refreshed patches
    show that the cached ones have drifted: all of them.

    Baseline: Millpond's own. The gating by change at a place goes back to Eventful Transformers.
    Differs from the paper: there is none. Against STC-Cacher: selection by pixels before the first layer instead of
        by keys in each, so that keys and norms are saved too; by what changed instead of a fixed share and interval.

    rule: what counts as change.
    max_age_blocks: no feature is older than this, in blocks of its stream in which anything was computed; at least 1.
    full_share: share of the units from which on the whole picture is computed, 0 to 1.
    max_drift: how far features may have moved, as 1 - cosine, before the whole picture is computed; above 0.
    num_buckets: into how many steps the number of computed units is rounded up, at least 1.
    falls_back: whether dense frames are taken where they measure faster here; which is then a matter of time, so
        off where the same frames must give the same tokens.
    """

    rule: ChangeRule = field(default_factory=ChangeRule)
    max_age_blocks: int = 64
    full_share: float = 0.75
    max_drift: float = 0.1
    num_buckets: int = 32
    falls_back: bool = True

    def __post_init__(self) -> None:
        for name in ("max_age_blocks", "num_buckets"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < 1:
                raise ValueError(f"{name} must be a whole number, at least 1; got {given!r}")
        if not 0 <= self.full_share <= 1:
            raise ValueError(f"full_share is a share of the units, 0 to 1; got {self.full_share}")
        if not self.max_drift > 0:
            raise ValueError(f"max_drift must be above 0; got {self.max_drift}")

    def over(self, model: VisionHalf, *, budget_bytes: int = 2 * 2**30) -> DeltaSeer:
        from .delta_seer import DeltaSeer

        return DeltaSeer(self, model, budget_bytes)

"""MemoryConfig: how much one session remembers of keys and values, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .codecs import CODECS, Codec
from .evictors import EVICTORS, Evictor
from .pruners import PRUNERS, Pruner
from .retrievers import RETRIEVERS, Retriever
from .tiers import TIERS, Tier


class BudgetError(ValueError):
    """A limit that no memory could keep to."""


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """How much one session remembers, and how. Parts are named by their row, or given as they are."""

    recent_frames: int = 8
    """How many of the newest frame blocks stay exact and in every context."""

    budget_bytes: int = 512 * 2**20
    """Cap on the keys and values of everything older, their index included; 0 keeps none of them."""

    recall_blocks: int = 8
    """How many older blocks a question brings back at most."""

    device_bytes: int = 128 * 2**20
    """How much of `budget_bytes` may lie on the accelerator, where the tier is cascade; the rest is on the host."""

    pruner: str | Pruner = "none"
    """Which tokens of a block are kept as it leaves the recent window: a row of PRUNERS. One that looks at questions
    prunes what is recalled for one."""

    codec: str | Codec = "int4"
    """What older blocks cost at rest: a row of CODECS."""

    tier: str | Callable[[], Tier] = "slab"
    """Where older blocks are kept: a row of TIERS, or what makes one."""

    evictor: str | Evictor = "least_novel"
    """Which block leaves when the budget is full: a row of EVICTORS."""

    retriever: str | Retriever = "by_key_and_novelty"
    """Which older blocks a question needs: a row of RETRIEVERS."""

    def __post_init__(self) -> None:
        for name, least in (("recent_frames", 1), ("budget_bytes", 0), ("recall_blocks", 0), ("device_bytes", 0)):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < least:
                raise BudgetError(f"{name} must be a whole number, at least {least}; got {given!r}")
        for part, table in (
            (self.pruner, PRUNERS),
            (self.codec, CODECS),
            (self.tier, TIERS),
            (self.evictor, EVICTORS),
            (self.retriever, RETRIEVERS),
        ):
            if isinstance(part, str):
                table[part]  # an unknown name raises, and lists the known ones

"""KV in, KV out, never over budget. Knows nothing of models or pictures."""

from .block import BlockId, KVBlock, KVSpec, PackedBlock, next_block_id
from .codecs import CODECS, Codec
from .config import BudgetError, MemoryConfig
from .evictors import EVICTORS, Evictor
from .pruners import PRUNERS, Pruner
from .recall import Recall
from .retrievers import RETRIEVERS, Retriever
from .stats import MemoryStats
from .store import AppendResult, Memory
from .tiers import TIERS, Tier

__all__ = [
    "CODECS",
    "EVICTORS",
    "PRUNERS",
    "RETRIEVERS",
    "TIERS",
    "AppendResult",
    "BlockId",
    "BudgetError",
    "Codec",
    "Evictor",
    "KVBlock",
    "KVSpec",
    "Memory",
    "MemoryConfig",
    "MemoryStats",
    "PackedBlock",
    "Pruner",
    "Recall",
    "Retriever",
    "Tier",
    "next_block_id",
]

"""KV in, KV out, never over budget. Knows nothing of models or pictures."""

from .block import BlockId, KVBlock, KVSpec, PackedBlock, next_block_id
from .codecs import CODECS, Codec
from .evictors import EVICTORS, Evictor
from .retrievers import RETRIEVERS, Retriever
from .stats import MemoryStats
from .store import AppendResult, BudgetError, Memory, MemoryConfig, Recall
from .tiers import TIERS, Tier

__all__ = [
    "CODECS",
    "EVICTORS",
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
    "Recall",
    "Retriever",
    "Tier",
    "next_block_id",
]

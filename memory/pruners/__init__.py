"""Fewer visual tokens in a block that has left the recent window: one pruner per file."""

from ...stream.table import Table
from .base import Pruner, PrunerRun

PRUNERS: Table[Pruner] = Table(
    "pruner",
    __name__,
    {
        "none": "none:NoPruner",
        "streaming_llm": "streaming_llm:StreamingLLM",
        "look_m": "look_m:LookM",
        "elastic_cache": "elastic_cache:ElasticCache",
        "infinipot_v": "infinipot_v:InfiniPotV",
        "live_vlm": "live_vlm:LiveVLM",
        "key_norm": "key_norm:KeyNorm",
        "lag_kv": "lag_kv:LagKV",
        "key_diff": "key_diff:KeyDiff",
        "snap_kv": "snap_kv:SnapKV",
        "tova": "tova:TOVA",
        "novel": "novel:Novel",
        "random": "random:RandomPruner",
    },
)

__all__ = ["PRUNERS", "Pruner", "PrunerRun"]

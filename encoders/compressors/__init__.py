"""Compressors: which of a frame's tokens the language model reads.

budgets, scorers, picks and mergers are the primitives; a method is a short recipe over them; COMPRESSORS lists all.
"""

from __future__ import annotations

from ...stream.table import Table
from .base import Compressor, CompressorRun, NoCompressor, check_compressor, take
from .budgets import Allowance, Budget

COMPRESSORS: Table[Compressor] = Table(
    "compressor",
    __name__,
    {
        "none": "base:NoCompressor",
        "uniform": "covering:UniformGrid",
        "temporal_drop": "temporal:TemporalDrop",
        "static_dynamic": "temporal_split:StaticDynamic",
        "stc_pruner": "temporal_anchor:STCPruner",
        "vidcom2": "temporal_outlier:VidCom2",
        "difference_pruning": "temporal_pixels:DifferencePruning",
        "progressive": "temporal_progressive:Progressive",
        "temporal_merging": "text:TemporalMerging",
        "holov": "attention_places:HoloV",
        "hiprune": "attention_places:HiPrune",
        "hired": "attention_places:HiRED",
        "fopru": "attention:FoPru",
        "fastervlm": "attention:FasterVLM",
        "vtc_cls": "attention:VTCCLS",
        "visiondrop": "attention:VisionDrop",
        "todre": "covering:ToDRE",
        "mmtok": "covering:MMTok",
        "tome": "covering:ToMe",
    },
)

__all__ = [
    "COMPRESSORS",
    "Allowance",
    "Budget",
    "Compressor",
    "CompressorRun",
    "NoCompressor",
    "check_compressor",
    "take",
]

"""Published shapes made small, and frames for them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from millpond.pipeline.bench_real_shapes import REAL_SHAPES, RealShape
from millpond.stream import Frame

WORDS = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 400,
}
VISION = {"hidden_size": 32, "intermediate_size": 48}
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2}
QWEN_LAYERS = {"depth": 2, "num_heads": 2, "out_hidden_size": 64}
# What makes a published shape small: its vision half, its words, its processor.
SMALLER: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "smolvlm2-256m": (
        {**LAYERS, "image_size": 64, "patch_size": 4},
        {},
        {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}},
    ),
    "llava-onevision-0.5b": ({**LAYERS, "image_size": 112}, {}, {"size": {"height": 112, "width": 112}}),
    "qwen2.5-vl-3b": (
        {**QWEN_LAYERS, "fullatt_block_indexes": [1]},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}},
        {"max_pixels": 28224},
    ),
    "qwen3-vl-8b": (
        {**QWEN_LAYERS, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        {
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
        },
        {"size": {"shortest_edge": 4096, "longest_edge": 40960}},
    ),
}


def small(name: str) -> RealShape:
    """A published shape with fewer and narrower layers and smaller pictures, and everything else as it is."""
    shape = next(shape for shape in REAL_SHAPES if shape.name == name)
    vision, text, processor = SMALLER[name]
    return replace(
        shape,
        num_parameters=None,
        vision={**shape.vision, **VISION, **vision},
        text={**shape.text, **WORDS, **text},
        processor={**shape.processor, **processor},
    )


def frames_of(num_frames: int) -> list[Frame]:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (num_frames, 96, 128, 3), dtype=np.uint8)
    return [Frame(picture, float(number), "clip", number) for number, picture in enumerate(pictures)]

"""A model of a published shape in a folder, so that two processes can load the same one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ..encoders.load import BUILT_IN
from .bench_real_models import drawing_on
from .bench_real_shapes import REAL_SHAPES
from .bench_shapes import BUILT_IN_SHAPE

# SigLIP-SO400M at 384 pixels and Qwen2-0.5B, 196 tokens a frame.
_REAL = next(shape for shape in REAL_SHAPES if shape.name == "llava-onevision-0.5b")
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
VISION = {name: _REAL.vision[name] for name in (*_SIZES, "image_size", "patch_size")}
TEXT = {name: _REAL.text[name] for name in (*_SIZES, "num_key_value_heads")}


def save_llava(folder: Path, vision: dict[str, int] | None = None, text: dict[str, int] | None = None) -> Path:
    """Saves a LLaVA-OneVision of any shape, weights drawn at random, in bfloat16 and with the built-in model's words;
    by default LLaVA-OneVision-0.5B's. Returns the folder."""
    from transformers import AutoTokenizer, LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    built_in = BUILT_IN[BUILT_IN_SHAPE]
    vision = vision or VISION
    config: Any = LlavaOnevisionConfig.from_pretrained(built_in)
    config.vision_config.update(dict(vision))
    shape: dict[str, Any] = dict(text or TEXT)
    shape["head_dim"] = shape["hidden_size"] // shape["num_attention_heads"]
    shape["layer_types"] = ["full_attention"] * shape["num_hidden_layers"]
    config.text_config.update(shape)
    with drawing_on(torch.device("cpu")):
        model: Any = LlavaOnevisionForConditionalGeneration(config)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(built_in).save_pretrained(folder)
    side_px = vision["image_size"]
    processor = json.loads((built_in / "preprocessor_config.json").read_text())
    processor["size"] = {"height": side_px, "width": side_px}
    processor["image_grid_pinpoints"] = [[side_px, side_px]]
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder

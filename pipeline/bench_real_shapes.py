"""REAL_SHAPES: the published sizes of the models that `millpond bench real` measures, and where they are from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..encoders import FAMILIES


@dataclass(frozen=True)
class RealShape:
    """One published model without its weights. Made here, read by `make_real`.

    checkpoint: the hub id whose config.json and preprocessor_config.json the sizes are from.
    family: its row in FAMILIES, and its `model_type`.
    num_parameters: what is published: the `total` of the checkpoint's safetensors; None where only its rounded size is.
    size_words: the size that the model's page gives.
    vision, text, top: the config's parts; what is not given is transformers' own default for the architecture.
    processor: the numbers of its processor, as its file has them.
    """

    name: str
    checkpoint: str
    family: str
    num_parameters: int | None
    size_words: str
    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    top: Mapping[str, Any]
    processor: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"{self.name} needs one of the families {', '.join(FAMILIES)}; got {self.family!r}")
        if self.num_parameters is not None and self.num_parameters < 1:
            raise ValueError(f"{self.name} must have a parameter or more; got {self.num_parameters}")


_HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "rescale_factor": 1 / 255,
}

# google/siglip-so400m-patch14-384 without its last layer and its head: features are those of its last layer but one.
_SIGLIP_SO400M = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
_LLAVA_TOP = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
_LLAVA_PROCESSOR = {**_HALVES, "size": {"height": 384, "width": 384}, "resample": 3}

# google/siglip-base-patch16-512.
_SIGLIP_B = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 512,
    "patch_size": 16,
}

_QWEN2_5_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
}
_QWEN2_5_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
_QWEN2_5_PROCESSOR = {
    **_CLIP,
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "merge_size": 2,
    "temporal_patch_size": 2,
}

# Qwen2-0.5B and Qwen2-7B, whose words LLaVA-OneVision pads to multiples of 64.
_QWEN2 = {
    "model_type": "qwen2",
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
}
_QWEN2_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}

REAL_SHAPES: tuple[RealShape, ...] = (
    RealShape(
        name="smolvlm2-256m",
        checkpoint="HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        family="smolvlm",
        num_parameters=256_484_928,
        size_words="0.3B",
        vision=_SIGLIP_B,
        text={
            "model_type": "llama",
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49280,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e5},
            "tie_word_embeddings": False,
        },
        top={"scale_factor": 4, "tie_word_embeddings": False},
        processor={
            **_HALVES,
            "resample": 1,
            "size": {"longest_edge": 2048},
            "max_image_size": {"longest_edge": 512},
        },
    ),
    RealShape(
        name="llava-onevision-0.5b",
        checkpoint="llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        family="llava_onevision",
        num_parameters=None,
        size_words="0.9B",
        vision=_SIGLIP_SO400M,
        text={
            **_QWEN2,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "vocab_size": 152_000,
            "tie_word_embeddings": True,
        },
        top={**_LLAVA_TOP, "tie_word_embeddings": True},
        processor=_LLAVA_PROCESSOR,
    ),
    RealShape(
        name="llava-onevision-7b",
        checkpoint="llava-hf/llava-onevision-qwen2-7b-ov-hf",
        family="llava_onevision",
        num_parameters=None,
        size_words="8.0B",
        vision=_SIGLIP_SO400M,
        text={**_QWEN2, **_QWEN2_7B, "vocab_size": 152_128, "tie_word_embeddings": False},
        top={**_LLAVA_TOP, "tie_word_embeddings": False},
        processor=_LLAVA_PROCESSOR,
    ),
    RealShape(
        name="qwen2.5-vl-3b",
        checkpoint="Qwen/Qwen2.5-VL-3B-Instruct",
        family="qwen2_5_vl",
        num_parameters=3_754_622_976,
        size_words="4B",
        vision={**_QWEN2_5_VISION, "out_hidden_size": 2048},
        text={
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151_936,
            "max_position_embeddings": 128_000,
            "rope_parameters": _QWEN2_5_ROPE,
            "tie_word_embeddings": True,
        },
        top={"tie_word_embeddings": True},
        processor=_QWEN2_5_PROCESSOR,
    ),
    RealShape(
        name="qwen2.5-vl-7b",
        checkpoint="Qwen/Qwen2.5-VL-7B-Instruct",
        family="qwen2_5_vl",
        num_parameters=8_292_166_656,
        size_words="8B",
        vision={**_QWEN2_5_VISION, "out_hidden_size": 3584},
        text={
            **_QWEN2_7B,
            "vocab_size": 152_064,
            "max_position_embeddings": 128_000,
            "rope_parameters": _QWEN2_5_ROPE,
            "tie_word_embeddings": False,
        },
        top={"tie_word_embeddings": False},
        processor=_QWEN2_5_PROCESSOR,
    ),
    RealShape(
        name="qwen3-vl-8b",
        checkpoint="Qwen/Qwen3-VL-8B-Instruct",
        family="qwen3_vl",
        num_parameters=8_767_123_696,
        size_words="9B",
        vision={
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_heads": 16,
            "out_hidden_size": 4096,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        text={
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151_936,
            "max_position_embeddings": 262_144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": False,
        },
        top={"tie_word_embeddings": False},
        # Of its video processor: `size` counts the pixels of a whole video; a frame has 768 tokens at most.
        processor={
            **_HALVES,
            "size": {"shortest_edge": 4096, "longest_edge": 25_165_824},
            "patch_size": 16,
            "merge_size": 2,
            "temporal_patch_size": 2,
        },
    ),
)

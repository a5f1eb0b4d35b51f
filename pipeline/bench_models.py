"""Whole models of published shapes with random weights: what they compute is noise, and how long it takes is not."""

from __future__ import annotations

from typing import Any

import torch

from ..encoders import VideoLLM, load_model
from ..encoders.load import BUILT_IN
from .bench_shapes import BUILT_IN_SHAPE

# SigLIP-B/16 at 512 pixels, and SmolLM2-135M: 64 tokens a frame.
SMOLVLM_SHAPE = "smolvlm2-256m"
# SigLIP-SO400M at 384 pixels, and Qwen2-7B: LLaVA-OneVision-7B, 8.0 billion parameters, 196 tokens a frame.
LLAVA_SHAPE = "llava-onevision-8b"

MODEL_SHAPES = (BUILT_IN_SHAPE, SMOLVLM_SHAPE, LLAVA_SHAPE)

_SIGLIP_B = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
_SMOLLM2_REST = {"num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49280}
_SIGLIP_SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
_QWEN2_7B = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
_QWEN2_7B_REST = {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152128}
_HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}
_MARKS = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>")


def make_streams_model(shape: str) -> VideoLLM:
    """A row of MODEL_SHAPES, or whatever `load_model` takes: float32 on a CPU, bfloat16 on a GPU."""
    if shape == SMOLVLM_SHAPE:
        return make_smolvlm({**_SIGLIP_B, "image_size": 512, "patch_size": 16}, {**_SMOLLM2, **_SMOLLM2_REST}, join=4)
    if shape == LLAVA_SHAPE:
        return make_llava({**_SIGLIP_SO400M, "image_size": 384, "patch_size": 14}, {**_QWEN2_7B, **_QWEN2_7B_REST})
    return load_model(shape)


def make_smolvlm(vision: dict[str, int], text: dict[str, int], *, join: int) -> VideoLLM:
    """A SmolVLM of any shape, with the built-in model's words: they need no download.

    join: neighbouring patches that become one token, along either side.
    """
    from transformers import AutoTokenizer, LlamaConfig, SmolVLMConfig, SmolVLMForConditionalGeneration

    from ..encoders.families.smolvlm import SmolVLM

    tokenizer: Any = AutoTokenizer.from_pretrained(BUILT_IN[BUILT_IN_SHAPE])
    tokenizer.add_tokens(list(_MARKS), special_tokens=True)
    config = SmolVLMConfig(
        vision_config=vision,
        text_config=LlamaConfig(**text, max_position_embeddings=8192),  # type: ignore[arg-type]
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=join,
    )
    settings = {
        **_HALVES,
        "size": {"longest_edge": 4 * vision["image_size"]},
        "max_image_size": {"longest_edge": vision["image_size"]},
    }
    return SmolVLM(
        _made(SmolVLMForConditionalGeneration, config), tokenizer, "", name=SMOLVLM_SHAPE, settings={"video": settings}
    )


def make_llava(vision: dict[str, int], text: dict[str, int]) -> VideoLLM:
    """A LLaVA-OneVision of any shape, with the built-in model's words."""
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    from ..encoders.families.llava_onevision import LlavaOnevision

    words: Any = load_model(BUILT_IN_SHAPE, device="cpu")
    config = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **vision, "vision_use_head": False},
        text_config={"model_type": "qwen2", **text},
        image_token_index=4,
        video_token_index=5,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    side_px = vision["image_size"]
    settings = {**_HALVES, "size": {"height": side_px, "width": side_px}, "resample": 3}
    return LlavaOnevision(
        _made(LlavaOnevisionForConditionalGeneration, config),
        words.tokenizer,
        words.chat_template,
        name=LLAVA_SHAPE,
        settings={"video": settings},
    )


def _made(kind: Any, config: Any) -> Any:
    """The model, its weights drawn where they are to stay: 8 billion would take minutes on a CPU."""
    on_gpu = torch.cuda.is_available()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if on_gpu else torch.float32)
    try:
        with torch.random.fork_rng(), torch.device("cuda" if on_gpu else "cpu"):
            torch.manual_seed(0)
            model = kind(config)
    finally:
        torch.set_default_dtype(before)
    # No token ends an answer: those that are compared are of one length.
    for owner in (model.generation_config, model.config, model.config.get_text_config()):
        owner.eos_token_id = []
    return model

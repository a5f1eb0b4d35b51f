"""Small random models of every family, from the real config classes, saved as real checkpoints are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

CORPUS = [
    "You are a helpful assistant. You are provided the following series of frames from a video.",
    "What color is the circle? The red square moves left at 12.5 seconds, the blue cross stays still.",
    "How many objects have appeared? Where is the green triangle? <3.5 seconds> Frame from 00:01:",
    "user assistant system User: Assistant: top bottom left right center yes no one two three four",
] * 4

# As Qwen/Qwen2-VL-7B-Instruct writes it, tools and image counters left out.
QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As llava-hf/llava-onevision-qwen2-0.5b-ov-hf writes it.
LLAVA_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}"
    "{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}"
    "{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' }}"
    "{{ content['text'] }}{% endfor %}{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As HuggingFaceTB/SmolVLM2-256M-Video-Instruct writes it; its processor takes another for videos.
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class TinyModel:
    """How one family's small model is made: its row in FAMILIES, and its processor's JSON by file name."""

    family: str
    build: Callable[[Callable[[str], int], int], PreTrainedModel]
    tokenizer: Callable[[], PreTrainedTokenizerFast]
    template: str
    files: dict[str, dict[str, Any]]

    def save(self, folder: Path, seed: int = 0) -> Path:
        """Writes the checkpoint: config, weights, tokenizer, chat template, processor files."""
        tokenizer = self.tokenizer()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = self.build(tokenizer.convert_tokens_to_ids, len(tokenizer))
            spread(model)
        model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "chat_template.jinja").write_text(self.template)
        for name, content in self.files.items():
            (folder / name).write_text(json.dumps(content, indent=1))
        return folder


def spread(model: PreTrainedModel) -> None:
    """Weights so large that attention chooses and greedy tokens vary, which transformers' own are not."""
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            gain = 3.0 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1.2
            fan_in = parameter[0].numel() if "embed" not in name or parameter.ndim > 2 else 1
            parameter.data.normal_(0.0, gain * fan_in**-0.5)
        elif name.endswith("bias"):
            parameter.data.normal_(0.0, 0.2)


def _train_bpe(specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, special=True) for token in specials],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Qwen2's own tokenizer class, a small vocabulary, the marks of Qwen-VL and of LLaVA-OneVision."""
    trained = json.loads(_train_bpe([]).to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(merge) for merge in trained["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    marks = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_tokens([AddedToken(t, special=True) for t in [*marks, "<image>", "<video>"]])
    return tokenizer


def smol_tokenizer() -> PreTrainedTokenizerFast:
    """A GPT-2-like tokenizer with SmolVLM's marks; its first token opens every text, as SmolVLM's does."""
    marks = ["<fake_token_around_image>", "<image>", "<global-img>", "<row_1_col_1>"]
    trained = _train_bpe(["<|im_start|>", "<|im_end|>", "<end_of_utterance>", "<|endoftext|>", *marks])
    return PreTrainedTokenizerFast(
        tokenizer_object=trained,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=marks,
        model_specific_special_tokens={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "global_image_token": "<global-img>",
        },
    )


def _qwen_ids(ids: Callable[[str], int]) -> dict[str, int]:
    return {
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def _mrope_text(num_words: int, section: list[int], **more: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section, **more}
    return {**_TEXT, "vocab_size": num_words, "rope_parameters": rope}


def _llava(ids: Callable[[str], int], num_words: int) -> PreTrainedModel:
    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=8,
        vision_use_head=False,
    )
    return LlavaOnevisionForConditionalGeneration(
        LlavaOnevisionConfig(
            vision_config=vision,
            text_config=Qwen2Config(**_TEXT, vocab_size=num_words),
            image_token_index=ids("<image>"),
            video_token_index=ids("<video>"),
        )
    )


def _qwen2_vl(ids: Callable[[str], int], num_words: int) -> PreTrainedModel:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "num_heads": 2}
    config = Qwen2VLConfig(text_config=_mrope_text(num_words, [2, 3, 3]), vision_config=vision, **_qwen_ids(ids))
    return Qwen2VLForConditionalGeneration(config)


def _qwen2_5_vl(ids: Callable[[str], int], num_words: int) -> PreTrainedModel:
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
        "window_size": 56,
    }
    config = Qwen2_5_VLConfig(text_config=_mrope_text(num_words, [2, 3, 3]), vision_config=vision, **_qwen_ids(ids))
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl(ids: Callable[[str], int], num_words: int) -> PreTrainedModel:
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0, 1],
    }
    text = {**_mrope_text(num_words, [4, 2, 2], mrope_interleaved=True), "head_dim": 16}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **_qwen_ids(ids))
    return Qwen3VLForConditionalGeneration(config)


def _smolvlm(ids: Callable[[str], int], num_words: int) -> PreTrainedModel:
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
    }
    config = SmolVLMConfig(
        vision_config=vision,
        text_config=LlamaConfig(**_TEXT, vocab_size=num_words, rms_norm_eps=1e-5),
        image_token_id=ids("<image>"),
        scale_factor=2,
    )
    return SmolVLMForConditionalGeneration(config)


def _qwen_files(**size: int) -> dict[str, Any]:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        **_CLIP,
        **size,
    }


TINY_MODELS = {
    tiny.family: tiny
    for tiny in (
        TinyModel(
            "llava_onevision",
            _llava,
            qwen_tokenizer,
            LLAVA_TEMPLATE,
            {
                "preprocessor_config.json": {
                    "image_processor_type": "LlavaOnevisionImageProcessor",
                    "size": {"height": 56, "width": 56},
                    "resample": 3,
                    "rescale_factor": 1 / 255,
                    **_HALVES,
                },
                "processor_config.json": {
                    "processor_class": "LlavaOnevisionProcessor",
                    "num_image_tokens": 49,
                },
            },
        ),
        TinyModel(
            "qwen2_vl",
            _qwen2_vl,
            qwen_tokenizer,
            QWEN_TEMPLATE,
            {"preprocessor_config.json": _qwen_files(min_pixels=3136, max_pixels=12544)},
        ),
        TinyModel(
            "qwen2_5_vl",
            _qwen2_5_vl,
            qwen_tokenizer,
            QWEN_TEMPLATE,
            {"preprocessor_config.json": _qwen_files(min_pixels=3136, max_pixels=28224)},
        ),
        TinyModel(
            "qwen3_vl",
            _qwen3_vl,
            qwen_tokenizer,
            QWEN_TEMPLATE,
            {
                "preprocessor_config.json": {
                    "image_processor_type": "Qwen2VLImageProcessorFast",
                    "size": {"shortest_edge": 65536, "longest_edge": 16777216},
                    "patch_size": 16,
                    **_HALVES,
                },
                "video_preprocessor_config.json": {
                    "video_processor_type": "Qwen3VLVideoProcessor",
                    "size": {"shortest_edge": 4096, "longest_edge": 40960},
                    "patch_size": 16,
                    "merge_size": 2,
                    "temporal_patch_size": 2,
                    **_HALVES,
                },
            },
        ),
        TinyModel(
            "smolvlm",
            _smolvlm,
            smol_tokenizer,
            SMOLVLM_TEMPLATE,
            {
                "preprocessor_config.json": {
                    "image_processor_type": "SmolVLMImageProcessor",
                    "do_image_splitting": False,
                    "max_image_size": {"longest_edge": 64},
                    "resample": 1,
                    "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 96}},
                    **_HALVES,
                }
            },
        ),
    )
}

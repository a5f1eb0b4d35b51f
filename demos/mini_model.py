"""The built-in model before it is trained: its tokenizer, its shape, and the files that its folder holds."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from millpond.stream.truth import NOTHING, WORDINGS
from millpond.stream.world import COLORS, SHAPES

SPECIAL = ("<|pad|>", "<|unk|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] in ('video', 'image') %}<video>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-pair encoding over the world's own sentences, lower-cased; digits and punctuation stand alone."""
    corpus = []
    for wording in itertools.chain(*WORDINGS.values()):
        for color, shape in itertools.product(COLORS, SHAPES):
            slots = {"group": f"{shape}s {shape}es {color} objects", "things": f"{color} {shape}, {color} {shape}"}
            corpus.append(wording.format(color=color, shape=shape, since=7, **slots))
    corpus += [f"{c} {s} appears, {c} {s} leaves" for c, s in itertools.product(COLORS, SHAPES)]
    corpus += ["left right top bottom center up down still yes no user assistant s", NOTHING] * 20
    corpus += ["0 1 2 3 4 5 6 7 8 9 . , ? ! : ; ' \" ( ) - < > | / abcdefghijklmnopqrstuvwxyz"] * 2

    tokenizer = Tokenizer(models.BPE(unk_token="<|unk|>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=512, special_tokens=list(SPECIAL)))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<image>", "<video>"],
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionForConditionalGeneration:
    """About 4.6 M parameters: a SigLIP tower of 5 layers over 96x96 pictures, a Qwen2 text model of 9 layers."""
    vision = SiglipVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=96,
        patch_size=8,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=9,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[96, 96]],
        tie_word_embeddings=True,
    )
    model = LlavaOnevisionForConditionalGeneration(config)
    place_patches(model)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


@torch.no_grad()
def place_patches(model: LlavaOnevisionForConditionalGeneration) -> None:
    """Starts the tower's position embedding from sines and cosines of row and column.

    Drawn at random it is so weak beside the pictures that the tower learns to do without it, and "where" with it.
    """
    embedding = model.model.vision_tower.embeddings.position_embedding.weight
    num_patches, dim = embedding.shape
    side = round(num_patches**0.5)
    angle = torch.arange(side)[:, None] / side * torch.pi * torch.arange(1, dim // 4 + 1)[None] / 2
    waves = torch.cat([angle.sin(), angle.cos()], dim=1) / torch.arange(1, dim // 4 + 1).sqrt().repeat(2)
    rows = waves[:, None].expand(side, side, -1)
    columns = waves[None].expand(side, side, -1)
    embedding.copy_(torch.cat([rows, columns], dim=-1).reshape(num_patches, dim))


def save(model: LlavaOnevisionForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes the folder that `from_pretrained` reads: bfloat16 weights, tokenizer, picture settings."""
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    folder.mkdir(parents=True, exist_ok=True)
    half = LlavaOnevisionForConditionalGeneration(model.config)
    half.load_state_dict(model.state_dict())
    half.generation_config = model.generation_config
    half.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = LlavaOnevisionImageProcessorPil(
        size={"height": 96, "width": 96}, image_mean=[0.5] * 3, image_std=[0.5] * 3, image_grid_pinpoints=[[96, 96]]
    )
    processor.save_pretrained(folder)

"""Small random text decoders under a family that only reads, each with its untouched twin."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from millpond.encoders import FrameTokens, Text
from millpond.encoders.families.base_hf import FrameText, HFVideoLLM
from millpond.memory import KVBlock
from millpond.stream import Span

# Shapes: L layers, K key/value heads, T tokens, V vocabulary, D channels, E DeepStack taps.

QUESTION = Text((7, 8, 9, 10, 11))
HIDDEN, VOCAB = 48, 300
TEXT = dict(
    vocab_size=VOCAB,
    hidden_size=HIDDEN,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=512,
    # Large enough that attention is far from uniform, so that a wrong position shows.
    initializer_range=0.3,
)
MROPE = {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [2, 1, 1]}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
QWEN_TOWER = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, patch_size=4)


def qwen2(**changes: Any) -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**TEXT | changes))


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**TEXT))


def llava_onevision() -> PreTrainedModel:
    tower = dict(
        model_type="siglip_vision_model",
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    config = LlavaOnevisionConfig(
        text_config=TEXT | {"model_type": "qwen2"},
        vision_config=tower,
        image_token_index=3,
        video_token_index=4,
    )
    return LlavaOnevisionForConditionalGeneration(config)


def qwen2_vl() -> PreTrainedModel:
    tower = dict(depth=1, embed_dim=16, hidden_size=HIDDEN, num_heads=2, patch_size=4)
    return Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(text_config=TEXT | {"rope_parameters": MROPE}, vision_config=tower)
    )


def qwen2_5_vl() -> PreTrainedModel:
    tower = QWEN_TOWER | {"out_hidden_size": HIDDEN}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=TEXT | {"rope_parameters": MROPE}, vision_config=tower)
    )


def qwen3_vl() -> PreTrainedModel:
    tower = QWEN_TOWER | {
        "out_hidden_size": HIDDEN,
        "deepstack_visual_indexes": [0],
        "num_position_embeddings": 16,
    }
    text = TEXT | {"head_dim": 8, "rope_parameters": MROPE}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=tower))


MODELS = {
    "qwen2": (qwen2, 1),
    "qwen2_yarn": (lambda: qwen2(rope_parameters=YARN), 1),
    "llama": (llama, 1),
    "llava_onevision": (llava_onevision, 1),
    "qwen2_vl": (qwen2_vl, 3),
    "qwen2_5_vl": (qwen2_5_vl, 3),
    "qwen3_vl": (qwen3_vl, 3),
}


def letters() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.add_tokens(["<video>", "<turn>"], special_tokens=True)
    return fast


TEMPLATE = (
    "{% for m in messages %}<turn>{{ m.role }}\n{% for c in m.content %}"
    "{% if c.type == 'video' %}<video>\n{% else %}{{ c.text }}{% endif %}{% endfor %}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


class Reader(HFVideoLLM):
    """A family that only reads: its frames come ready-made."""

    family = "reader"
    video_placeholder = "<video>"

    def __init__(self, model: PreTrainedModel, rope_axes: int) -> None:
        self.rope_axes = rope_axes  # type: ignore[misc]
        super().__init__(model, letters(), TEMPLATE, name="random", settings={})

    def see(self, frames: Any) -> list[FrameTokens]:
        raise NotImplementedError

    def frame_text(self, span: Span) -> FrameText:
        return FrameText((int(span.start_s) % 50, 60), (61,))


@cache
def make(name: str) -> tuple[Reader, PreTrainedModel]:
    """A reader and its untouched twin."""
    build, axes = MODELS[name]
    torch.manual_seed(0)
    model = build().eval()
    # Norms of ones would not show a norm left out.
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0 if parameter.mean() > 0.5 else 0.0, 0.2)
    twin = copy.deepcopy(model)
    twin.set_attn_implementation("sdpa")
    return Reader(model, axes), twin


def frame(reader: Reader, seed: int, height: int = 2, width: int = 3) -> FrameTokens:
    """What a tower might have made of a frame; with M-RoPE, at grid positions as Qwen places them."""
    random = torch.Generator().manual_seed(seed)
    num_tokens = height * width
    if reader.rope_axes == 3:
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pos_3T = torch.stack([torch.zeros(num_tokens, dtype=torch.int64), rows.flatten(), columns.flatten()])
        advance = max(height, width)
    else:
        pos_3T, advance = torch.arange(num_tokens).expand(3, -1).contiguous(), num_tokens
    has_deep = "Qwen3VL" in type(reader.model).__name__
    return FrameTokens(
        x_TD=torch.randn(num_tokens, HIDDEN, generator=random),
        kept_T=torch.arange(num_tokens),
        grid_hw=(height, width),
        pos_3T=pos_3T,
        advance=advance,
        span=Span(seed, seed),
        deep_ETD=torch.randn(2, num_tokens, HIDDEN, generator=random) if has_deep else None,
    )


def stream(reader: Reader, num_frames: int, seed: int = 0) -> list[Text | FrameTokens]:
    random = torch.Generator().manual_seed(seed)
    text = Text(tuple(torch.randint(0, 250, (4,), generator=random).tolist()))
    return [text, *(frame(reader, seed + i, height=2 + i % 2) for i in range(num_frames))]


def dense(reader: Reader, twin: PreTrainedModel, parts: list[Text | FrameTokens]) -> Tensor:
    """Logits after every token, by transformers' own forward pass over all parts at once. Returns: (T, V)."""
    embed = twin.get_input_embeddings()
    pieces, visual, deep, positions, start = [], [], [], [], 0
    for part in parts:
        words = [part.ids, ()] if isinstance(part, Text) else list(reader.frame_text(part.span))
        for number, ids in enumerate(words):
            pieces.append(embed(torch.tensor(ids, dtype=torch.int64)))
            visual += [False] * len(ids)
            positions.append(torch.arange(start, start + len(ids)).expand(3, -1))
            start += len(ids)
            if isinstance(part, FrameTokens) and number == 0:
                pieces.append(part.x_TD)
                visual += [True] * part.num_tokens
                positions.append(part.pos_3T + start)
                start += part.advance
                deep.append(part.deep_ETD)
    pos_3T = torch.cat(positions, dim=1)
    extra: dict[str, Any] = {}
    if deep and deep[0] is not None:
        extra = {
            "visual_pos_masks": torch.tensor([visual]),
            "deepstack_visual_embeds": list(torch.cat(deep, dim=1)),
        }
    hidden = twin.get_decoder()(
        inputs_embeds=torch.cat(pieces)[None],
        position_ids=pos_3T[:, None] if reader.rope_axes == 3 else pos_3T[:1],
        use_cache=False,
        **extra,
    ).last_hidden_state[0]
    return twin.get_output_embeddings()(hidden).detach()


def by_hand(twin: PreTrainedModel, blocks: list[KVBlock], question: Text) -> Tensor:
    """Logits after the question over given keys and values, layer by layer, rotated by transformers."""
    decoder = twin.get_decoder()
    starts = torch.tensor([0, *(b.advance for b in blocks)]).cumsum(0).tolist()
    pos_3T = torch.cat([b.pos_3T + start for b, start in zip(blocks, starts, strict=False)], dim=1)
    x_1TD = decoder.embed_tokens(torch.tensor([question.ids]))
    num_new = x_1TD.shape[1]
    new_3T = (torch.arange(num_new) + starts[-1]).expand(3, -1)
    all_3T = torch.cat([pos_3T, new_3T], dim=1)
    has_axes = hasattr(decoder.rotary_emb, "mrope_section")
    cos, sin = decoder.rotary_emb(x_1TD, all_3T[:, None] if has_axes else all_3T[:1])
    mask = torch.ones(num_new, pos_3T.shape[1] + num_new, dtype=torch.bool).tril(pos_3T.shape[1])
    for number, layer in enumerate(decoder.layers):
        attention = layer.self_attn
        normed = layer.input_layernorm(x_1TD)
        q, k, v = (
            projection(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        k = torch.cat([b.k_LKTD[number] for b in blocks] + [k[0]], dim=1)[None]
        v = torch.cat([b.v_LKTD[number] for b in blocks] + [v[0]], dim=1)[None]
        q, _ = apply_rotary_pos_emb(q, q, cos[:, -num_new:], sin[:, -num_new:])
        _, k = apply_rotary_pos_emb(k, k, cos, sin)
        group = attention.num_key_value_groups
        weights = q @ k.repeat_interleave(group, 1).transpose(2, 3) * attention.scaling
        weights = weights.masked_fill(~mask, -torch.inf).softmax(-1)
        out = (weights @ v.repeat_interleave(group, 1)).transpose(1, 2).flatten(2)
        x_1TD = x_1TD + attention.o_proj(out)
        x_1TD = x_1TD + layer.mlp(layer.post_attention_layernorm(x_1TD))
    return twin.get_output_embeddings()(decoder.norm(x_1TD))[0, -1:].detach()

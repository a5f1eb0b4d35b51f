"""The attention function under real text decoders: equal to transformers' own, however a context came to be.

Every model is small and random, built from the real config classes; its twin is the same model untouched.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from millpond.encoders import FrameTokens, Row, Text
from millpond.encoders.attention import PackedCall, Share, refuse_unsupported
from millpond.encoders.context import Context
from millpond.encoders.families.base_hf import FrameText, HFVideoLLM
from millpond.memory import KVBlock
from millpond.stream import Span
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

# Shapes: L layers, K key/value heads, T tokens, D channels, E DeepStack taps.

HIDDEN, VOCAB = 48, 300
TOLERANCE = 2e-5
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
    "original_max_position_embeddings": 64,
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
        text_config=TEXT | {"model_type": "qwen2"}, vision_config=tower, image_token_index=3, video_token_index=4
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
    tower = QWEN_TOWER | {"out_hidden_size": HIDDEN, "deepstack_visual_indexes": [0], "num_position_embeddings": 16}
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


@pytest.fixture(scope="module", params=list(MODELS))
def pair(request: pytest.FixtureRequest) -> tuple[Reader, PreTrainedModel]:
    return make(request.param)


@pytest.fixture(scope="module")
def mrope() -> tuple[Reader, PreTrainedModel]:
    return make("qwen2_5_vl")


@pytest.fixture(scope="module")
def yarn() -> tuple[Reader, PreTrainedModel]:
    return make("qwen2_yarn")


def frame(reader: Reader, seed: int, height: int = 2, width: int = 3) -> FrameTokens:
    """What a tower might have made of a frame; with M-RoPE, at grid positions, as the Qwen families place them."""
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
        extra = {"visual_pos_masks": torch.tensor([visual]), "deepstack_visual_embeds": list(torch.cat(deep, dim=1))}
    hidden = twin.get_decoder()(
        inputs_embeds=torch.cat(pieces)[None],
        position_ids=pos_3T[:, None] if reader.rope_axes == 3 else pos_3T[:1],
        use_cache=False,
        **extra,
    ).last_hidden_state[0]
    return twin.get_output_embeddings()(hidden).detach()


def same_kv(one: Context, other: Context, atol: float = TOLERANCE) -> None:
    assert (one.length, one.next_position) == (other.length, other.next_position)
    for a, b in ((one.k_LKCD, other.k_LKCD), (one.v_LKCD, other.v_LKCD)):
        torch.testing.assert_close(a[:, :, : one.length], b[:, :, : one.length], atol=atol, rtol=0)
    one.check()


QUESTION = Text((7, 8, 9, 10, 11))


@pytest.mark.parametrize("cuts", [[], [1], [1, 2, 3, 4, 5], [3], [2, 5]])
def test_reading_in_chunks_equals_transformers_forward(pair: tuple[Reader, PreTrainedModel], cuts: list[int]) -> None:
    reader, twin = pair
    parts = stream(reader, 5)
    context = reader.new_context()
    for start, stop in zip([0, *cuts], [*cuts, len(parts)], strict=True):
        reader.read([Row(context, tuple(parts[start:stop]))])
    logits = reader.step([Row(context, (QUESTION,))])
    wanted = dense(reader, twin, [*parts, QUESTION])
    assert context.length == len(wanted)
    torch.testing.assert_close(logits, wanted[-1:], atol=TOLERANCE * 20, rtol=0)
    # One word at a time, as an answer is generated.
    for i in range(3):
        parts_so_far = [*parts, QUESTION, *(Text((20 + j,)) for j in range(i + 1))]
        logits = reader.step([Row(context, (Text((20 + i,)),))])
        torch.testing.assert_close(logits, dense(reader, twin, parts_so_far)[-1:], atol=TOLERANCE * 20, rtol=0)


def test_step_over_frames_equals_read_then_step(pair: tuple[Reader, PreTrainedModel]) -> None:
    reader, _ = pair
    parts = stream(reader, 3)
    one, other = reader.new_context(), reader.new_context()
    reader.read([Row(one, tuple(parts))])
    at_once = reader.step([Row(other, (*parts, QUESTION))])
    torch.testing.assert_close(reader.step([Row(one, (QUESTION,))]), at_once, atol=TOLERANCE * 20, rtol=0)
    same_kv(one, other, atol=TOLERANCE * 5)


def test_packed_rows_get_what_each_gets_alone(pair: tuple[Reader, PreTrainedModel]) -> None:
    reader, _ = pair
    streams = [stream(reader, num_frames, seed) for num_frames, seed in ((3, 0), (1, 50), (2, 90))]
    alone, packed = [reader.new_context() for _ in streams], [reader.new_context() for _ in streams]
    wanted_blocks = [reader.read([Row(c, tuple(parts))])[0] for c, parts in zip(alone, streams, strict=True)]
    wanted = torch.cat([reader.step([Row(c, (QUESTION,))]) for c in alone])
    first = reader.read([Row(c, (parts[0],)) for c, parts in zip(packed, streams, strict=True)])
    rest = reader.read([Row(c, tuple(parts[1:])) for c, parts in zip(packed, streams, strict=True)])
    logits = reader.step([Row(c, (QUESTION,)) for c in packed])
    torch.testing.assert_close(logits, wanted, atol=TOLERANCE * 20, rtol=0)
    for c, d in zip(alone, packed, strict=True):
        same_kv(c, d, atol=TOLERANCE * 5)
    for blocks, a, b in zip(wanted_blocks, first, rest, strict=True):
        for wanted_block, block in zip(blocks, [*a, *b], strict=True):
            torch.testing.assert_close(block.k_LKTD, wanted_block.k_LKTD, atol=TOLERANCE * 5, rtol=0)
            assert torch.equal(block.pos_3T, wanted_block.pos_3T) and block.advance == wanted_block.advance


def test_rows_of_uneven_length_decode_together(mrope: tuple[Reader, PreTrainedModel]) -> None:
    reader, twin = mrope
    streams = [stream(reader, 2, 3), stream(reader, 4, 30)]
    rows = [Row(reader.new_context(), (*parts, QUESTION)) for parts in streams]
    reader.step([rows[0]])
    reader.step([rows[1]])
    words = [Text((1,)), Text((2, 3, 4))]
    logits = reader.step([Row(row.context, (word,)) for row, word in zip(rows, words, strict=True)])
    for got, parts, word in zip(logits, streams, words, strict=True):
        wanted = dense(reader, twin, [*parts, QUESTION, word])[-1]
        torch.testing.assert_close(got, wanted, atol=TOLERANCE * 20, rtol=0)


def test_filling_with_blocks_equals_the_context_that_read_them(pair: tuple[Reader, PreTrainedModel]) -> None:
    reader, _ = pair
    read = reader.new_context()
    blocks = [b for part in stream(reader, 4) for b in reader.read([Row(read, (part,))])[0]]
    filled = reader.new_context()
    reader.fill(filled, blocks)
    # The same numbers go through the same operations, so nothing may differ at all.
    same_kv(read, filled, atol=0)
    logits = reader.step([Row(filled, (QUESTION,))])
    torch.testing.assert_close(logits, reader.step([Row(read, (QUESTION,))]), atol=0, rtol=0)


def test_blocks_are_whole_and_say_what_they_hold(pair: tuple[Reader, PreTrainedModel]) -> None:
    reader, _ = pair
    parts = stream(reader, 2)
    (blocks,) = reader.read([Row(reader.new_context(), tuple(parts))])
    assert [b.kind for b in blocks] == ["text", "frame", "frame"]
    assert [b.num_tokens for b in blocks] == [4, 2 * 3 + 3, 3 * 3 + 3]
    assert [b.span for b in blocks[1:]] == [p.span for p in parts[1:]]
    for block in blocks:
        assert block.spec == reader.spec.kv
        assert block.pos_3T[:, 0].tolist() == [0, 0, 0] and block.pos_3T[:, -1].tolist() == [block.advance - 1] * 3
        # A block owns what it holds and no more.
        assert block.k_LKTD.untyped_storage().nbytes() + block.v_LKTD.untyped_storage().nbytes() + (
            block.pos_3T.numel() * 8
        ) == block.num_bytes


def test_keys_of_the_first_layer_are_the_projections_themselves(yarn: tuple[Reader, PreTrainedModel]) -> None:
    """Un-rotated, and without the scale that yarn puts on cos and sin."""
    reader, twin = yarn
    assert reader.rotary.attention_scaling != 1.0
    ((block,),) = reader.read([Row(reader.new_context(), (QUESTION,))])
    layer = twin.get_decoder().layers[0]
    x_TD = layer.input_layernorm(twin.get_input_embeddings()(torch.tensor(QUESTION.ids)))
    k_TD = layer.self_attn.k_proj(x_TD)
    torch.testing.assert_close(block.k_LKTD[0].transpose(0, 1).flatten(1), k_TD.detach(), atol=TOLERANCE, rtol=0)


def by_hand(twin: PreTrainedModel, blocks: list[KVBlock], question: Text) -> Tensor:
    """Logits after the question over given keys and values, layer by layer, with transformers' own rotation."""
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


@pytest.mark.parametrize("order", [[0, 1, 3, 4], [0, 4, 2], [0, 3, 1, 2, 4]])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen2_yarn", "qwen2"])
def test_blocks_can_be_dropped_and_moved(name: str, order: list[int]) -> None:
    reader, twin = make(name)
    (blocks,) = reader.read([Row(reader.new_context(), tuple(stream(reader, 4)))])
    chosen = [blocks[i] for i in order]
    context = reader.new_context()
    reader.fill(context, blocks)
    reader.fill(context, chosen)
    assert context.length == sum(b.num_tokens for b in chosen)
    assert context.next_position == sum(b.advance for b in chosen)
    logits = reader.step([Row(context, (QUESTION,))])
    torch.testing.assert_close(logits, by_hand(twin, chosen, QUESTION), atol=TOLERANCE * 20, rtol=0)


def test_in_one_layer_dropping_a_block_equals_never_having_read_it() -> None:
    """Its keys do not depend on what stood before them, so transformers' own forward pass is the twin."""
    torch.manual_seed(3)
    model = qwen2(num_hidden_layers=1).eval()
    twin = copy.deepcopy(model)
    reader = Reader(model, 1)
    parts = stream(reader, 3)
    (blocks,) = reader.read([Row(reader.new_context(), tuple(parts))])
    context = reader.new_context()
    reader.fill(context, [blocks[0], blocks[1], blocks[3]])
    logits = reader.step([Row(context, (QUESTION,))])
    wanted = dense(reader, twin, [parts[0], parts[1], parts[3], QUESTION])[-1:]
    torch.testing.assert_close(logits, wanted, atol=TOLERANCE * 20, rtol=0)


def test_rewinding_leaves_no_trace(pair: tuple[Reader, PreTrainedModel]) -> None:
    reader, _ = pair
    parts = stream(reader, 3)
    context = reader.new_context()
    reader.read([Row(context, tuple(parts[:3]))])
    before = context.k_LKCD[:, :, : context.length].clone(), context.v_LKCD[:, :, : context.length].clone()
    mark = context.mark()
    wanted = reader.step([Row(context, (QUESTION,))])
    for i in range(200):
        reader.step([Row(context, (Text((i,)),))])
    context.rewind(mark)
    assert torch.equal(context.k_LKCD[:, :, : context.length], before[0])
    assert torch.equal(context.v_LKCD[:, :, : context.length], before[1])
    assert torch.equal(reader.step([Row(context, (QUESTION,))]), wanted)


def test_probe_is_the_mean_query_and_leaves_the_context(pair: tuple[Reader, PreTrainedModel]) -> None:
    reader, _ = pair
    context = reader.new_context()
    reader.read([Row(context, tuple(stream(reader, 2)))])
    mark, k_before = context.mark(), context.k_LKCD[:, :, : context.length].clone()
    query_LKD = reader.probe(Row(context, (QUESTION,)))
    assert context.mark() == mark and torch.equal(context.k_LKCD[:, :, : context.length], k_before)
    spec = reader.spec.kv
    assert query_LKD.shape == (spec.num_layers, spec.num_kv_heads, spec.head_dim)
    assert query_LKD.dtype == torch.float32 and bool(query_LKD.isfinite().all())
    # In the first layer nothing but the words decides, wherever they stand.
    elsewhere = reader.probe(Row(reader.new_context(), (QUESTION,)))
    torch.testing.assert_close(query_LKD[0], elsewhere[0], atol=TOLERANCE, rtol=0)
    assert not torch.allclose(query_LKD[-1], elsewhere[-1], atol=1e-3)


def test_probe_of_the_first_layer_is_the_projection(yarn: tuple[Reader, PreTrainedModel]) -> None:
    reader, twin = yarn
    layer = twin.get_decoder().layers[0]
    x_TD = layer.input_layernorm(twin.get_input_embeddings()(torch.tensor(QUESTION.ids)))
    q_D = layer.self_attn.q_proj(x_TD).mean(0)
    wanted = q_D.view(2, 3, -1).mean(1).detach()
    got = reader.probe(Row(reader.new_context(), (QUESTION,)))[0]
    torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=0)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_chunking_of_any_stream_equals_one_read(data: st.DataObject) -> None:
    reader, twin = _drawn(data.draw(st.sampled_from(["qwen2", "qwen2_5_vl", "qwen3_vl"])))
    parts = [
        Text(tuple(data.draw(st.lists(st.integers(0, 250), min_size=1, max_size=9))))
        if data.draw(st.booleans())
        else frame(reader, data.draw(st.integers(0, 40)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
        for _ in range(data.draw(st.integers(1, 6)))
    ]
    context = reader.new_context()
    rest = [*parts, QUESTION]
    while rest:
        num = data.draw(st.integers(1, len(rest)))
        row, rest = Row(context, tuple(rest[:num])), rest[num:]
        if not rest:
            logits = reader.step([row])
        elif data.draw(st.booleans()):
            reader.read([row])
        else:
            reader.step([row])
        context.check()
    wanted = dense(reader, twin, [*parts, QUESTION])[-1:]
    torch.testing.assert_close(logits, wanted, atol=TOLERANCE * 20, rtol=0)


_made: dict[str, tuple[Reader, PreTrainedModel]] = {}


def _drawn(name: str) -> tuple[Reader, PreTrainedModel]:
    if name not in _made:
        _made[name] = make(name)
    return _made[name]


@pytest.mark.parametrize("tile, fold", [(4, 4 * 2**20), (4, 0), (512, 0), (16, 0)])
def test_tiles_and_folded_masks_equal_the_plain_way(
    monkeypatch: pytest.MonkeyPatch, mrope: tuple[Reader, PreTrainedModel], tile: int, fold: int
) -> None:
    """Long reads over a long past take their queries in tiles; here tiles are short instead."""
    monkeypatch.setattr("millpond.encoders.attention._TILE_TOKENS", tile)
    monkeypatch.setattr("millpond.encoders.attention._FOLD_ELEMENTS", fold)
    reader, twin = mrope
    parts = stream(reader, 4)
    context = reader.new_context()
    reader.read([Row(context, tuple(parts[:2]))])
    logits = reader.step([Row(context, (*parts[2:], QUESTION))])
    wanted = dense(reader, twin, [*parts, QUESTION])[-1:]
    torch.testing.assert_close(logits, wanted, atol=TOLERANCE * 20, rtol=0)


@pytest.mark.parametrize("name", ["qwen2", "qwen2_5_vl", "qwen3_vl"])
def test_bfloat16_is_as_close_to_float32_as_transformers_is(name: str) -> None:
    """Stated tolerance: 1.5 times the error of transformers' own bfloat16 forward pass, and 0.02, of logits' scale."""
    build, axes = MODELS[name]
    torch.manual_seed(0)
    exact = build().eval()
    twin = copy.deepcopy(exact).to(torch.bfloat16)
    reader = Reader(copy.deepcopy(exact).to(torch.bfloat16), axes)
    parts = stream(reader, 4)
    rounded = [p if isinstance(p, Text) else _as(p, torch.bfloat16) for p in parts]
    wanted = dense(reader, exact, [*(p if isinstance(p, Text) else _as(p, torch.float32) for p in rounded), QUESTION])
    theirs = dense(reader, twin, [*rounded, QUESTION])[-1:].float()
    context = reader.new_context()
    for part in rounded:
        reader.read([Row(context, (part,))])
    ours = reader.step([Row(context, (QUESTION,))])
    scale = wanted[-1].abs().max()
    error, their_error = (ours - wanted[-1:]).abs().max() / scale, (theirs - wanted[-1:]).abs().max() / scale
    assert error < 1.5 * their_error + 0.02


def _as(tokens: FrameTokens, dtype: torch.dtype) -> FrameTokens:
    deep = tokens.deep_ETD
    return FrameTokens(
        tokens.x_TD.bfloat16().to(dtype), tokens.kept_T, tokens.grid_hw, tokens.pos_3T, tokens.advance, tokens.span,
        None if deep is None else deep.bfloat16().to(dtype),
    )


def test_only_the_text_decoder_is_switched() -> None:
    reader, _ = make("qwen2_5_vl")
    assert reader.text_model.config._attn_implementation == "millpond"
    assert reader.model.config.vision_config._attn_implementation == "sdpa"
    reader, _ = make("llava_onevision")
    assert reader.model.config.vision_config._attn_implementation == "sdpa"


def test_prefix_and_question_are_the_two_halves_of_the_rendered_prompt() -> None:
    reader, _ = make("qwen2")
    question = "What color is it? <turn> \u00e9"
    rendered = reader.tokenizer.apply_chat_template(
        reader.messages(question), chat_template=TEMPLATE, tokenize=False, add_generation_prompt=True
    )
    whole = reader.tokenizer(rendered)["input_ids"]
    (video,) = reader.encode("<video>")
    assert [*reader.prefix().ids, video, *reader.question(question).ids] == whole
    assert reader.decode(reader.question("hello").ids) == "\nhello\nassistant\n"
    assert reader.question("").ids


def test_stop_ids_are_those_of_the_generation_config() -> None:
    model = qwen2()
    model.generation_config.eos_token_id = [5, 6]
    assert Reader(model, 1).stop_ids == {5, 6}
    model.generation_config.eos_token_id = 5
    assert Reader(model, 1).stop_ids == {5}


def test_what_cannot_be_read_is_refused_in_a_sentence() -> None:
    reader, _ = make("qwen2")
    other, _ = make("llama")
    context = reader.new_context()
    with pytest.raises(ValueError, match="one context stands in two rows"):
        reader.read([Row(context, (QUESTION,)), Row(context, (QUESTION,))])
    with pytest.raises(ValueError, match="made by another model"):
        reader.read([Row(other.new_context(), (QUESTION,))])
    with pytest.raises(ValueError, match="made by another model"):
        reader.fill(other.new_context(), [])
    with pytest.raises(ValueError, match="at least one row"):
        reader.step([])
    wide = FrameTokens(torch.zeros(2, 7), torch.arange(2), (1, 2), torch.zeros(3, 2, dtype=torch.int64), 2, Span(0, 0))
    with pytest.raises(ValueError, match=f"has 7 channels; this model reads {HIDDEN}"):
        reader.read([Row(context, (wide,))])
    small = torch.zeros(1, 2, 3, 8)
    with pytest.raises(ValueError, match="this model's contexts hold"):
        reader.fill(context, [KVBlock(small, small, torch.zeros(3, 3, dtype=torch.int64), 3, Span(0, 0))])
    with pytest.raises(ValueError, match="read through VideoLLM"):
        reader.model(input_ids=torch.tensor([[1, 2]]))
    assert context.length == 0


def test_a_failed_call_leaves_the_context_as_it_was() -> None:
    reader, _ = make("qwen2")
    context = reader.new_context()
    reader.read([Row(context, (QUESTION,))])
    wanted = reader.step([Row(context, (Text((1,)),))])
    context.rewind(context.mark())
    mark, last = context.mark(), reader.text_model.layers[-1]
    reader.text_model.layers[-1] = torch.nn.Identity()
    with pytest.raises(TypeError):
        reader.step([Row(context, (Text((2, 3)),))])
    reader.text_model.layers[-1] = last
    assert context.mark() == mark
    context.check()
    assert wanted.shape == (1, VOCAB)


def test_some_frames_with_deepstack_and_some_without_is_refused() -> None:
    reader, _ = make("qwen3_vl")
    deep = frame(reader, 0)
    plain = FrameTokens(deep.x_TD, deep.kept_T, deep.grid_hw, deep.pos_3T, deep.advance, deep.span)
    with pytest.raises(ValueError, match="all or none"):
        reader.read([Row(reader.new_context(), (deep, plain))])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "sliding_attention"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 2.0}}, "'dynamic'"),
    ],
)
def test_attention_that_would_differ_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refuse_unsupported(Qwen2Config(**TEXT | changes))
    refuse_unsupported(Qwen2Config(**TEXT | {"use_sliding_window": True, "max_window_layers": 3}))


def test_a_packed_call_checks_itself() -> None:
    reader, _ = make("qwen2")
    context = reader.new_context()
    with pytest.raises(ValueError, match="needs a rotation"):
        PackedCall([Share(context, 0, 3)], reader.spec.kv, keep="keys")
    call = PackedCall([Share(context, 0, 3)], reader.spec.kv)
    assert context.capacity >= 3
    with pytest.raises(ValueError, match="kept nothing, not keys"):
        call.kept()
    with pytest.raises(ValueError, match="kept nothing, not queries"):
        call.mean_query()

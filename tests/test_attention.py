"""The attention function under real text decoders: equal to transformers', however a context came to be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel, Qwen2Config

from millpond.encoders import FrameTokens, Row, Text
from millpond.encoders.attention import PackedCall, Share, refuse_unsupported
from millpond.encoders.context import Context

from .tiny_readers import MODELS, QUESTION, TEXT, Reader, by_hand, dense, frame, make, qwen2, stream

# Logits of these models reach 7 and spread by 2; the largest difference seen is 7e-6.
TOLERANCE = 5e-5


@pytest.fixture(scope="module", params=list(MODELS))
def pair(request: pytest.FixtureRequest) -> tuple[Reader, PreTrainedModel]:
    return make(request.param)


@pytest.fixture(scope="module")
def mrope() -> tuple[Reader, PreTrainedModel]:
    return make("qwen2_5_vl")


@pytest.fixture(scope="module")
def yarn() -> tuple[Reader, PreTrainedModel]:
    return make("qwen2_yarn")


def same_kv(one: Context, other: Context, atol: float = TOLERANCE) -> None:
    assert (one.length, one.next_position) == (other.length, other.next_position)
    for a, b in ((one.k_LKCD, other.k_LKCD), (one.v_LKCD, other.v_LKCD)):
        torch.testing.assert_close(a[:, :, : one.length], b[:, :, : one.length], atol=atol, rtol=0)
    one.check()


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
    torch.testing.assert_close(logits, wanted[-1:], atol=TOLERANCE, rtol=0)
    # One word at a time, as an answer is generated.
    for i in range(3):
        parts_so_far = [*parts, QUESTION, *(Text((20 + j,)) for j in range(i + 1))]
        logits = reader.step([Row(context, (Text((20 + i,)),))])
        torch.testing.assert_close(logits, dense(reader, twin, parts_so_far)[-1:], atol=TOLERANCE, rtol=0)


def test_step_over_frames_equals_read_then_step(pair: tuple[Reader, PreTrainedModel]) -> None:
    reader, _ = pair
    parts = stream(reader, 3)
    one, other = reader.new_context(), reader.new_context()
    reader.read([Row(one, tuple(parts))])
    at_once = reader.step([Row(other, (*parts, QUESTION))])
    torch.testing.assert_close(reader.step([Row(one, (QUESTION,))]), at_once, atol=TOLERANCE, rtol=0)
    same_kv(one, other, atol=TOLERANCE)


def test_packed_rows_get_what_each_gets_alone(pair: tuple[Reader, PreTrainedModel]) -> None:
    reader, _ = pair
    streams = [stream(reader, num_frames, seed) for num_frames, seed in ((3, 0), (1, 50), (2, 90))]
    alone, packed = [reader.new_context() for _ in streams], [reader.new_context() for _ in streams]
    wanted_blocks = [reader.read([Row(c, tuple(parts))])[0] for c, parts in zip(alone, streams, strict=True)]
    wanted = torch.cat([reader.step([Row(c, (QUESTION,))]) for c in alone])
    first = reader.read([Row(c, (parts[0],)) for c, parts in zip(packed, streams, strict=True)])
    rest = reader.read([Row(c, tuple(parts[1:])) for c, parts in zip(packed, streams, strict=True)])
    logits = reader.step([Row(c, (QUESTION,)) for c in packed])
    torch.testing.assert_close(logits, wanted, atol=TOLERANCE, rtol=0)
    for c, d in zip(alone, packed, strict=True):
        same_kv(c, d, atol=TOLERANCE)
    for blocks, a, b in zip(wanted_blocks, first, rest, strict=True):
        for wanted_block, block in zip(blocks, [*a, *b], strict=True):
            torch.testing.assert_close(block.k_LKTD, wanted_block.k_LKTD, atol=TOLERANCE, rtol=0)
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
        torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=0)


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
        assert (
            block.k_LKTD.untyped_storage().nbytes()
            + block.v_LKTD.untyped_storage().nbytes()
            + (block.pos_3T.numel() * 8)
            == block.num_bytes
        )


def test_keys_of_the_first_layer_are_the_projections_themselves(yarn: tuple[Reader, PreTrainedModel]) -> None:
    """Un-rotated, and without the scale that yarn puts on cos and sin."""
    reader, twin = yarn
    assert reader.rotary.attention_scaling != 1.0
    ((block,),) = reader.read([Row(reader.new_context(), (QUESTION,))])
    layer = twin.get_decoder().layers[0]
    x_TD = layer.input_layernorm(twin.get_input_embeddings()(torch.tensor(QUESTION.ids)))
    k_TD = layer.self_attn.k_proj(x_TD)
    torch.testing.assert_close(block.k_LKTD[0].transpose(0, 1).flatten(1), k_TD.detach(), atol=TOLERANCE, rtol=0)


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
    torch.testing.assert_close(logits, by_hand(twin, chosen, QUESTION), atol=TOLERANCE, rtol=0)


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
    torch.testing.assert_close(logits, wanted, atol=TOLERANCE, rtol=0)


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


@settings(max_examples=15)
@given(data=st.data())
def test_any_chunking_of_any_stream_equals_one_read(data: st.DataObject) -> None:
    reader, twin = make(data.draw(st.sampled_from(["qwen2", "qwen2_5_vl", "qwen3_vl"])))
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
    torch.testing.assert_close(logits, wanted, atol=TOLERANCE, rtol=0)


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
    torch.testing.assert_close(logits, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["qwen2", "qwen2_5_vl", "qwen3_vl"])
def test_bfloat16_is_as_close_to_float32_as_transformers_is(name: str) -> None:
    """Tolerance: 1.5 times the error of transformers' own bfloat16 pass and 0.02, of the largest logit."""
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
        tokens.x_TD.bfloat16().to(dtype),
        tokens.kept_T,
        tokens.grid_hw,
        tokens.pos_3T,
        tokens.advance,
        tokens.span,
        None if deep is None else deep.bfloat16().to(dtype),
    )


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

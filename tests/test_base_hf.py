"""What Hugging Face families share: prompts in two halves, what is switched, and what is refused."""

from __future__ import annotations

import pytest
import torch

from millpond.encoders import FrameTokens, Row, Text
from millpond.memory import KVBlock
from millpond.stream import Span

from .tiny_readers import HIDDEN, QUESTION, TEMPLATE, Reader, frame, make, qwen2


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


def test_a_call_that_fails_leaves_the_context_as_it_was() -> None:
    reader, _ = make("qwen2")
    context = reader.new_context()
    reader.read([Row(context, (QUESTION,))])
    mark, layers = context.mark(), reader.text_model.layers
    wanted = reader.step([Row(context, (Text((1,)),))])
    context.rewind(mark)
    last = layers[-1]
    layers[-1] = torch.nn.Identity()
    try:
        with pytest.raises(TypeError):
            reader.step([Row(context, (Text((2, 3)),))])
    finally:
        layers[-1] = last
    assert context.mark() == mark
    assert torch.equal(reader.step([Row(context, (Text((1,)),))]), wanted)


def test_some_frames_with_deepstack_and_some_without_is_refused() -> None:
    reader, _ = make("qwen3_vl")
    deep = frame(reader, 0)
    plain = FrameTokens(deep.x_TD, deep.kept_T, deep.grid_hw, deep.pos_3T, deep.advance, deep.span)
    with pytest.raises(ValueError, match="all or none"):
        reader.read([Row(reader.new_context(), (deep, plain))])

"""Promises of VideoLLM, for every row of FAMILIES, on small random models against transformers' own code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from transformers import AutoModelForImageTextToText, PreTrainedModel
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

from millpond.encoders import FAMILIES, FrameTokens, Row, Text, VideoLLM, load_model
from millpond.stream import Frame

from .tiny_models import TINY_MODELS

NUM_NEW = 12
# The PIL processor of each family, and the `size` by which it does what the video processor does to a frame,
# where the files say them apart: Qwen3-VL counts the pixels of both frames.
PIL_PROCESSORS = {
    "llava_onevision": (LlavaOnevisionImageProcessorPil, None),
    "qwen2_vl": (Qwen2VLImageProcessorPil, None),
    "qwen2_5_vl": (Qwen2VLImageProcessorPil, None),
    "qwen3_vl": (Qwen2VLImageProcessorPil, {"shortest_edge": 4096 // 2, "longest_edge": 40960 // 2}),
    "smolvlm": (SmolVLMImageProcessorPil, {"longest_edge": 96}),
}
QUESTION = "What color is the circle?"
# Largest difference of logits (which spread by 1.2 and reach 4.3) from transformers' own, over 3 seeds of
# each family: 5e-6 in float32; 0.03 in bfloat16, where transformers' own eager and sdpa attention differ by
# up to 0.7.
FLOAT32_TOLERANCE = 2e-5
BFLOAT16_TOLERANCE = 0.1


class Pair(NamedTuple):
    """One checkpoint, loaded by us and by transformers."""

    ours: VideoLLM
    theirs: PreTrainedModel


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY_MODELS[request.param].save(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def pair(folder: Path) -> Pair:
    return load_pair(folder, torch.float32)


def load_pair(folder: Path, dtype: torch.dtype) -> Pair:
    theirs = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval()
    theirs.generation_config.eos_token_id = None
    return Pair(load_model(folder, device="cpu", dtype=dtype), theirs)


def make_frames(num: int, height: int = 48, width: int = 80, seed: int = 0) -> list[Frame]:
    """A colour gradient under coarse noise: smooth enough to be a picture, different in every frame."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(num):
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
        rgb = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].astype(np.uint8)
        frames.append(Frame(rgb, pts_s=round(0.7 * index, 3), index=index))
    return frames


def uneven_frames() -> list[Frame]:
    """Frames that change size half way, wide and then tall."""
    late = [Frame(f.rgb_HW3, pts_s=f.pts_s + 3, index=f.index + 4) for f in make_frames(3, 90, 40, seed=1)]
    return make_frames(4, 48, 80) + late


def their_ids(model: VideoLLM, blocks: Sequence[FrameTokens], placeholder: int, question: str = QUESTION) -> list[int]:
    """The whole prompt as transformers takes it: a placeholder where each visual token goes."""
    ids = list(model.prefix().ids)
    for block in blocks:
        text = model.frame_text(block.span)
        ids += [*text.before_ids, *[placeholder] * block.num_tokens, *text.after_ids]
    return ids + list(model.question(question).ids)


def their_inputs(pair: Pair, frames: Sequence[Frame]) -> dict[str, Tensor]:
    config = pair.theirs.config
    image_like = pair.ours.spec.family == "smolvlm"
    placeholder = config.image_token_id if image_like else config.video_token_id
    ids = torch.tensor([their_ids(pair.ours, pair.ours.see(frames), placeholder)])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        **pair.ours.pixels(frames).as_inputs(),
    }
    if "video_grid_thw" in inputs:
        inputs["mm_token_type_ids"] = (ids == placeholder).int() * 2
    dtype = pair.theirs.dtype
    return {name: v.to(dtype) if v.is_floating_point() else v for name, v in inputs.items()}


def generate(pair: Pair, frames: Sequence[Frame]) -> list[int]:
    inputs = their_inputs(pair, frames)
    out = pair.theirs.generate(**inputs, do_sample=False, max_new_tokens=NUM_NEW, min_new_tokens=NUM_NEW)
    return out[0, inputs["input_ids"].shape[1] :].tolist()


def stream(model: VideoLLM, frames: Sequence[Frame], chunks: Sequence[int], num_new: int = NUM_NEW) -> list[int]:
    """Greedy answer after the frames were seen and read in chunks of that many blocks."""
    context = model.new_context()
    model.read([Row(context, (model.prefix(),))])
    step = model.spec.frames_per_block
    left = list(frames)
    for chunk in chunks:
        seen, left = left[: chunk * step], left[chunk * step :]
        model.read([Row(context, tuple(model.see(seen)))])
    assert not left
    return greedy(model, context, num_new)


def greedy(model: VideoLLM, context: Any, num_new: int = NUM_NEW, question: str = QUESTION) -> list[int]:
    logits = model.step([Row(context, (model.question(question),))])
    ids = []
    for _ in range(num_new):
        ids.append(int(logits[0].argmax()))
        logits = model.step([Row(context, (Text((ids[-1],)),))])
    return ids


def chunkings(num_blocks: int) -> list[list[int]]:
    """One by one; two and the rest; all at once; uneven."""
    uneven = [1, num_blocks - 2, 1] if num_blocks > 3 else [1, num_blocks - 1]
    return [[1] * num_blocks, [2, num_blocks - 2], [num_blocks], uneven]


def num_blocks(model: VideoLLM, frames: Sequence[Frame]) -> int:
    return -(-len(frames) // model.spec.frames_per_block)


def test_every_family_has_a_tiny_model() -> None:
    assert set(TINY_MODELS) == set(FAMILIES)


@pytest.mark.parametrize("shape", [(96, 160), (150, 70), (40, 48)], ids=str)
def test_pixels_equal_the_familys_pil_processor(pair: Pair, folder: Path, shape: tuple[int, int]) -> None:
    """At most 2 levels of 255 apart, on at most 3 % of the values; see test_pixels.py for the parts."""
    processor_class, size = PIL_PROCESSORS[pair.ours.spec.family]
    processor = processor_class.from_pretrained(folder, **({"size": size} if size else {}))
    picture = ImageFilter.GaussianBlur(2)
    rgb = np.asarray(Image.fromarray(make_frames(1, *shape)[0].rgb_HW3).filter(picture))
    theirs = processor(images=[[Image.fromarray(rgb)]], return_tensors="pt")["pixel_values"]
    if pair.ours.spec.family == "llava_onevision":
        theirs = theirs[0, :1]  # the first patch is the whole picture
    frames = [Frame(rgb, 0.0)] * pair.ours.spec.frames_per_block
    ours = next(iter(pair.ours.pixels(frames).as_inputs().values())).reshape(theirs.shape)
    # as far as one colour's level may be off, whichever colour a number belongs to
    off_levels = (ours - theirs).abs() * 255 * max(processor.image_std)
    assert off_levels.max() < 2.2
    assert (off_levels > 0.5).float().mean() < 0.03


@torch.inference_mode()
def test_visual_tokens_equal_transformers_own(pair: Pair) -> None:
    frames = uneven_frames()
    inputs = pair.ours.pixels(frames).as_inputs()
    tokens = pair.ours.see(frames)
    if "pixel_values" in inputs:
        theirs = pair.theirs.get_image_features(**inputs, return_dict=True)
    else:
        theirs = pair.theirs.get_video_features(**inputs, return_dict=True)
    expected = torch.cat([part.flatten(0, -2) for part in theirs.pooler_output])
    assert len(tokens) == num_blocks(pair.ours, frames)
    torch.testing.assert_close(torch.cat([t.x_TD for t in tokens]), expected, atol=2e-5, rtol=1e-5)
    if pair.ours.spec.family == "qwen3_vl":
        taps = torch.stack([torch.cat(tap) for tap in theirs.deepstack_features])
        torch.testing.assert_close(torch.cat([t.deep_ETD for t in tokens], 1), taps, atol=2e-5, rtol=1e-5)


def test_seeing_together_equals_seeing_alone(pair: Pair) -> None:
    frames, step = uneven_frames(), pair.ours.spec.frames_per_block
    together = pair.ours.see(frames)
    alone = [pair.ours.see(frames[i : i + step])[0] for i in range(0, len(frames), step)]
    for one, other in zip(together, alone, strict=True):
        assert (one.grid_hw, one.span, one.advance) == (other.grid_hw, other.span, other.advance)
        torch.testing.assert_close(one.x_TD, other.x_TD, atol=2e-5, rtol=1e-5)
        assert torch.equal(one.pos_3T, other.pos_3T)
    assert pair.ours.see([]) == []


def test_a_short_last_block_repeats_its_last_frame(pair: Pair) -> None:
    frames = make_frames(3)
    twice = [*frames, Frame(frames[-1].rgb_HW3, pts_s=frames[-1].pts_s)]
    short, full = pair.ours.see(frames), pair.ours.see(twice)
    if pair.ours.spec.frames_per_block == 1:
        assert len(short) == 3
    else:
        torch.testing.assert_close(short[-1].x_TD, full[-1].x_TD)
        assert short[-1].span == full[-1].span


@pytest.mark.parametrize("frames", [make_frames(8), make_frames(5, 90, 40, seed=2), uneven_frames()], ids=len)
def test_streaming_equals_generate(pair: Pair, frames: list[Frame]) -> None:
    expected = generate(pair, frames)
    assert len(set(expected)) > 3, f"a nearly constant answer proves nothing: {expected}"
    for chunks in chunkings(num_blocks(pair.ours, frames)):
        assert stream(pair.ours, frames, chunks) == expected, chunks


def test_the_answer_depends_on_the_frames(pair: Pair) -> None:
    answers = {
        tuple(stream(pair.ours, make_frames(4, seed=s), [num_blocks(pair.ours, make_frames(4))])) for s in (1, 2, 3)
    }
    assert len(answers) == 3


@torch.inference_mode()
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, FLOAT32_TOLERANCE), (torch.bfloat16, BFLOAT16_TOLERANCE)],
    ids=str,
)
def test_logits_equal_transformers_own(folder: Path, dtype: torch.dtype, tolerance: float) -> None:
    pair = load_pair(folder, dtype)
    frames = uneven_frames()
    expected = pair.theirs(**their_inputs(pair, frames)).logits[0, -1].float()
    context = pair.ours.new_context()
    pair.ours.read([Row(context, (pair.ours.prefix(),))])
    for tokens in pair.ours.see(frames):
        pair.ours.read([Row(context, (tokens,))])
    logits = pair.ours.step([Row(context, (pair.ours.question(QUESTION),))])[0]
    assert expected.std() > 0.5, "logits this flat would agree whatever is wrong"
    assert (logits - expected).abs().max() < tolerance


def test_two_sessions_packed_equal_each_alone(pair: Pair) -> None:
    model, videos = pair.ours, (make_frames(6, seed=3), make_frames(4, 90, 40, seed=4))
    alone = []
    for frames in videos:
        context = model.new_context()
        model.read([Row(context, (model.prefix(), *model.see(frames)))])
        alone.append(model.step([Row(context, (model.question(QUESTION),))])[0])
    contexts = [model.new_context() for _ in videos]
    seen = [model.see(frames) for frames in videos]
    rows = zip(contexts, seen, strict=True)
    model.read([Row(context, (model.prefix(), tokens[0])) for context, tokens in rows])
    rows = zip(contexts, seen, strict=True)
    model.read([Row(context, tuple(tokens[1:])) for context, tokens in rows])
    packed = model.step([Row(context, (model.question(QUESTION),)) for context in contexts])
    torch.testing.assert_close(packed, torch.stack(alone), atol=FLOAT32_TOLERANCE, rtol=1e-4)
    assert not torch.allclose(packed[0], packed[1], atol=0.1)


def test_blocks_fill_another_context_as_they_were_read(pair: Pair) -> None:
    model, frames = pair.ours, uneven_frames()
    context = model.new_context()
    blocks = model.read([Row(context, (model.prefix(), *model.see(frames)))])[0]
    expected = greedy(model, context)
    again = model.new_context()
    model.fill(again, blocks)
    assert greedy(model, again) == expected


def test_prompt_pieces_are_the_chat_template_tokenized_whole(pair: Pair) -> None:
    model, tokenizer = pair.ours, pair.ours.tokenizer
    frames = make_frames(4)
    blocks = model.see(frames)
    smol = model.spec.family == "smolvlm"
    mark = "<image>" if smol else model.tokenizer.convert_ids_to_tokens(pair.theirs.config.video_token_id)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}],
        chat_template=DEFAULT_CHAT_TEMPLATE if smol else None,
        tokenize=False,
        add_generation_prompt=True,
    )
    written = {
        "llava_onevision": lambda b: f"{b.span.start_s:.1f}".removesuffix(".0") + " s" + mark * b.num_tokens,
        "smolvlm": lambda b: (
            f"\nFrame from 00:{int(b.span.start_s):02d}:<fake_token_around_image><global-img>"
            + mark * b.num_tokens
            + "<fake_token_around_image>"
        ),
    }.get(
        model.spec.family,
        lambda b: (
            f"<{(b.span.start_s + b.span.end_s) / 2:.1f} seconds><|vision_start|>{mark * b.num_tokens}<|vision_end|>"
        ),
    )
    video = "".join(written(block) for block in blocks)
    if smol:
        video = f"You are provided the following series of frames from a video.\n{video}\n\n"
    placeholder = {"llava_onevision": "<video>", "smolvlm": "<video>"}.get(
        model.spec.family, "<|vision_start|><|video_pad|><|vision_end|>"
    )
    assert rendered.count(placeholder) == 1
    whole = tokenizer(rendered.replace(placeholder, video), add_special_tokens=False)["input_ids"]
    assert their_ids(model, blocks, tokenizer.convert_tokens_to_ids(mark)) == whole


def test_tokens_say_where_they_stand(pair: Pair) -> None:
    for tokens in pair.ours.see(uneven_frames()):
        height, width = tokens.grid_hw
        newline = pair.ours.spec.family == "llava_onevision"
        assert tokens.num_tokens == height * width + newline
        assert tokens.kept_T.tolist() == list(range(tokens.num_tokens))
        if pair.ours.spec.family.startswith("qwen"):
            assert tokens.advance == max(height, width)
            assert tokens.pos_3T[:, -1].tolist() == [0, height - 1, width - 1]
        else:
            assert tokens.advance == tokens.num_tokens
            assert tokens.pos_3T[:, -1].tolist() == [tokens.num_tokens - 1] * 3


def test_hours_are_written_as_they_are_meant(pair: Pair) -> None:
    model = pair.ours
    frame = make_frames(1)[0]
    late = model.see([Frame(frame.rgb_HW3, pts_s=7385.0)])[0]
    text = model.tokenizer.decode(list(model.frame_text(late.span).before_ids), skip_special_tokens=False)
    wanted = {"llava_onevision": "7385 s", "smolvlm": "\nFrame from 123:05:"}.get(model.spec.family, "<7385.0 seconds>")
    assert text.startswith(wanted)

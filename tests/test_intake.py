"""Intake: the newest blocks are read whole, older ones compressed once and for good, whatever is asked when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from millpond.encoders import Row, VideoLLM
from millpond.encoders.compressors import COMPRESSORS, Compressor
from millpond.encoders.compressors.covering import UniformGrid
from millpond.encoders.compressors.temporal import TemporalDrop
from millpond.encoders.families.base_hf import HFVideoLLM
from millpond.encoders.reuse.delta import DeltaReuse
from millpond.encoders.sight import Sight
from millpond.memory import MemoryConfig
from millpond.pipeline import Question
from millpond.pipeline.generate import Prompt, generate
from millpond.stream import Frame, Span

from .fresh_window import NUM_FRESH, Watched, engine_with
from .tiny_models import TINY_MODELS
from .watched import ids_after, mini, pictures, pushed, still, tiny

QUESTION = "What color is the circle?"
OTHER = "Where is the red square?"
FAMILIES = sorted(TINY_MODELS)


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return tiny("llava_onevision")


def blocks(model: VideoLLM, num: int, *, odd: int = 0, seed: int = 0) -> list[Frame]:
    """Frames for so many blocks, and as many as there are too few for another."""
    step = model.spec.frames_per_block
    return pictures(num * step + min(odd, step - 1), seed=seed)


# What a question reads.


def by_hand(model: VideoLLM, compressor: Compressor, frames: Sequence[Frame], num_fresh: int) -> tuple[int, ...]:
    """The answer's tokens, from the parts: older blocks compressed, the newest whole, in one reading."""
    tokens, run = model.see(frames), compressor.start()
    older = [run.compress(Sight(one)) for one in tokens[:-num_fresh]]
    assert sum(one.num_tokens for one in older) < sum(one.num_tokens for one in tokens[:-num_fresh])
    context = model.new_context()
    model.read([Row(context, (model.prefix(), *older, *tokens[-num_fresh:]))])
    (done,) = generate(model, [Prompt(context, model.question(QUESTION), 8)])
    return done.ids


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "compressor", [UniformGrid(keep_tokens=2), TemporalDrop(keep_tokens=3)], ids=["uniform", "drop"]
)
def test_a_question_reads_the_newest_blocks_whole_and_older_ones_compressed(
    family: str, compressor: Compressor
) -> None:
    model = tiny(family)
    odd = model.spec.frames_per_block - 1
    frames = blocks(model, 2 * NUM_FRESH, odd=odd)
    ids = ids_after(engine_with(model, compressor), frames, QUESTION)
    assert ids == by_hand(model, compressor, frames, NUM_FRESH + odd)
    assert len(set(ids)) > 2, "a nearly constant answer proves nothing"


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
def test_a_stream_no_longer_than_the_window_is_read_whole_whatever_the_compressor(model: VideoLLM, name: str) -> None:
    session = engine_with(model, name).session(question=QUESTION)
    for frame in pictures(NUM_FRESH):
        session.push(frame)
    assert session.ask(QUESTION).token_ids == ids_after(engine_with(model, "none"), pictures(NUM_FRESH), QUESTION)


@pytest.mark.parametrize("family", FAMILIES)
def test_older_blocks_hold_what_the_compressor_kept_at_its_place(family: str) -> None:
    model = tiny(family)
    assert isinstance(model, HFVideoLLM)
    session = pushed(engine_with(model, UniformGrid(keep_tokens=2)), blocks(model, 2 * NUM_FRESH))
    whole = model.see(blocks(model, 2 * NUM_FRESH))
    assert [one.num_tokens for one in session.intake.fresh] == [one.num_tokens for one in whole[NUM_FRESH:]]
    assert [one.span for one in session.intake.fresh] == [one.span for one in whole[NUM_FRESH:]]
    for block, seen in zip(session.memory.recent, whole, strict=False):
        kept = UniformGrid(keep_tokens=2).start().compress(Sight(seen))
        before_ids, after_ids = model.frame_text(seen.span)
        assert block.num_tokens == len(before_ids) + kept.num_tokens + len(after_ids)
        visual_3T = block.pos_3T[:, len(before_ids) : len(before_ids) + kept.num_tokens]
        # As far from the frame's time, and from the next frame, as if all its tokens were there.
        assert torch.equal(visual_3T - len(before_ids), seen.pos_3T[:, kept.kept_T])
        assert block.advance == len(before_ids) + seen.advance + len(after_ids)
        assert block.span == seen.span
    num_kept = sum(UniformGrid(keep_tokens=2).start().compress(Sight(one)).num_tokens for one in whole[:NUM_FRESH])
    assert session.intake.num_kept_tokens == num_kept
    assert session.intake.num_seen_tokens == sum(one.num_tokens for one in whole[:NUM_FRESH])


def test_without_a_compressor_everything_is_read_at_once(model: VideoLLM) -> None:
    session = pushed(engine_with(model, "none", memory=MemoryConfig(recent_frames=9)), pictures(5))
    assert (session.num_pending, session.intake.fresh, session.intake.ready) == (0, (), ())
    assert len(session.memory.recent) == 5
    assert session.intake.num_seen_tokens == session.intake.num_kept_tokens > 0


def test_an_answer_names_what_is_fresh_among_what_it_read(model: VideoLLM) -> None:
    session = pushed(engine_with(model, UniformGrid(keep_tokens=2)), pictures(8))
    assert [len(session.intake.fresh), len(session.memory.recent), len(session.memory.older)] == [2, 2, 4]
    assert session.ask(QUESTION).used[-1].end_s == 7.0
    assert session.ask(QUESTION, since_s=6.0).used == (Span(6.0, 7.0),)
    assert session.ask(QUESTION, since_s=7.0, until_s=9.0).used == (Span(7.0, 7.0),)
    assert session.ask(QUESTION, since_s=5.0, until_s=6.0).used == (Span(5.0, 6.0),)
    assert session.ask(QUESTION, since_s=0.0, until_s=1.0).used == (Span(0.0, 1.0),)
    with pytest.raises(ValueError, match=r"no frame from 9.0 s is remembered"):
        session.ask(QUESTION, since_s=9.0)


def few_tokens(name: str) -> Compressor:
    """That row, with a count that is small even for the built-in model's 36 tokens a frame."""
    kind: Any = COMPRESSORS[name]
    return kind(keep_tokens=9) if "keep_tokens" in kind.__dataclass_fields__ else kind()


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
def test_every_compressor_works_on_the_built_in_model(name: str) -> None:
    engine = engine_with(mini(), few_tokens(name), max_new_tokens=2, reuse=DeltaReuse(falls_back=False))
    session = engine.session(question=QUESTION)
    for frame in [*pictures(3), *still(3, seed=2, start_s=3.0)]:
        session.push(frame)
    assert session.ask(QUESTION).used
    # What is fresh is not counted: it was not compressed yet.
    num_older = 6 if name == "none" else 6 - NUM_FRESH
    num_whole = num_older * mini().see(pictures(1))[0].num_tokens
    assert session.intake.num_seen_tokens == num_whole >= session.intake.num_kept_tokens >= num_older
    assert (session.intake.num_kept_tokens == num_whole) == (name == "none")
    session.memory.check()


# Nothing depends on when it is asked, or how frames come.


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_do_not_change_answers(family: str) -> None:
    model, compressor = tiny(family), TemporalDrop(keep_tokens=3)
    frames = blocks(model, 2 * NUM_FRESH, odd=1)
    assert len({ids_after(engine_with(model, compressor, chunk_frames=n), frames, OTHER) for n in (1, 3, 8)}) == 1


@pytest.mark.parametrize("name", ["difference_pruning", "hired", "mmtok", "progressive"])
def test_chunks_do_not_change_what_a_compressor_looks_at(model: VideoLLM, name: str) -> None:
    frames = [*still(2), *pictures(2, seed=1, step_s=0.5)]
    frames = [Frame(frame.rgb_HW3, float(n), index=n) for n, frame in enumerate(frames)]
    assert len({ids_after(engine_with(model, name, chunk_frames=n), frames, OTHER) for n in (1, 3, 8)}) == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_asking_in_between_changes_no_later_answer(family: str) -> None:
    model, compressor = tiny(family), TemporalDrop(keep_tokens=3)
    frames, answers = blocks(model, 3 * NUM_FRESH + 1, odd=1), []
    for ask_at in ((), (0, 2, 3, 5)):
        session = engine_with(model, compressor).session()
        for number, frame in enumerate(frames):
            session.push(frame)
            if number in ask_at:
                answer = session.ask(QUESTION)
                assert (answer.seen_until_s, answer.used[-1].end_s) == (frame.pts_s, frame.pts_s)
        session.narrate(force=bool(ask_at))
        answers.append(session.ask(OTHER).token_ids)
        session.memory.check()
    assert answers[0] == answers[1]


@pytest.mark.parametrize("chunk_frames", [1, 4])
def test_a_compressor_sees_every_block_once_in_order_of_time(chunk_frames: int) -> None:
    model, compressor = tiny("qwen2_vl"), Watched()
    session = engine_with(model, compressor, chunk_frames=chunk_frames).session()
    for frame in pictures(15):
        session.push(frame)
        if frame.pts_s in (0.0, 4.0, 5.0, 11.0):
            session.ask(QUESTION)
            session.ask(OTHER, since_s=0.0, until_s=2.0)
    session.ask(QUESTION)
    assert [sight.tokens.span for sight in compressor.seen] == [Span(t, t + 1.0) for t in (0.0, 2.0, 4.0, 6.0, 8.0)]
    assert session.intake.num_waiting == 2 * NUM_FRESH + 1
    assert session.num_pending == 2 * NUM_FRESH + 1


# Sessions together.


@pytest.mark.parametrize("family", ["llava_onevision", "qwen3_vl"])
@pytest.mark.parametrize("chunk_frames", [1, 50])
def test_sessions_packed_give_what_each_gives_alone(family: str, chunk_frames: int) -> None:
    model, compressor = tiny(family), TemporalDrop(keep_tokens=3)
    engine = engine_with(model, compressor, chunk_frames=chunk_frames)
    films = {"a": blocks(model, 4, seed=1), "b": blocks(model, 1, seed=2), "c": blocks(model, 3, seed=3, odd=1)}
    for name, frames in films.items():
        pushed(engine, frames, name)
    engine.read_pending()
    answers = engine.ask([(session, Question(QUESTION)) for session in engine.sessions])
    assert len({answer.token_ids for answer in answers}) == 3
    for answer, frames in zip(answers, films.values(), strict=True):
        assert answer.token_ids == ids_after(engine_with(model, compressor), frames, QUESTION)

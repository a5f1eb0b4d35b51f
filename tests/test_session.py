"""One stream: what is pushed is seen, what is asked changes nothing, and memory keeps to its limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from millpond.encoders import Row, VideoLLM, load_model
from millpond.memory import MemoryConfig
from millpond.pipeline import NarrationConfig, Question, Session
from millpond.pipeline.prompts import PROMPTS
from millpond.stream import Frame, Span, time_words

from .tiny_models import TINY_MODELS
from .watched import engine_of, ids_after, load_theirs, picture, pictures, pushed, save_mini_at_random, still, tiny

QUESTION = "What color is the circle?"
OTHER = "Where is the red square?"
FAMILIES = sorted(TINY_MODELS)
TWO_FRAMES = "qwen2_vl"


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return tiny("llava_onevision")


# What an answer rests on.


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_do_not_change_answers(family: str) -> None:
    frames = pictures(9)
    answers = {ids_after(engine_of(tiny(family), chunk_frames=n), frames, QUESTION) for n in (1, 3, 8)}
    assert len(answers) == 1
    assert len(set(answers.pop())) > 2, "a nearly constant answer proves nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_sees_every_frame_pushed_before_it(family: str) -> None:
    engine = engine_of(tiny(family), chunk_frames=8)
    frames = pictures(5)
    session = pushed(engine, frames)
    assert session.num_pending == 5
    answer = session.ask(QUESTION)
    assert session.num_pending == 5 % tiny(family).spec.frames_per_block, "an odd frame is read for the question only"
    assert (answer.seen_until_s, answer.asked_at_s) == (4.0, 4.0)
    assert answer.used == (Span(0.0, 4.0),)
    last_changed = [*frames[:4], Frame(picture(999), 4.0)]
    assert ids_after(engine_of(tiny(family)), last_changed, QUESTION) != answer.token_ids


def test_answers_equal_transformers_own(tmp_path: Path) -> None:
    """The built-in model's architecture, its words, random weights: a session against `generate`."""
    folder = save_mini_at_random(tmp_path)
    theirs, tokenizer = load_theirs(folder), AutoTokenizer.from_pretrained(folder)
    theirs.generation_config.eos_token_id = None
    # Of the tower's own size, so that nothing is resized; the levels become -1 to 1.
    frames = pictures(7, height=96, width=96, step_s=0.5)
    pixels = torch.from_numpy(np.stack([f.rgb_HW3 for f in frames])).permute(0, 3, 1, 2)[:, None] / 127.5 - 1
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    # The template writes nothing between "user" and the video: each frame's time is a text of its own.
    before, mark, after = prompt.partition("<video>")
    pieces = [before, *(piece for f in frames for piece in (f"{time_words(f.pts_s)} s", mark * 37)), after]
    ids = torch.tensor([[i for piece in pieces for i in tokenizer(piece)["input_ids"]]])
    out = theirs.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=pixels,
        do_sample=False,
        max_new_tokens=10,
    )
    expected = out[0, ids.shape[1] :].tolist()
    assert len(set(expected)) > 3, f"a nearly constant answer proves nothing: {expected}"
    ours = load_model(folder, device="cpu", dtype="float32")
    stops = [expected.index(i) for i in ours.stop_ids if i in expected]
    for chunk_frames in (1, 2, 16):
        engine = engine_of(ours, chunk_frames=chunk_frames, max_new_tokens=10)
        assert list(ids_after(engine, frames, QUESTION)) == expected[: min(stops, default=10)]


def test_every_question_starts_from_the_same_place(model: VideoLLM) -> None:
    session = pushed(engine_of(model), pictures(4))
    first, other, again = session.ask(QUESTION), session.ask(OTHER), session.ask(QUESTION)
    assert first.token_ids == again.token_ids != other.token_ids
    assert first.text == again.text


@pytest.mark.parametrize("family", FAMILIES)
def test_asking_in_between_changes_no_later_answer_and_loses_no_frame(family: str) -> None:
    engine, frames = engine_of(tiny(family), chunk_frames=3), pictures(8)
    session = engine.session("asked")
    for number, frame in enumerate(frames, 1):
        session.push(frame)
        if number in (1, 2, 5, 6):  # an odd number fills no block of a two-frame family
            answer = session.ask(QUESTION)
            assert (answer.seen_until_s, session.num_frames) == (frame.pts_s, number)
    assert session.ask(OTHER).token_ids == ids_after(engine_of(tiny(family)), frames, OTHER)


@pytest.mark.parametrize("recent_frames", [2, 4])
def test_asking_in_between_changes_nothing_where_blocks_have_left_the_window(
    model: VideoLLM, recent_frames: int
) -> None:
    memory = MemoryConfig(recent_frames=recent_frames, recall_blocks=2)
    frames, answers = pictures(9), []
    for ask_at in ((), (2, 5, 7)):
        session = engine_of(model, memory=memory, chunk_frames=1).session()
        for number, frame in enumerate(frames):
            session.push(frame)
            if number in ask_at:
                session.ask(QUESTION)
        answers.append(session.ask(OTHER).token_ids)
    assert answers[0] == answers[1]


def test_two_frame_families_see_an_odd_last_frame() -> None:
    model = tiny(TWO_FRAMES)
    session = pushed(engine_of(model), pictures(3))
    odd = session.ask(QUESTION)
    assert (odd.seen_until_s, odd.used) == (2.0, (Span(0.0, 2.0),))
    # The short block is filled with its last frame, as transformers does.
    repeated = [*pictures(3), Frame(pictures(3)[-1].rgb_HW3, 2.0)]
    assert odd.token_ids == ids_after(engine_of(model), repeated, QUESTION)
    for frame in pictures(6)[3:]:
        session.push(frame)
    later = session.ask(QUESTION)
    assert (session.num_frames, later.seen_until_s, later.used) == (6, 5.0, (Span(0.0, 5.0),))
    session.memory.check()


# What is recalled.


def test_older_frames_are_recalled_and_named(model: VideoLLM) -> None:
    memory = MemoryConfig(recent_frames=2, recall_blocks=1)
    session = pushed(engine_of(model, memory=memory), pictures(12))
    for question in (QUESTION, OTHER):
        query = model.probe(Row(session.context(), (model.question(question),)))
        (best,) = session.memory.recall(query, num_blocks=1).spans
        used = session.ask(question).used
        assert best.end_s < 10.0
        assert used == ((best, Span(10.0, 11.0)) if best.end_s < 9.0 else (Span(best.start_s, 11.0),))


def test_without_recall_only_the_recent_window_is_read(model: VideoLLM) -> None:
    memory = MemoryConfig(recent_frames=3, recall_blocks=0)
    answer = pushed(engine_of(model, memory=memory), pictures(9)).ask(QUESTION)
    assert answer.used == (Span(6.0, 8.0),)


def test_a_retriever_that_needs_no_query_gets_none(model: VideoLLM) -> None:
    memory = MemoryConfig(recent_frames=2, recall_blocks=2, retriever="recent")
    answer = pushed(engine_of(model, memory=memory), pictures(9)).ask(QUESTION)
    assert answer.used == (Span(5.0, 8.0),)


# What is refused.


def test_frames_must_come_in_order(model: VideoLLM) -> None:
    session = pushed(engine_of(model), pictures(3))
    with pytest.raises(ValueError, match=r"must come in order of time; got Frame\(80x48 at 1.500 s\) after one at 2"):
        session.push(Frame(picture(0), 1.5))
    session.push(Frame(picture(0), 2.0))  # the same moment again is no step back
    assert session.ask(QUESTION).seen_until_s == 2.0 and session.num_frames == 4


def test_a_question_before_any_frame_is_refused(model: VideoLLM) -> None:
    session = engine_of(model).session("yard")
    with pytest.raises(ValueError, match="nothing was seen of stream 'yard' yet; push a frame"):
        session.ask(QUESTION)
    assert session.narrate(force=True) is None
    assert session.seen_until_s is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"text": "  "}, "a question needs words; got '  '"),
        ({"since_s": 3.0, "until_s": 2.0}, "since_s <= until_s; got 3.0 and 2.0"),
        ({"at_s": float("nan")}, "at_s must be a finite number of seconds; got nan"),
        ({"since_s": float("-inf")}, "since_s must be a finite number"),
        ({"until_s": float("inf")}, "until_s must be a finite number"),
    ],
)
def test_a_question_checks_itself(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Question(**{"text": "what?", **wrong})  # type: ignore[arg-type]


def test_asking_later_than_the_newest_frame_is_said(model: VideoLLM) -> None:
    session = pushed(engine_of(model), pictures(3))
    late = session.ask_question(Question(QUESTION, at_s=7.5))
    assert (late.asked_at_s, late.seen_until_s) == (7.5, 2.0)
    early = session.ask_question(Question(QUESTION, at_s=0.0))
    assert (early.asked_at_s, early.seen_until_s) == (2.0, 2.0)


def test_a_note_is_told_before_every_question_and_not_repeated(model: VideoLLM) -> None:
    session = pushed(engine_of(model, memory=MemoryConfig(recent_frames=2, recall_blocks=4)), pictures(6))
    session.note = "Look twice."
    told = session.ask(QUESTION)
    session.note = ""
    assert told.question == QUESTION
    assert told.token_ids == session.ask(f"Look twice. {QUESTION}").token_ids != session.ask(QUESTION).token_ids


# Gates, narrations, closing.


def test_a_gate_drops_repeats_and_counts_them(model: VideoLLM) -> None:
    engine = engine_of(model, gate="difference")
    session = pushed(engine, [*still(4), *still(3, seed=7, start_s=4.0)])
    assert (session.num_frames, session.num_dropped, session.num_pending) == (7, 5, 2)
    answer = session.ask(QUESTION)
    assert answer.seen_until_s == 6.0, "a frame that is no news was seen all the same"
    kept = [still(1)[0], still(1, seed=7, start_s=4.0)[0]]
    assert answer.token_ids == ids_after(engine_of(model), kept, QUESTION)


def narrating(model: VideoLLM, frames: list[Frame], **narration: float) -> list[tuple[float, float]]:
    """When the session spoke, and the spans that it spoke of."""
    settings_ = NarrationConfig(**{"min_gap_s": 2.0, "max_gap_s": 5.0, "max_new_tokens": 3, **narration})  # type: ignore[arg-type]
    session = engine_of(model, narration=settings_).session()
    spoken = []
    for frame in frames:
        session.push(frame)
        said = session.narrate()
        if said is not None:
            assert said.text == said.answer.text and said.span.end_s == frame.pts_s
            assert said.answer.num_tokens <= 3
            spoken.append((said.span.start_s, said.span.end_s))
    return spoken


def test_narrations_come_when_enough_changed_and_not_too_often(model: VideoLLM) -> None:
    assert narrating(model, pictures(8)) == [(0, 2), (2, 4), (4, 6)]


def test_narrations_of_a_still_picture_come_when_enough_time_passed(model: VideoLLM) -> None:
    assert narrating(model, still(14)) == [(0, 2), (2, 7), (7, 12)]
    assert narrating(model, still(14), change_levels=0.0) == [(0, 2), (2, 7), (7, 12)]


def test_a_forced_narration_is_said_now_and_once(model: VideoLLM) -> None:
    session = pushed(engine_of(model), pictures(1))
    assert session.narrate() is None
    said = session.narrate(force=True)
    assert said is not None and said.span == Span(0.0, 0.0)
    assert said.answer.question == session.prompts.first
    assert session.narrate(force=True) is None, "nothing was seen since"
    session.push(pictures(2)[1])
    more = session.narrate(force=True)
    assert more is not None and more.span == Span(0.0, 1.0)
    assert more.answer.question == session.prompts.news.format(since="0")


def test_a_silent_narration_is_not_said_but_counts(model: VideoLLM) -> None:
    briefly = NarrationConfig(max_new_tokens=8)
    said = pushed(engine_of(model, narration=briefly), pictures(3)).narrate()
    assert said is not None
    prompts = replace(PROMPTS, silent=(said.text.lower().rstrip(".!"),))
    session = pushed(engine_of(model, narration=briefly, prompts=prompts), pictures(3))
    assert session.narrate() is None
    session.push(pictures(4)[3])
    assert session.narrate(force=True) is not None
    assert session.narrate() is None
    again = pushed(engine_of(model, narration=briefly, prompts=prompts), pictures(3))
    again.narrate()
    again.push(pictures(5)[3])
    again.push(pictures(5)[4])
    later = again.narrate()
    assert later is not None and later.span == Span(2.0, 4.0), "what was not worth a word is not told again"


def test_a_narration_changes_no_answer(model: VideoLLM) -> None:
    session = pushed(engine_of(model), pictures(6))
    session.narrate(force=True)
    assert session.ask(QUESTION).token_ids == ids_after(engine_of(model), pictures(6), QUESTION)


def test_a_closed_session_gives_its_name_and_its_memory_back(model: VideoLLM) -> None:
    engine = engine_of(model)
    session = pushed(engine, pictures(9), "door")
    session.ask(QUESTION)
    prompt_bytes = engine.session("other").memory.num_bytes
    with pytest.raises(ValueError, match="stream 'door' has a session already; close it"):
        engine.session("door")
    session.close()
    session.close()
    assert session.num_bytes == prompt_bytes and not session.memory.recent
    for act in (lambda: session.push(pictures(1)[0]), lambda: session.ask(QUESTION)):
        with pytest.raises(ValueError, match="the session of stream 'door' is closed; start another"):
            act()
    again = pushed(engine, pictures(4), "door")
    assert again.ask(QUESTION).token_ids == ids_after(engine_of(model), pictures(4), QUESTION)
    assert engine.sessions == (engine.sessions[0], again)
    session.close()
    assert again in engine.sessions, "closing an old one again leaves its successor alone"


def test_answers_and_sessions_show_themselves_shortly(model: VideoLLM) -> None:
    session = pushed(engine_of(model), pictures(2))
    assert repr(session).startswith("Session('stream', seen until 1.0 s, ")
    assert max(len(repr(thing)) for thing in (session, session.ask(QUESTION), engine_of(model))) < 120


# Limits.

actions = st.one_of(
    st.tuples(st.just("push"), st.integers(1, 5), st.sampled_from([(48, 80), (20, 20), (90, 40)])),
    st.tuples(st.just("ask"), st.sampled_from([None, (0.0, 3.0), (2.0, 2.0), (4.0, 30.0)])),
    st.tuples(st.just("narrate"), st.booleans()),
)


@pytest.mark.parametrize("family", ["llava_onevision", TWO_FRAMES])
@given(st.data())
@settings(max_examples=12)
def test_memory_keeps_to_its_limits_whatever_happens(family: str, data: st.DataObject) -> None:
    model = tiny(family)
    block_bytes = 30 * model.spec.kv.bytes_per_token
    memory = MemoryConfig(
        recent_frames=data.draw(st.integers(1, 4)),
        budget_bytes=data.draw(st.sampled_from([0, block_bytes, 4 * block_bytes, 2**30])),
        recall_blocks=data.draw(st.integers(0, 3)),
        retriever=data.draw(st.sampled_from(["by_key", "by_key_and_novelty", "recent"])),
    )
    engine = engine_of(
        model,
        memory=memory,
        gate=data.draw(st.sampled_from(["none", "difference"])),
        compressor=data.draw(st.sampled_from(["none", "temporal_drop", "difference_pruning"])),
        chunk_frames=data.draw(st.integers(1, 4)),
        max_new_tokens=2,
        narration=NarrationConfig(min_gap_s=1.0, max_gap_s=3.0, max_new_tokens=2),
    )
    session, now_s = engine.session(), 0.0
    for action in data.draw(st.lists(actions, min_size=2, max_size=8)):
        if action[0] == "push":
            for n in range(action[1]):
                session.push(Frame(picture(data.draw(st.integers(0, 2)), *action[2]), now_s, index=n))
                now_s += data.draw(st.sampled_from([0.0, 0.5, 1.0]))
                check(session, memory)
        elif action[0] == "ask":
            since_s, until_s = action[1] or (None, None)
            try:
                answer = session.ask(QUESTION, since_s=since_s, until_s=until_s)
            except ValueError as error:
                assert "yet; push a frame" in str(error) or "is remembered of stream" in str(error)
            else:
                assert answer.seen_until_s == session.seen_until_s == answer.asked_at_s
                step = model.spec.frames_per_block
                assert answer.used and session.num_pending == len(session.intake.odd) + step * len(session.intake.fresh)
        else:
            session.narrate(force=action[1])
        check(session, memory)
    session.close()
    check(session, memory)


def check(session: Session, memory: MemoryConfig) -> None:
    session.memory.check()
    stats = session.memory.stats
    assert stats.older_bytes + stats.index_bytes <= memory.budget_bytes
    assert stats.num_recent <= memory.recent_frames
    assert len(session.intake.fresh) <= memory.recent_frames and not session.intake.ready
    assert session.num_frames >= session.num_dropped + session.num_pending
    session._context.check()
    # What the context has room for: a prompt, the recent window, a chunk, a question, half as much again.
    assert session._context.capacity <= 2048

"""Several sessions of one model: what they need at once is done in one pass, and each gets what it would alone."""

from __future__ import annotations

from typing import Any

import pytest

from millpond.encoders import VideoLLM
from millpond.encoders.compressors.temporal import TemporalDrop
from millpond.encoders.reuse.delta import DeltaReuse
from millpond.memory import MemoryConfig
from millpond.pipeline import Engine, EngineConfig, Question
from millpond.pipeline.prompts import MINI_PROMPTS, PROMPTS
from millpond.stream.gates import DifferenceGate

from .tiny_models import TINY_MODELS
from .watched import engine_of, ids_after, mini, pictures, tiny

QUESTION = "What color is the circle?"
OTHER = "Where is the red square?"
FAMILIES = sorted(TINY_MODELS)
LENGTHS = {"a": 3, "b": 9, "c": 1}


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return tiny("llava_onevision")


def filled(engine: Engine, lengths: dict[str, int] = LENGTHS) -> Engine:
    """A session for each name, with pictures of its own."""
    for seed, (name, num_frames) in enumerate(lengths.items()):
        session = engine.session(name)
        for frame in pictures(num_frames, seed=seed + 1, height=48 if seed else 90):
            session.push(frame)
    return engine


def alone(model: VideoLLM, name: str, question: str = QUESTION, **settings: Any) -> tuple[int, ...]:
    seed = list(LENGTHS).index(name)
    frames = pictures(LENGTHS[name], seed=seed + 1, height=48 if seed else 90)
    return ids_after(engine_of(model, **settings), frames, question)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunk_frames", [1, 50])
def test_sessions_asked_together_answer_as_each_alone(family: str, chunk_frames: int) -> None:
    engine = filled(engine_of(tiny(family), chunk_frames=chunk_frames))
    questions = {"a": QUESTION, "b": OTHER, "c": QUESTION}
    answers = engine.ask([(s, Question(questions[s.stream_id])) for s in engine.sessions])
    assert len({answer.token_ids for answer in answers}) == 3
    for session, answer in zip(engine.sessions, answers, strict=True):
        name = session.stream_id
        assert answer.question == questions[name]
        assert answer.seen_until_s == LENGTHS[name] - 1
        assert answer.token_ids == alone(tiny(family), name, questions[name])


def test_sessions_that_have_forgotten_answer_as_each_alone(model: VideoLLM) -> None:
    memory = MemoryConfig(recent_frames=2, recall_blocks=1)
    settings = {"memory": memory, "chunk_frames": 1}
    engine = filled(engine_of(model, **settings))
    for session, answer in zip(
        engine.sessions, engine.ask([(s, Question(QUESTION)) for s in engine.sessions]), strict=True
    ):
        assert answer.token_ids == alone(model, session.stream_id, **settings)
        session.memory.check()


@pytest.mark.parametrize("family", FAMILIES)
def test_pending_frames_are_read_packed_as_each_alone(family: str) -> None:
    engine = filled(engine_of(tiny(family), chunk_frames=50))
    assert [s.num_pending for s in engine.sessions] == list(LENGTHS.values())
    engine.read_pending()
    step = tiny(family).spec.frames_per_block
    assert [s.num_pending for s in engine.sessions] == [n % step for n in LENGTHS.values()]
    assert [len(s.memory.recent) for s in engine.sessions] == [n // step for n in LENGTHS.values()]
    engine.read_pending()
    for session in engine.sessions:
        assert session.ask(QUESTION).token_ids == alone(tiny(family), session.stream_id)


def test_only_the_sessions_meant_are_read(model: VideoLLM) -> None:
    engine = filled(engine_of(model, chunk_frames=50))
    a, b, c = engine.sessions
    engine.read_pending([b, b])
    assert (a.num_pending, b.num_pending, c.num_pending) == (3, 0, 1)
    assert len(b.memory.recent) == 9, "a session named twice is read once"
    engine.ask([(a, Question(QUESTION))])
    assert (a.num_pending, c.num_pending) == (0, 1)


@pytest.mark.parametrize("num_recent", [2, 64])
def test_several_questions_to_one_session_are_answered_in_their_order(model: VideoLLM, num_recent: int) -> None:
    settings = {"memory": MemoryConfig(recent_frames=num_recent, recall_blocks=1), "chunk_frames": 50}
    engine = filled(engine_of(model, **settings))
    a, b, _ = engine.sessions
    questions = [(b, QUESTION), (a, OTHER), (b, OTHER), (b, QUESTION)]
    answers = engine.ask([(session, Question(words)) for session, words in questions])
    assert len(b.memory.recent) == min(9, num_recent) and len(b.memory.older) == 9 - len(b.memory.recent)
    for (session, words), answer in zip(questions, answers, strict=True):
        assert answer.question == words
        assert answer.token_ids == alone(model, session.stream_id, words, **settings)
    assert answers[0].token_ids == answers[3].token_ids != answers[2].token_ids
    b.memory.check()


def test_spans_and_lengths_are_kept_apart(model: VideoLLM) -> None:
    engine = filled(engine_of(model))
    a, b, _ = engine.sessions
    short, about = engine.ask(
        [(a, Question(QUESTION, max_new_tokens=2)), (b, Question(QUESTION, since_s=3.0, until_s=5.0))]
    )
    assert short.token_ids == alone(model, "a")[:2]
    assert [(span.start_s, span.end_s) for span in about.used] == [(3.0, 5.0)]


def test_text_comes_as_it_grows_and_ends_with_the_answer(model: VideoLLM) -> None:
    engine = filled(engine_of(model))
    heard: dict[str, list[str]] = {name: [] for name in LENGTHS}
    answers = engine.ask(
        [(s, Question(QUESTION)) for s in engine.sessions],
        on_text=lambda session, text: heard[session.stream_id].append(text),
    )
    for session, answer in zip(engine.sessions, answers, strict=True):
        texts = heard[session.stream_id]
        assert len(texts) == answer.num_tokens > 1
        assert texts[-1] == answer.text
    one: list[str] = []
    assert engine.sessions[0].ask(QUESTION, on_text=one.append).text == one[-1]


def test_an_answer_says_what_it_took(model: VideoLLM) -> None:
    answer = filled(engine_of(model, chunk_frames=50)).sessions[1].ask(QUESTION)
    assert 0 < answer.timing.ttft_s <= answer.timing.total_s


def test_no_questions_get_no_answers(model: VideoLLM) -> None:
    assert engine_of(model).ask([]) == []


def test_a_question_that_cannot_be_answered_leaves_all_sessions_as_they_were(model: VideoLLM) -> None:
    engine = filled(engine_of(model))
    empty = engine.session("empty")
    with pytest.raises(ValueError, match="nothing was seen of stream 'empty' yet"):
        engine.ask([(engine.sessions[0], Question(QUESTION)), (empty, Question(QUESTION))])
    assert engine.sessions[0].ask(QUESTION).token_ids == alone(model, "a")


def test_an_engine_knows_its_sessions_and_closes_them(model: VideoLLM) -> None:
    with filled(engine_of(model)) as engine:
        sessions = engine.sessions
        assert [s.stream_id for s in sessions] == list(LENGTHS)
        sessions[0].close()
        assert engine.sessions == sessions[1:]
    assert engine.sessions == ()
    with pytest.raises(ValueError, match="the session of stream 'b' is closed"):
        sessions[1].ask(QUESTION)


def test_the_built_in_model_brings_its_own_settings() -> None:
    engine = Engine(model=mini())
    assert engine.config.prompts == MINI_PROMPTS
    assert engine.config.memory is not None and engine.config.memory.recent_frames == 16
    chosen = Engine(EngineConfig(memory=MemoryConfig(recent_frames=3), prompts=PROMPTS), model=mini())
    assert chosen.config.prompts == PROMPTS and chosen.config.memory == MemoryConfig(recent_frames=3)


def test_other_models_get_the_general_settings(model: VideoLLM) -> None:
    engine = Engine(model=model)
    assert (engine.config.prompts, engine.config.memory) == (PROMPTS, MemoryConfig())


def test_methods_are_made_once_and_shared(model: VideoLLM) -> None:
    engine = engine_of(model, gate="difference", compressor="temporal_drop", reuse="none")
    assert isinstance(engine.gate, DifferenceGate) and isinstance(engine.compressor, TemporalDrop)
    given = TemporalDrop(keep_tokens=5)
    assert engine_of(model, compressor=given).compressor is given
    # A row that needs what a session lacks is refused by that session, not by the engine.
    assert engine_of(model, compressor="temporal_merging").session(question=QUESTION).num_pending == 0


def test_what_reuse_keeps_is_bounded_over_all_sessions(model: VideoLLM) -> None:
    reuse = DeltaReuse(falls_back=False)
    roomy = filled(engine_of(model, reuse=reuse, chunk_frames=1))
    held = [session.intake.eyes.num_bytes for session in roomy.sessions]
    assert min(held) > 0
    tight = filled(engine_of(model, reuse=reuse, chunk_frames=1, reuse_budget_bytes=max(held)))
    assert sum(session.intake.eyes.num_bytes for session in tight.sessions) <= max(held)
    assert tight.num_bytes < roomy.num_bytes


def test_a_name_is_enough() -> None:
    with Engine("millpond/mini") as engine:
        assert engine.config.model == engine.model.spec.name == "millpond/mini"
        assert repr(engine) == "Engine(millpond/mini, 0 sessions)"
    with pytest.raises(ValueError, match="there is no folder '/nowhere/at all'"):
        Engine("/nowhere/at all")


def test_an_answer_that_could_leave_the_trained_positions_is_refused(model: VideoLLM) -> None:
    engine = filled(engine_of(model, max_new_tokens=model.spec.max_positions))
    with pytest.raises(ValueError, match=r"may take \d+ positions, and .* was trained for 4096; shorten the question"):
        engine.sessions[0].ask("What appeared first?")
    assert engine.sessions[0].ask_question(Question("What appeared first?", max_new_tokens=2)).num_tokens <= 2

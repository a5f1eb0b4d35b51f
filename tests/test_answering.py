"""Questions of many sessions on their way together: each is answered as it would be alone, whoever joins or leaves."""

from __future__ import annotations

from itertools import count

import pytest

from millpond.encoders import VideoLLM
from millpond.memory import MemoryConfig
from millpond.pipeline import Engine, Question
from millpond.pipeline.answering import Answered, Answering, Asking

from .watched import engine_of, ids_after, pictures, tiny

QUESTIONS = ("What color is the circle?", "Where is the red square?", "How many objects have appeared?")
# What leaves the recent window is compressed, so that the newest frames are read for each question and taken back.
SETTINGS = {"memory": MemoryConfig(recent_frames=2, recall_blocks=1), "compressor": "temporal_drop", "chunk_frames": 2}


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return tiny("llava_onevision")


def filled(model: VideoLLM, num: int = 3) -> Engine:
    engine = engine_of(model, **SETTINGS)
    for seed in range(num):
        session = engine.session(f"s{seed}")
        for frame in pictures(4 + seed, seed=seed):
            session.push(frame)
    engine.read_pending()
    return engine


def alone(model: VideoLLM, seed: int, question: str) -> tuple[int, ...]:
    return ids_after(engine_of(model, **SETTINGS), pictures(4 + seed, seed=seed), question)


def finish(answering: Answering) -> list[Answered]:
    done: list[Answered] = []
    while len(answering):
        done += answering.step()
    return done


def ids_of(done: list[Answered]) -> dict[object, tuple[int, ...]]:
    return {key: answer.token_ids for key, answer, _ in done if answer is not None}


def test_sessions_that_are_asked_one_after_another_are_answered_as_each_alone(model: VideoLLM) -> None:
    engine = filled(model)
    answering, done = Answering(engine), []
    for session, question in zip(engine.sessions, QUESTIONS, strict=True):
        assert answering.begin([Asking(session.stream_id, session, Question(question))]) == []
        assert answering.is_busy(session)
        done += answering.step()
    done += finish(answering)
    assert ids_of(done) == {f"s{n}": alone(model, n, question) for n, question in enumerate(QUESTIONS)}
    assert not any(answering.is_busy(session) for session in engine.sessions)


def test_questions_of_one_session_are_answered_in_order_by_the_same_frames(model: VideoLLM) -> None:
    engine = filled(model, 1)
    (session,) = engine.sessions
    answering = Answering(engine)
    answering.begin([Asking(n, session, Question(question)) for n, question in enumerate(QUESTIONS)])
    assert len(answering) == 1, "they share a context"
    done = finish(answering)
    assert [one.key for one in done] == [0, 1, 2]
    assert ids_of(done) == {n: alone(model, 0, question) for n, question in enumerate(QUESTIONS)}


def test_a_question_that_cannot_be_answered_is_told_so_and_the_next_one_is_answered(model: VideoLLM) -> None:
    engine = filled(model, 2)
    first, second = engine.sessions
    never_shown = Question(QUESTIONS[0], since_s=500.0)
    answering = Answering(engine)
    failed = answering.begin(
        [
            Asking("early", first, never_shown),
            Asking("good", first, Question(QUESTIONS[0])),
            Asking("other", second, Question(QUESTIONS[1])),
            Asking("late", second, never_shown),
        ]
    )
    assert [one.key for one in failed] == ["early"] and "no frame from 500.0 s" in str(failed[0].error)
    done = finish(answering)
    assert ids_of(done) == {"good": alone(model, 0, QUESTIONS[0]), "other": alone(model, 1, QUESTIONS[1])}
    assert [one.key for one in done if one.error is not None] == ["late"]


def test_a_session_that_is_being_asked_takes_no_other_question(model: VideoLLM) -> None:
    engine = filled(model, 1)
    (session,) = engine.sessions
    answering = Answering(engine)
    answering.begin([Asking(0, session, Question(QUESTIONS[0]))])
    with pytest.raises(ValueError, match=r"is being asked already; got .*; ask when it is done"):
        answering.begin([Asking(1, session, Question(QUESTIONS[1]))])
    assert ids_of(finish(answering)) == {0: alone(model, 0, QUESTIONS[0])}


def test_what_is_given_up_leaves_no_trace(model: VideoLLM) -> None:
    engine, why, numbers = filled(model), RuntimeError("the lights went out"), count()
    lengths = [session.context().length for session in engine.sessions]
    answering = Answering(engine)
    askings = [Asking(next(numbers), s, Question(q)) for s in engine.sessions for q in QUESTIONS[:2]]
    answering.begin(askings)
    answering.step()
    (first, _, third) = engine.sessions
    given_up = answering.stop(why, only=first)
    assert [(one.key, one.answer, one.error) for one in given_up] == [(0, None, why), (1, None, why)]
    assert not answering.is_busy(first) and answering.is_busy(third)
    assert sorted(one.key for one in answering.stop(why)) == [2, 3, 4, 5]
    assert len(answering) == 0 and answering.step() == []
    assert [session.context().length for session in engine.sessions] == lengths
    answers = engine.ask([(session, Question(QUESTIONS[2])) for session in engine.sessions])
    assert [answer.token_ids for answer in answers] == [alone(model, n, QUESTIONS[2]) for n in range(3)]


def test_a_read_that_fails_leaves_no_session_busy(model: VideoLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = filled(model)
    lengths = [session.context().length for session in engine.sessions]
    answering = Answering(engine)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "read", fails)
        with pytest.raises(RuntimeError, match="out of memory"):
            answering.begin([Asking(s, s, Question(QUESTIONS[0])) for s in engine.sessions])
    assert not any(answering.is_busy(session) for session in engine.sessions)
    assert [session.context().length for session in engine.sessions] == lengths

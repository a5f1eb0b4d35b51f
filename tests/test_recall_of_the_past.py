"""What keys and values no longer hold is answered from pictures, and found by words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from millpond.encoders import VideoLLM, load_model
from millpond.pipeline import Engine, EngineConfig, Session
from millpond.pipeline.question import NothingRemembered
from millpond.stream import Span

from .ingesting import NUM_LAYERS, frames_of
from .sessions_at import FIRST, at_rest, check, push, settings, told

FRAMES = frames_of(11, 72)
# The first world is seen for 24 s; keys and values reach back to the third at most.
PAST = {"since_s": 0.0, "until_s": 23.0}


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return load_model("millpond/mini")


def forgetful(archive_tokens: bool = False, **history: object) -> EngineConfig:
    return settings(memory={"budget_bytes": 12_000 * NUM_LAYERS}, archive_tokens=archive_tokens, **history)


@pytest.fixture(params=[False, True], ids=["pictures", "tokens"])
def config(request: pytest.FixtureRequest) -> EngineConfig:
    return forgetful(request.param)


def is_past(spans: tuple[Span, ...]) -> bool:
    return bool(spans) and all(0.0 <= span.start_s and span.end_s <= 24.0 for span in spans)


def test_pictures_answer_for_keys_that_are_gone(model: VideoLLM, config: EngineConfig, tmp_path: Path) -> None:
    with Engine(config, model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        push(session, FRAMES)
        engine.read_pending()
        assert all(span.start_s > 24.0 for span in session.memory.older.values())
        answer = session.ask("What appeared last?", **PAST)
        assert is_past(answer.used) and answer.text
        at_rest(session)
        expected = told(session.ask("What appeared last?", **PAST))
        check(session)
    for read_only in (False, True):
        with Engine(config, model=model) as engine:
            session = engine.session("cam", at=tmp_path / "cam", read_only=read_only)
            assert told(session.ask("What appeared last?", **PAST)) == expected
            assert is_past(session.ask(FIRST, since_s=2.0, until_s=20.0).used)
    with Engine(forgetful(archive_bytes=0), model=model) as engine:
        session = engine.session("cam")
        push(session, FRAMES)
        with pytest.raises(NothingRemembered, match=r"no frame from 0.0 s up to 23.0 s is remembered"):
            session.ask(FIRST, **PAST)


def test_a_picture_answers_as_the_frame_that_it_was(model: VideoLLM, tmp_path: Path) -> None:
    """The object that is named was in sight then, and is so no more."""
    with Engine(forgetful(), model=model) as engine:
        session, twin = engine.session("cam"), engine.session("twin")
        push(session, FRAMES)
        used = session.ask(FIRST, since_s=0.0, until_s=23.0).used
        shown = [frame for frame in FRAMES if any(span.start_s <= frame.pts_s <= span.end_s for span in used)]
        assert shown and shown[-1].pts_s <= 24.0
        push(twin, shown)
        assert twin.ask(FIRST).text == session.ask(FIRST, since_s=0.0, until_s=23.0).text


def test_kept_tokens_cost_no_pass_of_the_vision_tower(
    model: VideoLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(forgetful(archive_tokens=True), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        push(session, FRAMES)
        at_rest(session)
    with Engine(forgetful(archive_tokens=True), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        monkeypatch.setattr(engine.model, "see", lambda frames: pytest.fail("the tower was asked"))
        assert is_past(session.ask(FIRST, **PAST).used)


def test_pictures_that_are_lost_are_counted_and_the_answer_comes(model: VideoLLM, tmp_path: Path) -> None:
    with Engine(forgetful(), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        push(session, FRAMES)
        at_rest(session)
        archive, depot = session.history.archive, session.history._depot
        for found in archive.between(Span(0.0, 24.0)):
            depot.drop("picture", 2 * found.number + 1)  # behind the archive's back
        missed = num_missed(session, FIRST, **PAST)
        assert missed == session.history.config.num_reads
        with pytest.raises(NothingRemembered):
            session.ask(FIRST, **PAST)
        assert session.ask(FIRST).text


def num_missed(session: Session, question: str, *, since_s: float, until_s: float) -> int:
    asked = session._engine.model.question(question)
    recall = session._recalling.recall(question, asked, session.context(), Span(since_s, until_s))
    return recall.num_missed


@pytest.fixture
def narrated(model: VideoLLM, tmp_path: Path) -> Iterator[Session]:
    with Engine(forgetful(), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        for frame in FRAMES:
            session.push(frame)
            if frame.pts_s == 10.0:
                session.history.note("the zebra crosses", Span(9.0, 10.0))
        at_rest(session)
        yield session


def test_a_narrated_line_pins_a_moment(narrated: Session) -> None:
    used = narrated.ask("What was seen when the zebra crosses?").used
    stood = narrated.history.archive.between(Span(0.0, 10.0))[-1]  # no picture was news between it and the line
    assert any(span.overlaps(stood.span) for span in used), used


def test_a_line_brings_back_a_moment_that_the_question_alone_would_not(model: VideoLLM) -> None:
    question = "What was seen when the zebra crosses?"
    with Engine(forgetful(), model=model) as engine:
        session = engine.session("cam")
        push(session, FRAMES)
        silent = session.ask(question).used
        pictures = session.history.archive.between(Span(0.0, 40.0))
        (hidden, *_) = [found for found in pictures if not any(span.overlaps(found.span) for span in silent)]
        session.history.note("the zebra crosses", hidden.span)
        assert any(span.overlaps(hidden.span) for span in session.ask(question).used)


def test_a_line_pins_its_moment_in_a_resumed_session(model: VideoLLM, narrated: Session, tmp_path: Path) -> None:
    expected = told(narrated.ask("What was seen when the zebra crosses?"))
    narrated.close()
    for read_only in (False, True):
        with Engine(forgetful(), model=model) as engine:
            session = engine.session("cam", at=tmp_path / "cam", read_only=read_only)
            assert told(session.ask("What was seen when the zebra crosses?")) == expected


def test_a_line_pins_nothing_outside_the_span_that_is_asked_about(narrated: Session) -> None:
    for since_s, until_s in ((30.0, 50.0), (9.0, 10.0), (0.0, 4.0)):
        try:
            used = narrated.ask("What was seen when the zebra crosses?", since_s=since_s, until_s=until_s).used
        except NothingRemembered:
            continue
        assert all(span.start_s <= until_s + 1 and span.end_s >= since_s - 1 for span in used), (since_s, used)


def test_lines_are_found_while_another_session_reads(model: VideoLLM, tmp_path: Path) -> None:
    with Engine(forgetful(), model=model) as engine, Engine(forgetful(log_bytes=2**20), model=model) as reading:
        session = engine.session("cam", at=tmp_path / "cam")
        push(session, FRAMES[:8])
        at_rest(session)
        reader = reading.session("cam", at=tmp_path / "cam", read_only=True)
        assert reader.history.log.num_lines == 0
        session.history.note("the zebra crosses", Span(6.0, 7.0))
        session.flush()
        assert reader.history.log.num_lines == 1
        assert [line.text for line in reader.history.log.search("zebra", 3)] == ["the zebra crosses"]
        reader.history.note("the reader's own", Span(6.0, 7.0))
        with pytest.raises(ValueError, match="only read here"):
            reader.history.log.add(Span(6.0, 7.0), "the reader's own")
        assert reader.history.kept.num_lines == 1 and session.history.log.num_lines == 1
        reader.close()
        session.history.note("the zebra is gone", Span(7.0, 8.0))
        assert session.history.log.num_lines == 2
        check(session)

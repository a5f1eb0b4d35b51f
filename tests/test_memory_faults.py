"""Bad input and faults of a session that remembers: each a clear sentence or a stated behaviour, and nothing lost."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from millpond.encoders import VideoLLM, load_model
from millpond.pipeline import Engine, Session
from millpond.pipeline.cli import app
from millpond.pipeline.question import NothingRemembered
from millpond.stream import Span

from .ingesting import frames_of
from .sessions_at import COUNT, FIRST, at_rest, check, push, settings, told

FRAMES = frames_of(11, 48)


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return load_model("millpond/mini")


@pytest.fixture
def engine(model: VideoLLM) -> Iterator[Engine]:
    with Engine(settings(), model=model) as engine:
        yield engine


def spoil(session: Session, monkeypatch: pytest.MonkeyPatch, at_s: float) -> None:
    """From now on the keys of the frame at that time, and of all that is read after it in one pass, are NaN."""
    engine = session._engine
    real = engine.model.read

    def read(rows, **options):  # type: ignore[no-untyped-def]
        made = []
        for blocks in real(rows, **options):
            bad = [i for i, block in enumerate(blocks) if block.kind == "frame" and block.span.end_s == at_s]
            first = bad[0] if bad else len(blocks)
            made.append(
                [
                    block if i < first else replace(block, k_LKTD=torch.full_like(block.k_LKTD, math.nan))
                    for i, block in enumerate(blocks)
                ]
            )
        return made

    monkeypatch.setattr(engine.model, "read", read)


def test_a_question_before_the_first_frame_is_refused_and_harms_nothing(engine: Engine, tmp_path: Path) -> None:
    session = engine.session("cam", at=tmp_path / "cam")
    with pytest.raises(ValueError, match="push a frame before asking"):
        session.ask(FIRST)
    with pytest.raises(ValueError, match="push a frame before asking"):
        session.ask(FIRST, since_s=0.0, until_s=1.0)
    assert session.narrate() is None
    push(session, FRAMES[:4])
    assert session.ask(FIRST).text
    check(session)


def test_a_span_that_ends_before_it_begins_is_refused(engine: Engine) -> None:
    session = engine.session("cam")
    push(session, FRAMES[:4])
    with pytest.raises(ValueError, match=r"since_s <= until_s; got 3.0 and 1.0"):
        session.ask(FIRST, since_s=3.0, until_s=1.0)
    with pytest.raises(ValueError, match="got"):
        session.history.note("words", Span(3.0, 1.0))
    with pytest.raises(NothingRemembered, match=r"seen from 0.0 s to 3.0 s"):
        session.ask(FIRST, since_s=50.0)
    with pytest.raises(NothingRemembered, match=r"seen from 0.0 s to 3.0 s"):
        session.ask(FIRST, until_s=-5.0)


def test_a_clock_that_jumps_back_is_told_of_and_what_was_seen_stays(engine: Engine, tmp_path: Path) -> None:
    session = engine.session("cam", at=tmp_path / "cam")
    push(session, FRAMES[:12])
    before = told(session.ask(COUNT))
    with pytest.raises(ValueError, match=r"in order of time; got .* after one at 11.000 s"):
        session.push(FRAMES[5])
    assert told(session.ask(COUNT)) == before and session.seen_until_s == 11.0
    push(session, FRAMES[12:16])
    check(session)


def test_a_stream_that_starts_at_zero_again_goes_on_in_a_resumed_session(model: VideoLLM, tmp_path: Path) -> None:
    with Engine(settings(), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        push(session, FRAMES[:20])
        session.history.note("a red circle came by", Span(3.0, 4.0))
        spans = [*session.memory.older.values()]
    with Engine(settings(), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        push(session, FRAMES[:10])
        engine.read_pending()
        assert session.seen_from_s == 0.0 and session.seen_until_s == 29.0
        assert list(session.memory.older.values())[: len(spans)] == spans
        assert [block.span.end_s for block in session.memory.recent][-1] == 29.0
        assert session.history.log.search("circle", 3)[0].span == Span(3.0, 4.0)
        assert session.ask(FIRST, since_s=0.0, until_s=5.0).used[0].start_s <= 5.0
        with pytest.raises(ValueError, match="in order of time"):  # only the first may be of another clock
            session.push(FRAMES[3])
        check(session)


@pytest.mark.parametrize("at_s", [0.0, 5.0, 6.0, 14.0])
def test_a_frame_whose_keys_are_not_numbers_is_left_out(
    model: VideoLLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at_s: float
) -> None:
    roomy = settings(memory={"recent_frames": 24, "recall_blocks": 4}, archive_bytes=0)  # its picture is not to blame
    with Engine(roomy, model=model) as engine:
        session, twin = engine.session("cam", at=tmp_path / "cam"), engine.session("twin")
        push(twin, [frame for frame in FRAMES[:16] if frame.pts_s != at_s])
        expected = [told(twin.ask(question)) for question in (FIRST, COUNT)]
        spoil(session, monkeypatch, at_s)
        refusals = []
        for frame in FRAMES[:16]:
            try:
                session.push(frame)
            except ValueError as error:
                refusals.append(str(error))
        try:
            engine.read_pending([session])
        except ValueError as error:
            refusals.append(str(error))
        monkeypatch.undo()
        assert len(refusals) == 1 and "got NaN or infinity" in refusals[0]
        assert [block.span for block in session.memory.recent] == [block.span for block in twin.memory.recent]
        assert [told(session.ask(question)) for question in (FIRST, COUNT)] == expected
        at_rest(session)
        check(session)


def test_a_session_closes_though_its_last_frame_is_refused(
    model: VideoLLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Engine(settings(), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        push(session, FRAMES[:5])
        spoil(session, monkeypatch, 5.0)
        with pytest.raises(ValueError, match="got NaN or infinity"):
            session.push(FRAMES[5])
            session.close()
        session.close()
        monkeypatch.undo()
        again = engine.session("cam", at=tmp_path / "cam")
        assert again.seen_until_s == 5.0 and [b.span.end_s for b in again.memory.recent] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("budget_bytes", [0, 1, 5000])
def test_a_budget_too_small_for_one_block_keeps_pictures_and_text(
    model: VideoLLM, tmp_path: Path, budget_bytes: int
) -> None:
    with Engine(settings(memory={"budget_bytes": budget_bytes}), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        push(session, FRAMES[:30])
        assert session.ask(COUNT).text
        assert not session.memory.older and session.history.archive.num_keyframes
        at_rest(session)
        assert session.ask(FIRST, until_s=8.0).used
        check(session)
    with Engine(settings(memory={"budget_bytes": budget_bytes}), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        assert len(session.memory.recent) == 4 and not session.memory.older
        assert session.ask(FIRST, until_s=8.0).used
        check(session)


NASTY = [
    '"',
    '""" OR *',
    "NEAR(a b, 3)",
    "a AND NOT (b",
    "text:*",
    "- ^ {x y}: z",
    "'; DROP TABLE lines; --",
    "\0",
    "*",
]


@pytest.mark.parametrize("words", [*NASTY, '"red" circle\'s (NOT) blue*'])
def test_any_question_may_be_asked(engine: Engine, words: str) -> None:
    session = engine.session("cam")
    push(session, FRAMES[:12])
    session.history.note("a red circle came by", Span(3.0, 4.0))
    assert isinstance(session.ask(words + " ?", until_s=6.0).text, str)
    check(session)


@given(words=st.text(min_size=1, max_size=60))
@example_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_words_may_be_searched_for(engine: Engine, words: str) -> None:
    session = engine.sessions[0] if engine.sessions else engine.session("cam")
    session.history.note("a red circle came by", Span(3.0, 4.0))
    assert all("circle" in line.text for line in session.history.log.search(words, 5))


def test_the_command_line_searches_for_any_words(model: VideoLLM, tmp_path: Path) -> None:
    with Engine(settings(), model=model) as engine:
        session = engine.session("stream", at=tmp_path / "cam")
        push(session, FRAMES[:8])
        session.history.note('a red "circle" came (by) AND went', Span(3.0, 4.0))
    for words in ('"circle', "circle AND NOT", "circle*) OR ("):
        said = CliRunner().invoke(app, ["recall", str(tmp_path / "cam"), "--search", words])
        assert said.exit_code == 0, said.output
        assert 'a red "circle"' in said.stdout
    said = CliRunner().invoke(app, ["recall", str(tmp_path / "cam"), "--search", '"" ('])
    assert said.exit_code == 0 and "circle" not in said.stdout


def test_a_frame_that_the_archive_refuses_costs_no_other_frame(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    session = engine.session("cam")
    real = session.history.archive.see

    def see(picture, span, *rest):  # type: ignore[no-untyped-def]
        if span.end_s == 0.0:
            raise ValueError("got a picture that is none")
        seen.append(span.end_s)
        return real(picture, span, *rest)

    seen: list[float] = []
    monkeypatch.setattr(session.history.archive, "see", see)
    with pytest.raises(ValueError, match="a picture that is none"):
        push(session, FRAMES[:2])
    push(session, FRAMES[2:8])
    assert seen == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert session.ask(COUNT).text

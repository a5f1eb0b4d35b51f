"""Recalling: which units a question is given, how many of them are read, and when none is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from millpond.encoders import VideoLLM, load_model
from millpond.memory.keyframe import Keyframe
from millpond.memory.no_archive import NoArchive
from millpond.pipeline import Engine, Session
from millpond.pipeline.recalling import Recalling, Unit
from millpond.stream import Span

from .ingesting import NUM_LAYERS, frames_of
from .sessions_at import push, settings

FRAMES = frames_of(11, 60)
PAST, PRESENT = "What appeared first?", "What colour is the shape?"


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return load_model("millpond/mini")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Unit]:
    """Keyframes and lines that questions had read."""
    units: list[Unit] = []
    original = Recalling._read

    def note(self: Recalling, chosen: Sequence[Unit], *rest: object) -> object:
        units.extend(chosen)
        return original(self, chosen, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Recalling, "_read", note)
    return units


def seen(engine: Engine) -> Session:
    session = engine.session("cam")
    push(session, FRAMES)
    engine.read_pending()
    assert session.history.archive.num_keyframes > 4 and len(session.memory.older) > 2
    return session


@pytest.mark.parametrize("num_reads", [0, 1, 3])
def test_no_more_is_read_than_is_allowed(model: VideoLLM, read: list[Unit], num_reads: int) -> None:
    with Engine(settings(memory={"budget_bytes": 12_000 * NUM_LAYERS}, num_reads=num_reads), model=model) as engine:
        session = seen(engine)
        session.ask(PAST)
        session.ask(PAST, since_s=0.0, until_s=20.0) if num_reads else None
        assert len(read) <= 2 * num_reads and bool(read) == bool(num_reads)
        del read[:]
        session.ask(PRESENT)
        assert read == [], "nothing is read for a question that does not ask for the past"


def test_pictures_are_read_only_where_keys_do_not_reach(model: VideoLLM, read: list[Unit]) -> None:
    with Engine(settings(memory={"budget_bytes": 12_000 * NUM_LAYERS}, num_reads=8), model=model) as engine:
        session = seen(engine)
        reach_s = next(iter(session.memory.older.values())).start_s
        answer = session.ask("What appeared before?")
        session.ask(PAST, since_s=0.0, until_s=60.0)
        numbers = {unit.number for unit in read if unit.tier == "picture"}
        assert numbers and answer.used
        for number in numbers:
            keyframe = session.history.archive.get(number)
            assert isinstance(keyframe, Keyframe) and keyframe.span.end_s < reach_s
    del read[:]
    with Engine(settings(memory={"budget_bytes": 10**8}, num_reads=8), model=model) as engine:
        seen(engine).ask(PAST, since_s=0.0, until_s=60.0)
        assert not [unit for unit in read if unit.tier == "picture"], "keys and values show all of it"


def test_a_closed_gate_leaves_the_recent_window_alone(
    model: VideoLLM, read: list[Unit], monkeypatch: pytest.MonkeyPatch
) -> None:
    recalled: list[str] = []
    original = Recalling.recall

    def note(self: Recalling, question: str, *rest: object) -> object:
        recalled.append(question)
        return original(self, question, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Recalling, "recall", note)
    with Engine(settings(gate="never"), model=model) as engine:
        session = seen(engine)
        context = session.context()
        mark = context.mark()
        answer = session.ask(PAST)
        assert recalled == read == []
        recent = session.memory.recent
        assert [(span.start_s, span.end_s) for span in answer.used] == [(recent[0].span.start_s, recent[-1].span.end_s)]
        session.ask(PAST, since_s=0.0, until_s=20.0)
        assert recalled == [PAST], "a span is asked about by whoever names it"
        assert context.mark() == mark
    with Engine(settings(gate="words"), model=model) as engine:
        session = seen(engine)
        for question in (PRESENT, PAST, "What is there now?"):
            session.ask(question)
        assert recalled[1:] == [PAST]
    with Engine(settings(gate="uncertain"), model=model) as engine:
        session = seen(engine)
        mark = session.context().mark()
        session.ask(PRESENT)
        assert session.context().mark() == mark, "what was read to see how sure the model is is taken back"


def test_nothing_is_recalled_where_there_is_nothing_or_nothing_is_wanted(model: VideoLLM) -> None:
    for memory in ({"recall_blocks": 0}, {"budget_bytes": 0}):
        with Engine(settings(memory=memory, archive_bytes=0), model=model) as engine:
            session = engine.session("cam")
            push(session, FRAMES[:20])
            answer = session.ask(PAST)
            assert [(span.start_s, span.end_s) for span in answer.used] == [(16.0, 19.0)]
            assert isinstance(session.history.archive, NoArchive)


def test_an_archive_that_keeps_nothing_says_so() -> None:
    archive = NoArchive()
    seen_ = archive.see(np.zeros((8, 8, 3), np.uint8), Span(0, 1), torch.ones(4), {"x": torch.ones(1)})
    assert (seen_.closed, seen_.gone) == (None, ()) and archive.close().gone == ()
    assert archive.find(torch.ones(4), 3) == archive.between(Span(0, 9)) == []
    assert archive.nearest(0.0) is None and archive.get(0) is None
    assert archive.restore().num_keyframes == archive.num_keyframes == 0
    assert archive.num_bytes == archive.index_bytes == archive.num_lost == 0
    archive.check()

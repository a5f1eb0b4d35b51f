"""The main job on clips from the world: narrated and asked about from file, and one of them over RTSP."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from millpond.pipeline import Answer, Engine, EngineConfig, Narration, NarrationConfig, Question
from millpond.pipeline.watch import watch
from millpond.stream import RateSampler, SourceLost, open_source

from .clips import VIDEOS
from .conftest import RtspServer

pytestmark = pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")

DURATIONS_S = {"vtest.avi": 79.5, "cup.mp4": 8.1, "box.mp4": 15.2, "Megamind.avi": 11.3, "tree.avi": 29.6}


@pytest.fixture(scope="module")
def engine() -> Engine:
    config = EngineConfig(narration=NarrationConfig(max_new_tokens=4), max_new_tokens=4)
    return Engine(config)


@pytest.mark.parametrize("name", DURATIONS_S)
def test_a_clip_is_narrated_and_asked_about(engine: Engine, name: str) -> None:
    last_s = DURATIONS_S[name]
    questions = [
        Question("What appeared first?", at_s=4.5),
        Question("How many objects are there now?"),
        Question("What appeared last?", since_s=2.0, until_s=5.0),
    ]
    session = engine.session(name)
    narrations, answers = [], []
    with open_source(VIDEOS / name) as source:
        for event in watch(session, source.sampled(RateSampler(1.0)), questions=questions, narrate=True):
            if isinstance(event, Narration):
                narrations.append(event)
            elif isinstance(event, Answer):
                answers.append(event)
            session.memory.check()
    session.close()

    assert [a.question for a in answers] == [q.text for q in (questions[0], questions[2], questions[1])]
    early, span, late = answers
    assert early.asked_at_s == 4.5 and 3.9 < early.seen_until_s <= 4.5
    assert late.seen_until_s == pytest.approx(last_s, abs=1.6)
    assert all(2.0 <= used.start_s and used.end_s <= 5.0 for used in span.used)
    assert all(n.span.end_s <= last_s + 0.1 for n in narrations)


def test_a_clip_over_rtsp(engine: Engine, rtsp_server: Callable[..., RtspServer]) -> None:
    server = rtsp_server("--clip", str(VIDEOS / "cup.mp4"))
    session = engine.session("rtsp")
    with (
        open_source(server.uri(), policy="block", reconnects=0) as source,
        pytest.raises(SourceLost, match="closed the connection"),
    ):
        for _ in watch(session, source.sampled(RateSampler(1.0)), narrate=True):
            session.memory.check()
    answer = session.ask("What appeared first?")
    session.close()
    assert session.num_frames >= 8
    assert answer.seen_until_s > 6.5
    assert answer.used[0].start_s == 0.0

"""Many streams, one engine, one thread: each is told and answered as it would be alone, whatever the others do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path

import pytest

from millpond.encoders import VideoLLM
from millpond.pipeline import Answer, Engine, EngineConfig, NarrationConfig, Question
from millpond.pipeline.feeds import SourceFeed
from millpond.pipeline.hub import Hub
from millpond.pipeline.hub_events import Ended, HubEvent, HubStopped, Narrated
from millpond.pipeline.watch import watch
from millpond.stream import open_source

from .feeds import HandFeed
from .watched import engine_of, ids_after, mini, pictures, tiny

QUESTION = "What color is the circle?"
OTHER = "Where is the red square?"
WAIT_S = 60.0


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return tiny("llava_onevision")


@pytest.fixture
def engine(model: VideoLLM) -> Iterator[Engine]:
    with engine_of(model, narration=NarrationConfig(min_gap_s=1, max_gap_s=3, max_new_tokens=4)) as made:
        yield made


def got(future: Future[Answer]) -> Answer:
    return future.result(WAIT_S)


def until(is_so: Callable[[], bool], *, what: str) -> None:
    """Waits until this holds."""
    deadline_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline_s, f"waited in vain: {what}"
        time.sleep(0.01)


def test_streams_are_answered_as_each_alone(model: VideoLLM, engine: Engine) -> None:
    with Hub(engine) as hub:
        for n in range(5):
            hub.add(HandFeed(f"s{n}", pictures(3 + n, seed=n), ends=True), narrate=False).result(WAIT_S)
        assert hub.wait_until_ended(WAIT_S)
        asked = [hub.ask(f"s{n}", Question(q)) for n in range(5) for q in (QUESTION, OTHER)]
        answers = [got(future) for future in asked]
        stats = hub.stats()
    assert [answer.token_ids for answer in answers] == [
        ids_after(engine_of(model), pictures(3 + n, seed=n), q) for n in range(5) for q in (QUESTION, OTHER)
    ]
    assert {name: one.num_processed for name, one in stats.items()} == {f"s{n}": 3 + n for n in range(5)}
    assert all(one.num_overtaken == 0 and one.state == "ended" for one in stats.values())


def test_frames_of_many_streams_are_read_in_one_pass(
    model: VideoLLM, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    read = type(model).read

    def counting(self: VideoLLM, rows: list[object], **settings: int) -> object:
        sizes.append(len(rows))
        return read(self, rows, **settings)  # type: ignore[arg-type]

    hub, feeds = Hub(engine), [HandFeed(f"s{n}", pictures(1, seed=n), ends=True) for n in range(6)]
    added = [hub.add(feed, narrate=False) for feed in feeds]
    monkeypatch.setattr(type(model), "read", counting)
    with hub:
        assert all(future.result(WAIT_S) is None for future in added)
        assert hub.wait_until_ended(WAIT_S)
    assert sizes[-1] == 6 and sizes[:-1] == [1] * 6, "each session's first words, then six frames at once"


def test_narrations_are_those_of_a_stream_that_is_watched_alone(model: VideoLLM, engine: Engine) -> None:
    frames = pictures(8)
    with engine_of(model, narration=engine.config.narration) as other:
        alone = [e for e in watch(other.session("s"), frames, narrate=True) if hasattr(e, "span")]
    told: list[HubEvent] = []
    with Hub(engine, on_event=told.append) as hub:
        hub.add(HandFeed("s", frames, ends=True))
        assert hub.wait_until_ended(WAIT_S)
    narrations = [event.narration for event in told if isinstance(event, Narrated)]
    assert len(narrations) > 1
    assert [(n.text, n.span) for n in narrations] == [(n.text, n.span) for n in alone]
    assert told[-1] == Ended("s", None)


def test_the_built_in_model_tells_streams_apart() -> None:
    uris = [f"synthetic://shapes?seed={seed}&duration_s=8&width=96&height=96" for seed in range(4)]
    exact = EngineConfig(reuse="none")  # what is reused depends on what is encoded together
    with Engine(exact, model=mini()) as engine, Hub(engine) as hub:
        for n, uri in enumerate(uris):
            hub.add(SourceFeed(open_source(uri, stream_id=f"s{n}"), fps=1.0)).result(WAIT_S)
        assert hub.wait_until_ended(WAIT_S)
        answers = [got(hub.ask(f"s{n}", Question("What appeared last?"))).text for n in range(4)]
    for answer, uri in zip(answers, uris, strict=True):
        with Engine(exact, model=mini()) as engine, open_source(uri) as source:
            session = engine.session()
            for frame in source:
                if frame.index % 10 == 0:
                    session.push(frame)
            assert answer == session.ask("What appeared last?").text


def test_a_question_joins_while_another_is_being_answered(model: VideoLLM, engine: Engine) -> None:
    joined: list[Future[Answer]] = []
    with Hub(engine) as hub:
        for n in range(2):
            hub.add(HandFeed(f"s{n}", pictures(4, seed=n), ends=True), narrate=False).result(WAIT_S)
        assert hub.wait_until_ended(WAIT_S)
        order: list[str] = []

        def on_text(text: str) -> None:
            if not joined:
                joined.append(hub.ask("s1", Question(OTHER)))
                joined[0].add_done_callback(lambda _: order.append("second"))

        first = hub.ask("s0", Question(QUESTION, max_new_tokens=30), on_text=on_text)
        first.add_done_callback(lambda _: order.append("first"))
        answer, other = got(first), got(joined[0])
    assert order == ["second", "first"], "the one of 8 tokens did not wait for the one of 30"
    assert other.token_ids == ids_after(engine_of(model), pictures(4, seed=1), OTHER)
    assert answer.num_tokens == 30


def test_the_newest_frame_of_a_camera_wins_and_all_are_counted(engine: Engine) -> None:
    feed = HandFeed("camera", is_live=True)
    frames = pictures(40)
    with Hub(engine) as hub:
        hub.add(feed, narrate=False).result(WAIT_S)
        for frame in frames:
            feed.give(frame)
        feed.end()
        assert hub.wait_until_ended(WAIT_S)
        (stats,) = hub.stats().values()
        answer = got(hub.ask("camera", Question(QUESTION)))
    assert stats.num_processed + stats.num_overtaken == 40
    assert answer.seen_until_s == frames[-1].pts_s


def test_many_threads_may_ask(model: VideoLLM, engine: Engine) -> None:
    answers: list[Answer] = []
    with Hub(engine) as hub:
        for n in range(3):
            hub.add(HandFeed(f"s{n}", pictures(3, seed=n)), narrate=False).result(WAIT_S)
        askers = [
            threading.Thread(target=lambda n=n: answers.append(got(hub.ask(f"s{n % 3}", Question(QUESTION)))))
            for n in range(12)
        ]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(WAIT_S)
    assert len(answers) == 12
    assert all(answer.question == QUESTION for answer in answers)


def test_what_cannot_be_answered_is_said(engine: Engine) -> None:
    with Hub(engine) as hub:
        hub.add(HandFeed("door", pictures(2)), narrate=False).result(WAIT_S)
        hub.add(HandFeed("dark", ends=True)).result(WAIT_S)
        with pytest.raises(ValueError, match=r"there is no stream 'gate'; there are: door, dark"):
            got(hub.ask("gate", Question(QUESTION)))
        with pytest.raises(ValueError, match=r"nothing was seen of stream 'dark' yet, which ended without a frame"):
            got(hub.ask("dark", Question(QUESTION)))
        with pytest.raises(ValueError, match=r"no frame from 99\.0 s is remembered"):
            got(hub.ask("door", Question(QUESTION, since_s=99.0)))
        with pytest.raises(ValueError, match="has a session already"):
            twin = HandFeed("door")
            hub.add(twin).result(WAIT_S)
        assert twin.is_closed
        assert got(hub.ask("door", Question(QUESTION))).seen_until_s == 1.0


def test_why_a_stream_ended_is_told_without_its_password(engine: Engine) -> None:
    told: list[HubEvent] = []
    feed = HandFeed("door", pictures(2))
    with Hub(engine, on_event=told.append) as hub:
        hub.add(feed, narrate=False).result(WAIT_S)
        feed.end(ConnectionError("rtsp://me:s3cret@cam.local/main was lost"))
        assert hub.wait_until_ended(WAIT_S)
        assert got(hub.ask("door", Question(QUESTION))).seen_until_s == 1.0, "it can still be asked"
    assert told == [Ended("door", "rtsp://***@cam.local/main was lost")]


def test_a_stream_that_is_removed_ends_its_questions_and_no_others(model: VideoLLM, engine: Engine) -> None:
    with Hub(engine) as hub:
        feeds = [HandFeed(f"s{n}", pictures(3, seed=n)) for n in range(2)]
        for feed in feeds:
            hub.add(feed, narrate=False).result(WAIT_S)
        until(lambda: hub.stats()["s1"].num_processed == 3, what="the other stream's frames")
        removed: list[Future[None]] = []

        def on_text(_: str) -> None:
            if not removed:
                removed.append(hub.remove("s0"))

        kept = hub.ask("s1", Question(OTHER))
        gone = hub.ask("s0", Question(QUESTION, max_new_tokens=40), on_text=on_text)
        with pytest.raises(HubStopped, match="stream 's0' was removed before this was answered"):
            got(gone)
        assert got(kept).token_ids == ids_after(engine_of(model), pictures(3, seed=1), OTHER)
        removed[0].result(WAIT_S)
        assert feeds[0].is_closed and not feeds[1].is_closed
        assert list(hub.stats()) == ["s1"]
        hub.add(HandFeed("s0", pictures(1)), narrate=False).result(WAIT_S)


def test_closing_ends_everything_and_says_so(engine: Engine) -> None:
    feed = HandFeed("dark")
    hub = Hub(engine).start()
    hub.add(feed).result(WAIT_S)
    waiting = hub.ask("dark", Question(QUESTION))  # no frame has come yet
    hub.close()
    hub.close()
    with pytest.raises(HubStopped, match=r"the hub (was closed before this was answered|is closed)"):
        got(waiting)
    with pytest.raises(HubStopped, match="the hub is closed; start another"):
        got(hub.ask("dark", Question(QUESTION)))
    assert feed.is_closed and engine.sessions == ()
    with pytest.raises(HubStopped, match="the hub is closed"):
        hub = Hub(engine)
        waiting = hub.ask("dark", Question(QUESTION))
        hub.close()
        got(waiting)


def test_a_question_that_is_cancelled_is_not_asked(engine: Engine) -> None:
    feed = HandFeed("late")
    with Hub(engine) as hub:
        hub.add(feed, narrate=False).result(WAIT_S)
        first, second = hub.ask("late", Question(QUESTION)), hub.ask("late", Question(OTHER))
        assert first.cancel()
        feed.give(*pictures(1))
        assert got(second).question == OTHER
        with pytest.raises(CancelledError):
            got(first)


def test_whoever_listens_cannot_stop_the_streams(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    def fails(_: object) -> None:
        raise LookupError("whose fault is this?")

    with Hub(engine, on_event=fails) as hub:
        hub.add(HandFeed("door", pictures(8), ends=True)).result(WAIT_S)
        assert hub.wait_until_ended(WAIT_S)
        assert got(hub.ask("door", Question(QUESTION), on_text=fails)).num_tokens == 8
    assert "whoever listens to the hub failed" in caplog.text
    assert caplog.text.count("whoever reads an answer along failed") == 1


def test_a_pass_that_fails_once_costs_what_was_asked_then(
    model: VideoLLM, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step, failures = type(model).step, [RuntimeError("out of memory")]

    def fails(self: VideoLLM, rows: object) -> object:
        if failures:
            raise failures.pop()
        return step(self, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model), "step", fails)
    with Hub(engine) as hub:
        hub.add(HandFeed("door", pictures(3)), narrate=False).result(WAIT_S)
        until(lambda: hub.stats()["door"].num_processed == 3, what="all frames")
        with pytest.raises(RuntimeError, match="out of memory"):
            got(hub.ask("door", Question(QUESTION)))
        assert got(hub.ask("door", Question(QUESTION))).token_ids == ids_after(engine_of(model), pictures(3), QUESTION)
    assert "a turn of the hub failed" in caplog.text


def test_a_model_that_fails_for_good_ends_the_hub_and_nobody_waits(
    model: VideoLLM, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    feed = HandFeed("door")
    with Hub(engine) as hub:
        hub.add(feed).result(WAIT_S)
        waiting = hub.ask("door", Question(QUESTION))

        def fails(*_: object, **__: object) -> None:
            raise RuntimeError("the device is gone")

        monkeypatch.setattr(type(model), "read", fails)
        feed.give(*pictures(20))
        with pytest.raises((HubStopped, RuntimeError), match="the device is gone"):
            got(waiting)
        with pytest.raises(HubStopped, match="the hub gave up: the device is gone"):
            hub.wait_until_ended(WAIT_S)


def test_what_was_seen_outlives_the_hub(engine: Engine, model: VideoLLM, tmp_path: Path) -> None:
    with Hub(engine) as hub:
        for n in range(2):
            hub.add(HandFeed(f"s{n}", pictures(4, seed=n), ends=True), at=tmp_path / f"s{n}").result(WAIT_S)
        assert hub.wait_until_ended(WAIT_S)
    with engine_of(model) as later, Hub(later) as hub:
        for n in range(2):
            hub.add(HandFeed(f"s{n}"), at=tmp_path / f"s{n}", narrate=False).result(WAIT_S)
            assert got(hub.ask(f"s{n}", Question(QUESTION))).seen_until_s == 3.0


def test_a_source_that_fails_is_one_stream_s_affair(engine: Engine, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    good = open_source("synthetic://shapes?seed=1&duration_s=3&width=64&height=64", stream_id="good")
    told: list[HubEvent] = []
    with Hub(engine, on_event=told.append) as hub:
        hub.add(SourceFeed(good, fps=2.0), narrate=False).result(WAIT_S)
        hub.add(SourceFeed(open_source(tmp_path, stream_id="bad"), fps=2.0), narrate=False).result(WAIT_S)
        assert hub.wait_until_ended(WAIT_S)
        stats = hub.stats()
    ended = {event.stream_id: event.problem for event in told if isinstance(event, Ended)}
    assert ended["good"] is None and stats["good"].num_processed == 6
    assert ended.keys() == {"good", "bad"} and stats["bad"].num_processed == 0


def test_a_feed_that_is_closed_ends_its_thread() -> None:
    before = threading.active_count()
    feed = SourceFeed(open_source("synthetic://shapes?duration_s=3600&width=64&height=64"), fps=10.0)
    news = threading.Event()
    feed.on_news(news.set)
    assert news.wait(WAIT_S) and feed.num_waiting >= 1
    assert feed.take() is not None
    feed.close()
    until(lambda: threading.active_count() == before, what="the feed's thread ends")
    assert feed.is_ended and feed.take() is None

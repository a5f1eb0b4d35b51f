"""What a hub shows of its streams to others, and what others may have it do between two turns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from millpond.encoders import VideoLLM
from millpond.encoders.compressors import COMPRESSORS
from millpond.memory import MemoryConfig
from millpond.memory.event_log import Line
from millpond.pipeline import Engine, Question
from millpond.pipeline.hub import Hub
from millpond.stream import Span

from .feeds import HandFeed
from .test_hub import WAIT_S, until
from .watched import engine_of, pictures, still, tiny

WORDS = "What color is the circle?"


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return tiny("llava_onevision")


@pytest.fixture
def hub(model: VideoLLM) -> Iterator[Hub]:
    with engine_of(model) as engine, Hub(engine) as made:
        yield made


def test_the_newest_frame_and_what_was_made_of_it_are_shown(hub: Hub) -> None:
    frames = pictures(5)
    assert hub.sight("a") is None
    feed = HandFeed("a", frames)
    hub.add(feed, narrate=False).result(WAIT_S)
    until(lambda: hub.stats()["a"].num_processed == 5, what="five frames")
    until(lambda: (s := hub.sight("a")) is not None and s.kept is not None and s.kept.pts_s == 4.0, what="all of it")
    sight = hub.sight("a")
    assert sight is not None and sight.newest is not None and sight.computed is not None and sight.kept is not None
    assert sight.newest.pts_s == frames[-1].pts_s and sight.change_share > 0.5
    assert sight.computed.pts_s == sight.kept.pts_s == frames[-1].pts_s
    assert sight.kept.places == list(range(sight.kept.grid_hw[0] * sight.kept.grid_hw[1]))
    stats = hub.stats()["a"]
    assert (stats.seen_until_s, stats.change_share) == (frames[-1].pts_s, sight.change_share)
    assert 0 <= stats.recomputed_share <= 1
    until(lambda: hub.stats()["a"].bytes_by_tier.get("T0", 0) > 0, what="bytes to be counted")
    hub.remove("a").result(WAIT_S)
    assert hub.sight("a") is None


def test_a_still_picture_shows_no_change(hub: Hub) -> None:
    hub.add(HandFeed("a", still(4)), narrate=False).result(WAIT_S)
    until(lambda: hub.stats()["a"].num_processed == 4, what="four frames")
    assert hub.stats()["a"].change_share == 0


def test_which_tokens_are_kept_is_shown_once_they_are_chosen(model: VideoLLM) -> None:
    settings = {"compressor": COMPRESSORS["uniform"](keep_tokens=3), "memory": MemoryConfig(recent_frames=2)}
    with engine_of(model, **settings) as engine, Hub(engine) as hub:
        hub.add(HandFeed("a", pictures(6)), narrate=False).result(WAIT_S)
        until(lambda: hub.stats()["a"].num_processed == 6, what="six frames")
        until(lambda: (s := hub.sight("a")) is not None and s.kept is not None and s.kept.pts_s == 3.0, what="a choice")
        kept = hub.sight("a").kept  # type: ignore[union-attr]
    assert kept is not None and 0 < len(kept.places) <= 3 < kept.grid_hw[0] * kept.grid_hw[1]


def test_a_look_at_a_session_is_taken_in_the_hubs_thread(hub: Hub) -> None:
    hub.add(HandFeed("a", pictures(1)), narrate=False).result(WAIT_S)
    looked = hub.look("a", lambda session: (session.stream_id, threading.current_thread().name))
    assert looked.result(WAIT_S) == ("a", "millpond hub")
    with pytest.raises(ValueError, match="there is no stream 'b'"):
        hub.look("b", lambda session: None).result(WAIT_S)
    with pytest.raises(ZeroDivisionError):
        hub.look("a", lambda session: 1 / 0).result(WAIT_S)
    assert hub.turn_age_s is not None and hub.turn_age_s < WAIT_S


def test_lines_of_the_log_are_told_with_their_numbers(hub: Hub) -> None:
    told: list[Line] = []
    hub.add(HandFeed("a", pictures(1)), narrate=False, on_line=told.append).result(WAIT_S)
    hub.look("a", lambda session: session.history.note("a fox", Span(0.0, 1.0))).result(WAIT_S)
    hub.look("a", lambda session: session.history.note("a hen", Span(1.0, 2.0))).result(WAIT_S)
    assert [line.text for line in told] == ["a fox", "a hen"]
    log = hub.look("a", lambda session: session.history.log).result(WAIT_S)
    assert log.after(-1) == told and log.after(told[0].number) == told[1:] and log.after(told[1].number) == []


def test_a_question_is_given_up_before_it_is_begun(hub: Hub) -> None:
    hub.add(HandFeed("a"), narrate=False).result(WAIT_S)
    asked = hub.ask("a", Question(WORDS))
    hub.give_up(asked, RuntimeError("gone"))
    with pytest.raises(CancelledError):
        asked.result(WAIT_S)


def test_a_question_is_given_up_while_it_is_answered_and_the_stream_goes_on(engine_of_many: Engine) -> None:
    with Hub(engine_of_many) as hub:
        hub.add(HandFeed("a", pictures(2)), narrate=False).result(WAIT_S)
        until(lambda: hub.stats()["a"].num_processed == 2, what="two frames")
        begun, gate = threading.Event(), threading.Event()

        def hold(text: str) -> None:
            begun.set()
            gate.wait(WAIT_S)

        asked = hub.ask("a", Question(WORDS, max_new_tokens=500), on_text=hold)
        assert begun.wait(WAIT_S)
        hub.give_up(asked, RuntimeError("gone"))
        gate.set()
        with pytest.raises(RuntimeError, match="gone"):
            asked.result(WAIT_S)
        assert hub.ask("a", Question(WORDS)).result(WAIT_S).text is not None


@pytest.fixture
def engine_of_many(model: VideoLLM) -> Iterator[Engine]:
    with engine_of(model, max_new_tokens=500) as made:
        yield made

"""A robot that runs asks its memory where a thing was last seen, and is told what is true of the world it looks at."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from millpond.encoders import VideoLLM
from millpond.pipeline import Answer, Engine, EngineConfig, Question
from millpond.pipeline.robot import Camera, HubMemory, ProcessMemory, ProcessMemoryConfig, RobotFeed, RobotMemory
from millpond.stream.render import render
from millpond.stream.truth import WORDINGS, Witness
from millpond.stream.world import Background, Thing, World

from .reuse_clips import load_tiny
from .robot_cameras import PATIENCE_S, PacedCamera, until

LONG_S = 1e6
GREY = (0.25, 0.25, 0.25)
RED = Thing(
    color="red",
    shape="square",
    rgb=(0.9, 0.1, 0.1),
    radius=0.16,
    appear_s=0.0,
    leave_s=6.0,
    entry="pop",
    start_xy=(0.22, 0.5),
    end_xy=(1.11, 0.5),
    move_start_s=2.0,
    move_end_s=4.0,
    turn_rad=0.0,
    stretch=1.0,
    thickness=0.3,
    outline=False,
)
WORLD = World(0, 10.0, 4 / 3, (RED,), (Background(0.0, "solid", GREY, GREY, 0.0, 0),), 0.0, 0.0, 1.0)
# It lies at the left, goes over to the right, and then it is gone.
MOMENTS_S = (1.0, 2.4, 2.8, 3.2, 3.6, 5.0, 7.0)
ASKED_AT_S = (1.0, 5.0, 7.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoLLM:
    return load_tiny("llava_onevision", tmp_path_factory.mktemp("model"))


@pytest.fixture(params=["thread", "process"])
def memory(request: pytest.FixtureRequest) -> Iterator[RobotMemory]:
    if request.param == "process":
        yield ProcessMemory(ProcessMemoryConfig(fps=5.0, max_new_tokens=4, niceness=0))
        return
    with Engine(EngineConfig(max_new_tokens=4)) as engine:
        yield HubMemory(engine, fps=5.0)


def last_place(moment: int) -> str:
    """What is true of where it was last seen, for whoever saw all moments up to this one."""
    witness = Witness(WORLD, MOMENTS_S[: moment + 1])
    words = witness.place_words(int(np.flatnonzero(witness.seen_NO[:, 0])[-1]), 0)
    assert words is not None
    return words


def pictures(moment: int) -> np.ndarray:
    """The world as it is at a moment: one picture, which a camera shows for as long as it is asked to."""
    return render(WORLD, MOMENTS_S[moment : moment + 1], width=160, height=120).rgb_NHW3


def turn_to(feed: RobotFeed, source: PacedCamera, moment: int) -> float:
    """From now on the camera shows the world as it is at a moment; the time of a picture of it."""
    source.pictures_NHW3 = pictures(moment)

    def is_seen() -> bool:
        frame = feed.latest(LONG_S).views[0].frame
        return frame is not None and bool((frame.rgb_HW3 == pictures(moment)[0]).all())

    until(is_seen)
    return feed.latest(LONG_S).pts_s[0]


def ask(feed: RobotFeed, question: str) -> Answer:
    """The loop runs on while it is answered: one new view comes after the other."""
    before = feed.latest(LONG_S).number
    future = feed.ask(Question(question))
    numbers: list[int] = []

    def is_answered() -> bool:
        perception = feed.latest(PATIENCE_S)
        assert not perception.is_stale and perception.num_tokens > 0
        numbers.append(perception.number)
        return future.done() and perception.number > before + 1

    until(is_answered)
    assert numbers == sorted(numbers)
    return future.result()


@pytest.mark.slow
def test_where_a_thing_was_last_seen_is_answered_while_the_feed_runs(model: VideoLLM, memory: RobotMemory) -> None:
    wordings = [WORDINGS["where"][0].format(color=RED.color, shape=RED.shape), "Where did I last see the red square?"]
    source = PacedCamera("top", pictures(0), rate_hz=10.0)
    with RobotFeed([Camera(source)], model, memory=memory) as feed:
        if isinstance(memory, ProcessMemory):
            memory.wait_until_ready(PATIENCE_S)
        feed.wait(PATIENCE_S)
        told = []
        for moment in range(len(MOMENTS_S)):
            shown_s = turn_to(feed, source, moment)
            if MOMENTS_S[moment] not in ASKED_AT_S:
                continue
            until(lambda shown_s=shown_s: ask(feed, wordings[0]).seen_until_s > shown_s + 0.5)
            for wording in wordings:
                answer = ask(feed, wording)
                assert answer.text == last_place(moment), (wording, moment)
                told.append(answer.text)
        assert told == ["left", "left", "right", "right", "right", "right"]
        assert feed.problem is None and feed.num_encoded > len(told)

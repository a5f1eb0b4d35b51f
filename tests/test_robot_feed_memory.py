"""Memory beside the feed: the same pictures, asked while the feed runs, and never waited for."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline import Answer, Engine, EngineConfig, HubStopped, Question, Timing
from millpond.pipeline.robot import (
    Camera,
    HubMemory,
    NoMemory,
    ProcessMemory,
    ProcessMemoryConfig,
    RobotFeed,
    RobotMemory,
    TooManyQuestions,
)
from millpond.pipeline.robot.camera import Picture
from millpond.pipeline.robot.memory import GapsTold, OfferedFeed, remembered
from millpond.pipeline.robot.memory_words import answer_message, frame_message, read_answer, read_frame, write_line
from millpond.pipeline.session import Session
from millpond.stream import Frame, RateSampler, Span

from .reuse_clips import load_tiny
from .robot_cameras import HandCamera, PacedCamera, plain, until

PATIENCE_S = 300.0
LONG_S = 1e6


def picture(number: int, pts_s: float, rgb: np.ndarray | None = None, *, gaps_s: float = 0.0) -> Picture:
    now_s = time.monotonic()
    frame = Frame(plain(30, 30, 30) if rgb is None else rgb, 1000.0 - number, "elsewhere", number)
    return Picture(frame, "top", number, now_s, now_s - 0.5, pts_s, gaps_s=gaps_s)


def a_red_square() -> np.ndarray:
    rgb = np.full((120, 160, 3), 30, np.uint8)
    rgb[30:90, 40:100] = (220, 30, 30)
    return rgb


def test_frames_go_through_a_pipe_unchanged() -> None:
    rng = np.random.default_rng(0)
    frame = Frame(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), 1.5, "top", 3, wall_s=1e9, gap_s=0.25)
    pipe = io.BytesIO()
    write_line(pipe, frame_message(frame), frame.rgb_HW3.tobytes())
    pipe.seek(0)
    read = read_frame(json.loads(pipe.readline()), pipe)
    assert (read.rgb_HW3 == frame.rgb_HW3).all()
    for name in ("pts_s", "stream_id", "index", "wall_s", "gap_s"):
        assert getattr(read, name) == getattr(frame, name)
    with pytest.raises(EOFError, match="a picture of 7x5 ended after 10 bytes"):
        read_frame(frame_message(frame), io.BytesIO(b"0123456789"))


def test_answers_go_through_a_pipe_unchanged() -> None:
    answer = Answer("Where?", "left", 9.0, 8.5, (Span(1.0, 2.0), Span(4.0, 4.0)), Timing(0.25, 0.5), (7, 8))
    message = json.loads(json.dumps(answer_message(4, answer)))
    assert message["answered"] == 4 and read_answer(message["answer"]) == answer


def test_a_remembered_picture_has_the_cameras_time_and_capture() -> None:
    frame = remembered(picture(0, 2.5))
    assert (frame.stream_id, frame.pts_s) == ("top", 2.5)
    assert frame.wall_s is not None and -0.1 < time.time() - 0.5 - frame.wall_s < 60


def test_of_what_is_offered_the_newest_that_is_due_waits() -> None:
    feed = OfferedFeed("top", RateSampler(1.0))
    news: list[int] = []
    feed.on_news(lambda: news.append(1))
    assert feed.take() is None and not feed.is_ended
    for number in range(31):
        feed.offer(remembered(picture(number, number / 10)))  # nobody takes, and nothing waits
    assert (len(news), feed.num_waiting, feed.num_overtaken, feed.stats.num_frames) == (4, 1, 3, 31)
    taken = feed.take()
    assert taken is not None and taken.pts_s == 3.0 and feed.take() is None
    feed.close()
    assert feed.is_ended and feed.problem is None


GAPS_S = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.5, 3.0]), st.booleans()), min_size=1, max_size=40)


@given(GAPS_S, st.floats(0.5, 20.0))
def test_no_gap_is_lost_with_frames_that_are_not_due_or_overtaken(steps: list[tuple[float, bool]], fps: float) -> None:
    feed = OfferedFeed("top", RateSampler(fps))
    taken_s = 0.0
    for number, (gap_s, does_take) in enumerate(steps):
        feed.offer(replace(remembered(picture(number, number / 10)), gap_s=gap_s))
        frame = feed.take() if does_take else None
        taken_s += 0.0 if frame is None else frame.gap_s
    feed.offer(remembered(picture(len(steps), 1000.0)))  # this one is due
    last = feed.take()
    assert last is not None and taken_s + last.gap_s == sum(gap_s for gap_s, _ in steps)


@given(GAPS_S, st.floats(0.5, 20.0))
def test_no_gap_is_lost_on_its_way_to_the_process(steps: list[tuple[float, bool]], fps: float) -> None:
    memory = ProcessMemory(ProcessMemoryConfig(fps=fps))
    memory.offer(picture(0, 0.0, gaps_s=100.0))
    assert not memory._pictures, "its process is not ready"
    memory._is_ready = True
    sent_s, gaps_s = 0.0, 100.0
    for number, (gap_s, is_sent) in enumerate([(0.0, True), *steps, (0.0, True)]):
        gaps_s += gap_s
        for _ in range(2):  # the feed offers it again when another camera shows something
            memory.offer(picture(number, 1000.0 if number > len(steps) else number / 10, gaps_s=gaps_s))
        if is_sent and memory._pictures:
            sent_s += memory._pictures.pop("top").gap_s
    assert sent_s == gaps_s - 100.0, "since the first that it remembers"


def test_each_gap_is_told_once_and_by_camera() -> None:
    gaps, other = GapsTold(), replace(picture(0, 0.0, gaps_s=7.0), camera_id="wrist")
    first = replace(picture(0, 0.0), frame=replace(picture(0, 0.0).frame, gap_s=2.0), gaps_s=9.0)
    assert gaps.tell(first) == 2.0, "what was before the one before it is nobody's"
    assert [gaps.tell(one) for one in (first, picture(5, 0.5, gaps_s=10.5), other)] == [0.0, 1.5, 0.0]
    assert [gaps.tell(replace(other, gaps_s=8.0)), gaps.tell(picture(6, 0.6, gaps_s=10.5))] == [1.0, 0.0]


def test_no_memory_takes_nothing_and_says_so() -> None:
    memory = NoMemory()
    memory.open(("top",))
    memory.offer(picture(0, 0.0))
    assert memory.num_taken == 0 and memory.problem is None
    with pytest.raises(ValueError, match="has no memory to ask"):
        memory.ask("top", Question("What?")).result(1.0)
    memory.close()


def ask_until_answered(memory: RobotMemory, question: str) -> Answer:
    """Pictures are on their way for a while."""
    ends_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return memory.ask("top", Question(question, max_new_tokens=3)).result(PATIENCE_S)
        except ValueError:
            assert time.monotonic() < ends_s


@pytest.mark.slow
def test_a_hub_in_this_process_remembers() -> None:
    memory = HubMemory(Engine(EngineConfig(max_new_tokens=3)), fps=10.0)
    memory.open(("top", "wrist"))
    try:
        for number in range(3):
            memory.offer(picture(number, float(number), a_red_square()))
        answer = ask_until_answered(memory, "What color is the square?")
        assert answer.text == "red" and answer.seen_until_s >= 0.0 and memory.num_taken >= 1
        memory.offer(picture(3, 2.01, gaps_s=4.0))  # not due, and what was before it is told by the next
        memory.offer(picture(4, 9.0, gaps_s=4.0))

        def notes(session: Session) -> list[str]:
            return [line.text for line in session.history.log.lines(kind="gap")]

        until(lambda: bool(memory._hub.look("top", notes).result(PATIENCE_S)))
        assert memory._hub.look("top", notes).result(PATIENCE_S) == ["no picture for 4 s"]
    finally:
        memory.close()
    with pytest.raises(HubStopped):
        memory.ask("top", Question("What?")).result(PATIENCE_S)


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessMemory]:
    memory = ProcessMemory(ProcessMemoryConfig(fps=10.0, max_new_tokens=3))
    memory.open(("top",))
    memory.wait_until_ready(PATIENCE_S)
    yield memory
    memory.close()
    assert memory._process is not None and memory._process.poll() is not None, "the process is gone"


@pytest.mark.slow
def test_a_process_remembers_and_answers(process: ProcessMemory) -> None:
    for number in range(3):
        process.offer(picture(number, float(number), a_red_square()))
        time.sleep(0.05)
    answer = ask_until_answered(process, "What color is the square?")
    assert answer.text == "red" and answer.question == "What color is the square?"
    with pytest.raises(ValueError, match="there is no stream 'left'"):
        process.ask("left", Question("What?")).result(PATIENCE_S)


@pytest.mark.slow
def test_a_process_that_hangs_holds_up_nobody(process: ProcessMemory) -> None:
    assert process._process is not None
    os.kill(process._process.pid, signal.SIGSTOP)
    try:
        large = np.zeros((1080, 1920, 3), np.uint8)  # more than a pipe holds
        for number in range(10, 60):
            process.offer(picture(number, float(number), large))
        future = process.ask("top", Question("What is there?", max_new_tokens=1))
        assert len(process._pictures) <= 1 and not future.done()
    finally:
        os.kill(process._process.pid, signal.SIGCONT)
    assert future.result(PATIENCE_S).num_tokens <= 1


@pytest.mark.slow
def test_a_process_that_dies_is_told_of_and_the_feed_goes_on(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_tiny("llava_onevision", tmp_path_factory.mktemp("model"))
    memory = ProcessMemory(ProcessMemoryConfig(fps=10.0, max_new_tokens=200))
    with RobotFeed([Camera(PacedCamera("top", rate_hz=10.0))], model, memory=memory) as feed:
        feed.wait(PATIENCE_S)
        memory.wait_until_ready(PATIENCE_S)
        assert memory._process is not None
        told = "goes on without it"
        with caplog.at_level(logging.WARNING):
            memory._process.kill()
            memory._process.wait()
            ends_s = time.monotonic() + PATIENCE_S
            while memory.problem is None or told not in caplog.text:
                assert time.monotonic() < ends_s
                time.sleep(0.01)
        assert caplog.text.count(told) == 1
        with pytest.raises(HubStopped, match="the memory's process"):
            feed.ask("What is there?").result(PATIENCE_S)
        before = feed.num_encoded
        while feed.num_encoded < before + 3:
            assert time.monotonic() < ends_s
            time.sleep(0.01)
        assert feed.problem is None and feed.latest(LONG_S).num_tokens > 0


@pytest.mark.slow
def test_a_process_that_cannot_start_says_why() -> None:
    memory = ProcessMemory(ProcessMemoryConfig(model="/no/such/model"))
    memory.open(("top",))
    try:
        with pytest.raises(HubStopped, match="did not start: there is no folder '/no/such/model'"):
            memory.wait_until_ready(PATIENCE_S)
        with pytest.raises(HubStopped, match="did not start"):
            memory.ask("top", Question("What?")).result(1.0)
        with pytest.raises(ValueError, match="this memory remembers already; got top; make another"):
            memory.open(("top",))
    finally:
        memory.close()


def test_a_memory_that_is_not_open_is_not_asked() -> None:
    memory = ProcessMemory()
    with pytest.raises(HubStopped, match="the memory is not open; start the feed"):
        memory.ask("top", Question("What?")).result(1.0)
    memory.close()


@pytest.mark.slow
def test_one_question_too_many_is_refused() -> None:
    memory = ProcessMemory(ProcessMemoryConfig(max_questions=2))
    memory.open(("top",))  # it loads its model for a while, and answers nothing
    try:
        open_ = [memory.ask("top", Question("What?")) for _ in range(2)]
        for _ in range(3):
            with pytest.raises(TooManyQuestions, match=r"2 questions wait .*; got 'And what\?'; ask again"):
                memory.ask("top", Question("And what?")).result(0.0)
        assert len(memory._futures) == 2 and not any(future.done() for future in open_)
    finally:
        memory.close()
    for future in open_:
        with pytest.raises(HubStopped):
            future.result(PATIENCE_S)


CHATTY = """
import os, subprocess, sys
from millpond.pipeline.robot import memory_child

class Chatty(memory_child._Child):
    def __init__(self, settings, out):
        print("said in Python")
        os.write(1, b"said in C\\n")
        subprocess.run([sys.executable, "-c", "print('said by another')"], check=True)
        self._out = out
        raise ValueError("that was all")

memory_child._Child = Chatty
sys.exit(memory_child.main())
"""


def test_nothing_that_is_printed_gets_among_the_answers() -> None:
    given = json.dumps({"niceness": 0, "num_threads": 0}).encode() + b"\n"
    done = subprocess.run([sys.executable, "-c", CHATTY], input=given, capture_output=True, timeout=PATIENCE_S)
    assert done.stdout == b'{"failed": "that was all"}\n' and done.returncode == 1
    assert all(said in done.stderr for said in (b"said in Python", b"said in C", b"said by another"))


def test_an_answer_that_cannot_be_understood_leaves_nobody_waiting() -> None:
    memory = ProcessMemory()
    memory._futures = {1: Future(), 2: Future()}
    one, other = memory._futures.values()
    memory._hear(io.BytesIO(b'{"answered": 1, "answer": {"text": "left"}}\n'))
    for future in (one, other):
        with pytest.raises(HubStopped, match="the memory's process cannot be understood"):
            future.result(1.0)


def test_the_feed_shows_its_memory_every_picture_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    class Noting(NoMemory):
        def __init__(self) -> None:
            self.seen: list[tuple[str, int]] = []
            self.opened: tuple[str, ...] = ()
            self.is_closed = False

        def open(self, camera_ids: object) -> None:
            self.opened = tuple(camera_ids)  # type: ignore[arg-type]

        def offer(self, picture: Picture) -> None:
            self.seen.append((picture.camera_id, picture.number))

        def close(self) -> None:
            self.is_closed = True

    memory, source = Noting(), HandCamera("top")
    model = load_tiny("llava_onevision", tmp_path_factory.mktemp("model"))
    with RobotFeed([Camera(source)], model, memory=memory) as feed:
        for number in range(3):
            source.give(plain(40 * number, 0, 0))
            feed.async_read(PATIENCE_S, max_age_s=LONG_S)
    assert memory.opened == ("top",) and memory.is_closed
    assert memory.seen == [("top", 0), ("top", 1), ("top", 2)]


@pytest.mark.parametrize(("answers_on", "asked", "expected"), [(0, None, 3), (1, None, 2), (5, None, 1), (1, 3, 3)])
def test_encoding_leaves_the_memory_its_cores_and_torch_its_number(
    tmp_path_factory: pytest.TempPathFactory, answers_on: int, asked: int | None, expected: int
) -> None:
    class Busy(NoMemory):
        num_threads = answers_on

    used: list[int] = []

    def fit(frame: Frame) -> Frame:  # called where pictures are encoded
        used.append(torch.get_num_threads())
        return frame

    model = load_tiny("llava_onevision", tmp_path_factory.mktemp("model"))
    own = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first, second = HandCamera("first"), HandCamera("second")
        with (
            RobotFeed([Camera(first)], model, memory=Busy(), fit=fit, num_threads=asked) as one,
            RobotFeed([Camera(second)], model, memory=Busy(), fit=fit, num_threads=asked) as other,
        ):
            for feed, source in ((one, first), (other, second)):
                source.give(plain(40, 0, 0))
                feed.async_read(PATIENCE_S, max_age_s=LONG_S)
        assert used == [expected, expected]
        with ThreadPoolExecutor(1) as new:
            assert torch.get_num_threads() == new.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(own)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"niceness": 20}, "niceness goes from 0 to 19; got 20"),
        ({"max_questions": 0}, "max_questions is how many may wait at once, 1 or more; got 0"),
        ({"num_threads": -1}, "num_threads is 1 or more, or 0 for torch's own choice; got -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProcessMemoryConfig(**wrong)  # type: ignore[arg-type]

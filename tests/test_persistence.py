"""A session that is killed at any moment comes back with what it knew: real processes, real SIGKILL."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from millpond.encoders import VideoLLM, load_model
from millpond.memory.depots import DepotTaken
from millpond.pipeline import Engine, Session
from millpond.stream import Span

from .ingesting import FLUSH_EVERY_S, NUM_FRAMES, config, frames_of

QUESTIONS = ("What appeared first?", "How many objects have appeared?")
NUM_SAMPLED, NUM_POINTS = 12, 200


class Killed(NamedTuple):
    """How far a child said it was when it was killed: all that was pushed, what was at rest for certain, and what had
    been pushed a flush interval before."""

    num_pushed: int
    num_at_rest: int
    num_pushed_before: int


class Ingester:
    """Children that ingest, one at a time."""

    def __init__(self, errors: Path) -> None:
        script = Path(__file__).with_name("ingesting.py")
        self._errors = errors
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors.open("w"),
            text=True,
            bufsize=1,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._read() == "ready"

    def kill_after(self, where: Path, pause_s: float, life_s: float, pruner: str = "live_vlm") -> Killed:
        """A child ingests into `where` for that long, from when it has opened it, and is killed."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{where} {pause_s} {pruner}\n")
        child = int(self._read().removeprefix("child "))
        told: list[tuple[float, str]] = []
        assert self._read() == "open", self._errors.read_text()
        killer = subprocess.Popen(["sleep", str(life_s)])
        killed_at_s = float("inf")
        while (line := self._read()) != "gone":
            told.append((time.monotonic(), line))
            if killer.poll() is not None and killed_at_s == float("inf"):
                os.kill(child, signal.SIGKILL)
                killed_at_s = time.monotonic()
        killer.wait()
        pushed = [(at_s, int(line.split()[1])) for at_s, line in told if line.startswith("pushed ")]
        at_rest = [int(line.split()[1]) for _, line in told if line.startswith("rest ")]
        before = [number for at_s, number in pushed if at_s < killed_at_s - 2 * FLUSH_EVERY_S - 1.0]
        return Killed(max((n for _, n in pushed), default=0), max(at_rest, default=0), max(before, default=0))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._errors.read_text()
        return line.strip()


@pytest.fixture(scope="module")
def ingester(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingester]:
    ingester = Ingester(tmp_path_factory.mktemp("ingester") / "errors")
    yield ingester
    ingester.close()


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return load_model("millpond/mini")


def recalled(session: Session, question: str, until_s: float) -> tuple[tuple[Span, ...], str]:
    answer = session.ask(question, until_s=until_s)
    return answer.used, answer.text


def check_resumes(ingester: Ingester, model: VideoLLM, where: Path, dice: random.Random) -> bool:
    """One life and death, and everything that is promised of what comes after; whether the window came back whole.

    A pruner that goes by what it has seen begins anew: with `novel`, blocks that were killed between leaving the recent
    window and being at rest in their last form are kept whole, and so many older ones may have to go for them. And a
    new slab has room for one or two more, or less, than one that much has gone through. One that was killed when its
    writer was behind has a shorter window: blocks that left it while they waited were written in their last form.
    """
    pruner = dice.choice(["live_vlm", "live_vlm", "novel"])
    killed = ingester.kill_after(where, dice.choice([0.0, 0.005, 0.02]), dice.uniform(0.0, 2.0), pruner)
    opened_at_s = time.monotonic()
    with Engine(config(pruner), model=model) as engine:
        session = engine.session("cam", at=where)
        assert time.monotonic() - opened_at_s < 2.0
        session.memory.check()
        session.history.archive.check()
        session.history.log.check()
        recent = [block.span for block in session.memory.recent]
        older = list(session.memory.older.values())
        num_known = max([int(span.end_s) + 1 for span in (*older, *recent)], default=0)
        assert max(killed.num_at_rest, killed.num_pushed_before) <= num_known <= killed.num_pushed + 1
        if not num_known:
            return True
        twin = engine.session("twin")
        for frame in frames_of(11)[:num_known]:
            twin.push(frame)
        engine.read_pending([twin])
        window, wanted = [block.span for block in twin.memory.recent], list(twin.memory.older.values())
        early = window[: len(window) - len(recent)]
        assert recent == window[len(early) :]
        if early:
            num_sure = max(0, len(wanted) - 8)
            assert older[len(older) - num_sure - len(early) :] == [*wanted[len(wanted) - num_sure :], *early]
            assert abs(len(older) - len(wanted) - len(early)) <= 8
            return False
        if pruner == "novel":
            num_sure = max(0, len(wanted) - 8)
            assert older[len(older) - num_sure :] == wanted[len(wanted) - num_sure :]
            assert abs(len(older) - len(wanted)) <= 8
            return True
        assert older == wanted
        for question in QUESTIONS:
            until_s = float(num_known - 1)
            assert recalled(session, question, until_s) == recalled(twin, question, until_s)
        return True


def test_a_killed_session_comes_back_with_what_it_knew(ingester: Ingester, model: VideoLLM, tmp_path: Path) -> None:
    dice = random.Random(5)
    whole = [check_resumes(ingester, model, tmp_path / str(number), dice) for number in range(NUM_SAMPLED)]
    assert sum(whole) > NUM_SAMPLED // 2, "a writer is seldom behind"


@pytest.mark.long
def test_a_session_killed_at_two_hundred_moments_comes_back(
    ingester: Ingester, model: VideoLLM, tmp_path: Path
) -> None:
    dice = random.Random(6)
    whole = [check_resumes(ingester, model, tmp_path / str(number), dice) for number in range(NUM_POINTS)]
    assert sum(whole) > NUM_POINTS // 2, "a writer is seldom behind"


def test_lives_and_deaths_in_one_directory_go_on_from_one_another(
    ingester: Ingester, model: VideoLLM, tmp_path: Path
) -> None:
    """Each life pushes the same frames again, with a clock that begins at zero: the session's own goes on."""
    dice, last_s = random.Random(7), -1.0
    for _ in range(4):
        ingester.kill_after(tmp_path / "cam", 0.01, dice.uniform(0.3, 1.0))
        with Engine(config(), model=model) as engine:
            session = engine.session("cam", at=tmp_path / "cam", read_only=True)
            session.memory.check()
            spans = [*session.memory.older.values(), *(block.span for block in session.memory.recent)]
            assert spans == sorted(spans) and len(set(spans)) == len(spans)
            assert session.seen_until_s is not None and session.seen_until_s > last_s
            last_s = session.seen_until_s
    assert last_s < 4 * NUM_FRAMES


def test_a_second_process_is_refused_and_may_read(ingester: Ingester, model: VideoLLM, tmp_path: Path) -> None:
    with Engine(config(), model=model) as engine:
        session = engine.session("cam", at=tmp_path / "cam")
        for frame in frames_of(11, 8):
            session.push(frame)
        session.flush()
        with Engine(config(), model=model) as other:
            with pytest.raises(DepotTaken, match=str(os.getpid())):
                other.session("cam", at=tmp_path / "cam")
            deadline_s = time.monotonic() + 10
            while True:
                reader = other.session("cam", at=tmp_path / "cam", read_only=True)
                if reader.seen_until_s == 7.0 or time.monotonic() > deadline_s:
                    break
                reader.close()
            assert recalled(reader, QUESTIONS[0], 7.0) == recalled(session, QUESTIONS[0], 7.0)
            with pytest.raises(ValueError, match="read_only"):
                reader.push(frames_of(11, 1)[0])

"""Nothing from after a question is seen by whoever answers it, whatever sources and methods try."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.engine import Engine
from millpond.pipeline.eval.causal import CausalFrames, NotCausal
from millpond.pipeline.eval.everything import Everything
from millpond.pipeline.eval.method import Show, Told, Viewing
from millpond.pipeline.eval.narrating import Narrating
from millpond.pipeline.eval.record import Answered
from millpond.pipeline.eval.showing import LookedBack, Streamed
from millpond.pipeline.eval.video_pass import VideoBroken
from millpond.pipeline.question import Question
from millpond.stream import Frame

from .eval_parts import Telling, answers, frames, item, method, mini, passing, small, told

TIMES = st.lists(st.integers(0, 30).map(lambda n: n / 2), max_size=20)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(small(), model=mini()) as engine:
        yield engine


@given(TIMES, st.lists(st.integers(-1, 31).map(lambda n: n / 2), max_size=6))
def test_the_guard_hands_out_all_up_to_the_moment_and_nothing_later(
    times_s: list[float], moments_s: list[float]
) -> None:
    times_s.sort()
    moments_s.sort()
    guard = CausalFrames(frames(times_s))
    seen: list[float] = []
    for moment_s in moments_s:
        seen += [one.pts_s for one in guard.until(moment_s)]
        assert seen == [time_s for time_s in times_s if time_s <= moment_s]


def test_the_guard_does_not_go_back() -> None:
    guard = CausalFrames(frames([0, 1, 2]))
    list(guard.until(1.5))
    with pytest.raises(ValueError, match=r"in order of time; got 1\.0 s after 1\.5 s"):
        list(guard.until(1.0))


@given(TIMES, st.lists(st.integers(0, 30).map(lambda n: n / 2), min_size=1, max_size=5))
def test_a_source_that_cheats_about_the_order_shows_nothing_early(times_s: list[float], moments_s: list[float]) -> None:
    """Frames in any order at all: what is handed out by a moment is from before it, and disorder is told."""
    moments_s.sort()
    guard = CausalFrames(frames(times_s))
    num_out = 0
    try:
        for moment_s in moments_s:
            for one in guard.until(moment_s):
                assert one.pts_s <= moment_s
                num_out += 1
    except NotCausal as error:
        assert times_s != sorted(times_s)
        assert "in order of time" in str(error)
    else:
        read = times_s[: num_out + 1]
        assert read == sorted(read)


def test_a_source_that_cheats_about_the_order_breaks_its_video(engine: Engine) -> None:
    show = Telling()
    asked = [item("1", 3.5), item("2", 20.0)]
    going = passing(engine, method(show), asked).run(frames([0, 1, 2, 9, 3, 4]), asked)
    found: dict[str, Answered] = {}
    with pytest.raises(VideoBroken, match="in order of time"):
        for one in going:
            if isinstance(one, Answered):
                found[one.id] = one
    assert list(found) == ["1"]
    assert show.log[0].times_s == (0.0, 1.0, 2.0)  # and not the one from 9 s that came before the question


def test_a_source_that_paints_the_future_over_what_it_handed_out_is_not_believed(engine: Engine) -> None:
    """As a decoder does that reuses its buffer: the frame looked at ahead is in the array of the one before."""

    def cheating() -> Iterator[Frame]:
        buffer = np.zeros((8, 8, 3), np.uint8)
        for number in range(6):
            buffer[:] = 10 * number
            yield Frame(buffer, float(number))

    show = Telling()
    asked = [item("1", 3.0)]
    list(passing(engine, method(show), asked).run(cheating(), asked))
    assert show.log[0].levels == (0, 10, 20, 30)


@dataclass(frozen=True)
class Cheating(Show):
    """Looks at more than it is shown: what it says it has seen ends later."""

    def start(self, engine: Engine, stream_id: str) -> Viewing:
        return _CheatingViewing()


class _CheatingViewing(Viewing):
    def see(self, frame: Frame) -> None: ...

    def ask(self, question: Question) -> Told:
        return told(question, "yes", (question.at_s or 0.0) + 1.0)

    def close(self) -> None: ...


def test_a_method_that_cheats_ends_the_run(engine: Engine) -> None:
    asked = [item("1", 2.0)]
    with pytest.raises(
        NotCausal, match=r"as of 2\.000 s must rest on nothing later; got one that has seen until 3\.000"
    ):
        list(passing(engine, method(Cheating()), asked).run(frames(range(6)), asked))


SHOWS = {
    "streamed": Streamed(),
    "last": LookedBack(num_frames=3, choose="last"),
    "uniform": LookedBack(num_frames=3, choose="uniform"),
    "narrating": Narrating(),
    "everything": Everything(),
}


@pytest.mark.parametrize("name", SHOWS)
def test_what_comes_later_changes_no_answer(name: str, engine: Engine) -> None:
    """Two streams that are the same up to 5 s, and quite different then."""
    said: list[list[object]] = []
    for later in (0, 1):
        rng = np.random.default_rng(7)
        past = [Frame(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), float(n)) for n in range(6)]
        rng = np.random.default_rng(later)
        future = [Frame(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), 6.0 + n) for n in range(3 + 3 * later)]
        asked = [
            item("1", 2.5, question="What appeared?"),
            item("2", 5.0, question="How many objects are there now?"),
            item("3", 8.0, question="What appeared?"),
            item("4", 3.5, since_s=2.0, question="What appeared?"),
        ]
        found = answers(passing(engine, method(SHOWS[name]), asked).run(iter([*past, *future]), asked))
        said.append([(found[id].text, found[id].used, found[id].seen_until_s) for id in ("1", "2", "4")])
        assert [found[id].seen_until_s for id in ("1", "2", "3", "4")] == [2.0, 5.0, 8.0, 3.0]
        assert found["4"].used[0].start_s >= 2.0
    assert said[0] == said[1]


@pytest.mark.parametrize("name", SHOWS)
def test_what_was_asked_before_changes_no_answer(name: str, engine: Engine) -> None:
    said = []
    for before in ([], [item("0", 2.0, question="What appeared?"), item("00", 4.0, question="What appeared last?")]):
        rng = np.random.default_rng(7)
        shown = [Frame(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), float(n)) for n in range(6)]
        asked = [*before, item("1", 5.0, question="How many objects have appeared?")]
        found = answers(passing(engine, method(SHOWS[name]), asked).run(iter(shown), asked))
        said.append((found["1"].text, found["1"].used))
    assert said[0] == said[1]

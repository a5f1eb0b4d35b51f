"""One pass over a video: every question at its moment, moments polled, conversations told, failures told apart."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import pytest

from millpond.pipeline.engine import Engine
from millpond.pipeline.eval import Item
from millpond.pipeline.eval.method import Show, Told, Viewing
from millpond.pipeline.eval.record import Answered
from millpond.pipeline.eval.video_pass import Unshown, VideoBroken
from millpond.pipeline.eval.wording import Wording
from millpond.pipeline.question import Question
from millpond.stream import Frame, SourceError

from .eval_parts import Asking, Telling, answers, frame, frames, item, method, mini, moment, passing, small, told


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(small(), model=mini()) as engine:
        yield engine


def test_many_questions_share_one_pass_which_ends_with_the_last(engine: Engine) -> None:
    show = Telling()
    num_read = 0

    def endless() -> Iterator[Frame]:
        nonlocal num_read
        for number in count():
            num_read += 1
            yield frame(float(number))

    order = random.Random(3)
    asked = [item(str(n), order.randrange(0, 40) / 2) for n in range(30)]
    found = answers(passing(engine, method(show), asked).run(endless(), asked))
    last_s = max(one.at_s for one in asked)
    assert set(found) == {one.id for one in asked}
    assert num_read == int(last_s) + 2  # up to the last moment, and one to know that it has come
    assert show.seen == [float(n) for n in range(int(last_s) + 1)]  # each once
    for asking in show.log:
        assert asking.at_s is not None and asking.times_s == tuple(float(n) for n in range(int(asking.at_s) + 1))
    assert [asking.at_s for asking in show.log] == sorted(one.at_s for one in asked)


def test_what_may_be_seen_begins_where_the_item_says(engine: Engine) -> None:
    show = Telling()
    asked = [item("1", 4.0, since_s=2.0), item("2", 3.0), item("3", 5.0, since_s=2.0)]
    list(passing(engine, method(show), asked).run(frames(range(9)), asked))
    assert [asking.times_s for asking in show.log] == [(0, 1, 2, 3), (2, 3, 4), (2, 3, 4, 5)]
    assert sorted(show.seen) == [0, 1, 2, 2, 3, 3, 4, 5]  # 4 and 5 only where something is still to be asked


def test_each_answer_tells_the_frames_since_the_one_before(engine: Engine) -> None:
    asked = [item("1", 1.0), item("2", 1.0), item("3", 6.0), item("4", 3.0, since_s=2.0)]
    found = answers(passing(engine, method(Telling()), asked).run(frames(range(9)), asked))
    assert {id: one.num_frames for id, one in found.items()} == {"1": 2, "2": 0, "3": 5, "4": 2}
    assert found["3"].ingest_s > 0 == found["2"].ingest_s
    assert (found["1"].ttft_s, found["1"].total_s, found["1"].kv_bytes, found["1"].held_bytes) == (
        0.25,
        0.5,
        1000,
        2000,
    )


def test_a_stretch_in_which_nothing_is_shown_is_not_scored(engine: Engine) -> None:
    asked = [item("1", 1.0), item("2", 2.0, since_s=1.5), item("3", 90.0, since_s=80.0)]
    outcomes = list(passing(engine, method(Telling()), asked).run(frames([0.5, 1.2, 2.5]), asked))
    assert {one.item.id for one in outcomes if isinstance(one, Unshown)} == {"2", "3"}
    assert [one.id for one in outcomes if isinstance(one, Answered)] == ["1"]


def test_a_video_that_breaks_keeps_what_was_answered_by_then(engine: Engine) -> None:
    def breaking() -> Iterator[Frame]:
        yield from frames(range(3))
        raise SourceError("the disk is gone")

    asked = [item("1", 1.0), item("2", 5.0)]
    found: list[str] = []
    with pytest.raises(VideoBroken, match="the disk is gone"):
        for one in passing(engine, method(Telling()), asked).run(breaking(), asked):
            if isinstance(one, Answered):
                found.append(one.id)
    assert found == ["1"]


def test_a_method_without_an_answer_is_wrong_and_the_others_go_on(engine: Engine) -> None:
    def says(asking: Asking) -> str:
        if len(asking.times_s) == 3:
            raise ValueError("it does not fit")
        return "yes"

    asked = [item("1", 1.0), item("2", 2.0), item("3", 3.0)]
    found = answers(passing(engine, method(Telling(says=says)), asked).run(frames(range(5)), asked))
    assert {id: (one.score, one.problem) for id, one in found.items()} == {
        "1": (1.0, None),
        "2": (0.0, "it does not fit"),
        "3": (1.0, None),
    }


@dataclass(frozen=True)
class Overfull(Show):
    """Takes three frames, and no more."""

    def start(self, engine: Engine, stream_id: str) -> Viewing:
        return _OverfullViewing()


class _OverfullViewing(Viewing):
    def __init__(self) -> None:
        self.last_s, self.num_seen, self.is_closed = 0.0, 0, False

    def see(self, frame: Frame) -> None:
        assert not self.is_closed
        self.num_seen += 1
        if self.num_seen > 3:
            raise ValueError("it is full")
        self.last_s = frame.pts_s

    def ask(self, question: Question) -> Told:
        assert not self.is_closed
        return told(question, "yes", self.last_s)

    def close(self) -> None:
        self.is_closed = True


def test_a_method_that_is_full_has_no_answers_from_then_on(engine: Engine) -> None:
    asked = [item("1", 2.0), item("2", 4.0), item("3", 5.0, since_s=4.0)]
    found = answers(passing(engine, method(Overfull()), asked).run(frames(range(9)), asked))
    assert {id: one.problem for id, one in found.items()} == {"1": None, "2": "it is full", "3": None}


# Moments, conversations.


def white_from(white_s: float) -> Callable[[Asking], str]:
    return lambda asking: "yes" if asking.times_s[-1] >= white_s else "no"


def test_a_moment_is_polled_until_the_first_yes(engine: Engine) -> None:
    show = Telling(says=white_from(4.0))
    asked = [moment("1", 1.0, right_at_s=4.0, until_s=8.0), item("2", 6.0)]
    found = answers(passing(engine, method(show), asked).run(frames(range(12)), asked))
    assert [asking.at_s for asking in show.log] == [2.0, 3.0, 4.0, 6.0]
    assert (found["1"].first_yes_s, found["1"].score, found["1"].num_polls) == (4.0, 1.0, 3)
    assert found["1"].num_frames == 5


@pytest.mark.parametrize(("yes_from_s", "score"), [(1.0, 0.0), (2.0, 1.0), (6.0, 1.0), (7.0, 0.0)])
def test_a_moment_is_right_if_its_first_yes_is_near(yes_from_s: float, score: float, engine: Engine) -> None:
    show = Telling(says=white_from(yes_from_s))
    asked = [moment("1", 0.0, right_at_s=4.0, until_s=10.0)]
    found = answers(passing(engine, method(show), asked).run(frames(range(12)), asked))
    assert found["1"].first_yes_s == yes_from_s
    assert found["1"].score == score


def test_a_moment_that_never_comes_is_polled_to_its_end_and_not_where_nothing_is_new(engine: Engine) -> None:
    show = Telling(says=lambda asking: "no")
    asked = [moment("1", 0.0, right_at_s=4.0, until_s=50.0)]
    found = answers(passing(engine, method(show), asked).run(frames([0, 1, 2, 7]), asked))
    assert [asking.at_s for asking in show.log] == [1.0, 2.0, 7.0]
    assert (found["1"].first_yes_s, found["1"].score, found["1"].problem) == (None, 0.0, None)


def test_what_a_moment_is_about_is_asked_for_at_the_first_yes(engine: Engine) -> None:
    show = Telling(says=lambda asking: "yes" if "yes or no" in asking.text else "goal")
    asked = [moment("1", 0.0, right_at_s=1.0, until_s=5.0, answer="Goal!")]
    found = answers(passing(engine, method(show), asked, wording=Wording()).run(frames(range(9)), asked))
    assert (found["1"].text, found["1"].first_yes_s, len(show.log)) == ("goal", 1.0, 2)


def test_polls_come_at_the_distance_that_is_asked_for(engine: Engine) -> None:
    show = Telling(says=lambda asking: "no")
    asked = [moment("1", 0.0, right_at_s=2.0, until_s=2.0)]
    list(passing(engine, method(show), asked, poll_s=0.5).run(frames([n / 2 for n in range(9)]), asked))
    assert [asking.at_s for asking in show.log] == [0.5, 1.0, 1.5, 2.0]


def conversation() -> list[Item]:
    choice = {"form": "choice", "options": ("a cat", "a dog"), "answer": "B"}
    return [
        item("1", 1.0, question="What came in?", **choice),
        item("2", 2.0, question="What colour is it?", answer="brown", context=("1",)),
        item("3", 3.0, question="Is it gone?", form="yes_no", context=("1", "2")),
    ]


def test_a_question_of_a_conversation_has_what_was_before_it_in_words(engine: Engine) -> None:
    show = Telling(says=lambda asking: "A")
    asked = conversation()
    found = answers(passing(engine, method(show), asked, wording=Wording()).run(frames(range(9)), asked))
    first, second, third = (asking.text for asking in show.log)
    assert "earlier" not in first and "brown" not in second
    parts = ["At 1 s: What came in?", "B. a dog", "Answer: B. a dog", "At 2 s: What colour is it?", "Answer: brown"]
    places = [third.index(part) for part in [*parts, "Is it gone?"]]
    assert places == sorted(places)
    assert found["3"].asked == third


def test_a_long_conversation_keeps_its_newest_part() -> None:
    before = [item(str(n), float(n), question=f"Number {n}: {'x' * 500}") for n in range(100)]
    text = Wording().ask(item("q", 200.0, question="And now?"), before)
    assert len(text) < 8000
    assert "Number 99:" in text and "Number 0:" not in text
    assert text.index("Number 98:") < text.index("Number 99:") < text.index("And now?")

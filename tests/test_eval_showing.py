"""The ways to show a stream: what is looked back at is what is said, and what is held stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.memory import MemoryConfig
from millpond.pipeline.config import EngineConfig, HistoryConfig
from millpond.pipeline.engine import Engine
from millpond.pipeline.eval.method import EvalMethod, Show, Told
from millpond.pipeline.eval.showing import LookedBack, Newest, Spread, Streamed
from millpond.pipeline.question import Question
from millpond.stream import Frame

from .eval_parts import frame, mini


@pytest.fixture
def engine() -> Iterator[Engine]:
    config = EngineConfig(
        memory=MemoryConfig(recent_frames=8, budget_bytes=0),
        history=HistoryConfig(archive_bytes=0),
        reuse="none",
        max_new_tokens=8,
    )
    with Engine(config, model=mini()) as engine:
        yield engine


def told(engine: Engine, show: Show, shown: list[Frame], question: str) -> Told:
    viewing = show.start(engine, "a")
    try:
        for one in shown:
            viewing.see(one)
        return viewing.ask(Question(question))
    finally:
        viewing.close()


def pictures(num: int) -> list[Frame]:
    rng = np.random.default_rng(3)
    return [Frame(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), float(n)) for n in range(num)]


@given(st.integers(1, 12), st.integers(0, 700))
def test_a_uniform_choice_is_even_and_its_stock_bounded(num_frames: int, num_added: int) -> None:
    stock = Spread(num_frames)
    for number in range(num_added):
        stock.add(frame(float(number)))
        assert len(stock.held) <= 8 * num_frames + 1
    chosen = [one.pts_s for one in stock.chosen]
    assert len(chosen) == min(num_frames, num_added)
    if num_added:
        assert chosen[-1] == num_added - 1
    if len(chosen) > 1:
        assert chosen[0] == 0
        ideal = np.linspace(0, num_added - 1, len(chosen))
        step = ideal[1] - ideal[0]
        assert np.abs(np.array(chosen) - ideal).max() <= max(0.5, step / 4)
        assert all(before < after for before, after in pairwise(chosen))


@given(st.integers(1, 12), st.integers(0, 60))
def test_the_newest_are_the_newest(num_frames: int, num_added: int) -> None:
    stock = Newest(num_frames)
    for number in range(num_added):
        stock.add(frame(float(number)))
    times_s = [float(number) for number in range(num_added)]
    assert [one.pts_s for one in stock.chosen] == times_s[-num_frames:]


@pytest.mark.parametrize("choose", ["last", "uniform"])
def test_looking_back_at_everything_is_as_having_seen_it(choose: Any, engine: Engine) -> None:
    shown, question = pictures(8), "What appeared?"
    back = told(engine, LookedBack(num_frames=8, choose=choose), shown, question)
    streamed = told(engine, Streamed(), shown, question)
    assert back.answer.token_ids == streamed.answer.token_ids
    assert back.answer.used == streamed.answer.used
    assert back.kv_bytes == streamed.kv_bytes


def test_only_what_is_chosen_is_looked_at(engine: Engine) -> None:
    shown, question = pictures(20), "What appeared?"
    last = told(engine, LookedBack(num_frames=3, choose="last"), shown, question)
    assert [(span.start_s, span.end_s) for span in last.answer.used] == [(17.0, 19.0)]
    even = told(engine, LookedBack(num_frames=3, choose="uniform"), shown, question)
    assert [span.start_s for span in even.answer.used] == [0.0, 10.0, 19.0]
    alone = told(engine, Streamed(), shown[17:], question)
    assert last.answer.token_ids == alone.answer.token_ids
    assert last.held_bytes >= 3 * shown[0].rgb_HW3.nbytes + last.kv_bytes


def test_looking_back_counts_the_whole_way_to_the_first_token(engine: Engine) -> None:
    show = LookedBack(num_frames=8, choose="last")
    viewing = show.start(engine, "a")
    for one in pictures(8):
        viewing.see(one)
    first, again = viewing.ask(Question("What appeared?")), viewing.ask(Question("What appeared?"))
    assert first.answer.token_ids == again.answer.token_ids
    streamed = told(engine, Streamed(), pictures(8), "What appeared?")
    assert again.answer.timing.ttft_s > streamed.answer.timing.ttft_s / 2
    assert not engine.sessions
    viewing.close()
    viewing.close()


@pytest.mark.parametrize("choose", ["last", "uniform"])
def test_nothing_was_seen_is_a_sentence(choose: Any, engine: Engine) -> None:
    with pytest.raises(ValueError, match="nothing was seen"):
        told(engine, LookedBack(num_frames=3, choose=choose), [], "What appeared?")
    assert not engine.sessions


@pytest.mark.parametrize("given_settings", [{"num_frames": 0}, {"num_frames": True}, {"choose": "first"}])
def test_settings_that_make_no_sense_are_refused(given_settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="got"):
        LookedBack(**{"num_frames": 2, "choose": "last", **given_settings})


@pytest.mark.parametrize("change", [{"name": ""}, {"name": "a b"}, {"name": "../a"}, {"about": " "}, {"show": None}])
def test_a_method_checks_itself(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="got"):
        EvalMethod(**{"name": "a-1", "about": "words", "show": Streamed(), **change})

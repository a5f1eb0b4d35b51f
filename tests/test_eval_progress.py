"""Bars of an evaluation: on a terminal only, over the questions and over the video at hand."""

from __future__ import annotations

import sys

import pytest

from millpond.pipeline.eval.progress import Bars, Began, Event, Gave, LeftOut, Watched
from millpond.pipeline.eval.record import Answered


def gave(score: float) -> Gave:
    names = ("id", "item", "video", "kind", "category", "form", "question", "answer", "asked", "text")
    return Gave("last-4", Answered(**dict.fromkeys(names, ""), at_s=0.0, score=score))  # type: ignore[arg-type]


EVENTS: list[Event] = [
    Began("last-4", num_items=6, num_kept=1),
    Watched("last-4", "[red]a.mp4", 12.5, 60.0),
    gave(1.0),
    gave(0.0),
    Watched("last-4", "live.mp4", 3.0, None),
    gave(0.0),
    LeftOut("gone.mp4", "is not there", 2, True),
]


def test_no_terminal_no_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bars:
        for event in EVENTS:
            bars.show(event)
    assert capsys.readouterr() == ("", "")


def test_bars_say_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    shown = ""
    with Bars() as bars:
        for event in EVENTS:
            bars.show(event)
            bars._bars.refresh()
            out, err = capsys.readouterr()
            assert out == ""
            shown += err
        questions = bars._bars.tasks[0]
        assert (questions.completed, questions.total) == (6, 6)
        bars.show(Began("dense", num_items=6, num_kept=0))
        assert (bars._bars.tasks[0].completed, bars._bars.tasks[0].description) == (0, "dense")
    for words in ("last-4", "100% right of 1", "50% right of 2", "33% right of 3", "[red]a.mp4", "0:12.5 of 1:00.0"):
        assert words in shown

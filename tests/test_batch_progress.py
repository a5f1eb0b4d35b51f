"""Bars of a batch: on a terminal only, one for the videos and one for each that is worked on."""

from __future__ import annotations

import sys

import pytest

from millpond.pipeline.batch import Advanced, Bars, Ended, Event, Looked, Planned

EVENTS: list[Event] = [
    Looked(2, 3),
    Planned(num_videos=2, num_broken=1, num_same=0, length_s=90.0, num_chunks=2, num_chunks_kept=0),
    Ended(None, {"state": "failed"}),
    Advanced("a", "[red]a.mp4", 12.5, 60.0),
    Advanced("b", "b.mp4", 3.0, 0.0),
    Ended("a", {"state": "done"}),
    *(Advanced(f"v{n}", f"v{n}.mp4", 1.0, 2.0) for n in range(20)),
    Ended("never seen", {"state": "done"}),
]


def test_no_terminal_no_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bars:
        for event in EVENTS:
            bars.show(event)
    assert capsys.readouterr() == ("", "")


def test_bars_say_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    shown = ""
    with Bars() as bars:
        for event in EVENTS:
            bars.show(event)
            bars._bars.refresh()
            out, err = capsys.readouterr()
            assert out == ""
            shown += err
        assert len(bars._bars.tasks) <= 9
    assert "2 of 3 files" in shown and "1 of 2" in shown
    assert "[red]a.mp4" in shown and "0:12.5 of 1:00.0" in shown

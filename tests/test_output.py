"""What is printed: exactly the agreed keys for programs, readable lines for people."""

from __future__ import annotations

import json

import pytest

from millpond.pipeline import Answer, Narration, Timing
from millpond.pipeline.answer import join_spans
from millpond.pipeline.output import Printer, answer_record, clock, narration_record
from millpond.stream import Span

ANSWER = Answer(
    question="Où est-il?",
    text="left",
    asked_at_s=12.5,
    seen_until_s=12.0,
    used=(Span(0.1 + 0.2, 4.0), Span(75.0, 75.0)),
    timing=Timing(0.25, 0.5),
    token_ids=(7, 8, 9),
)
RECORD = {
    "question": "Où est-il?",
    "text": "left",
    "asked_at_s": 12.5,
    "seen_until_s": 12.0,
    "used": [[0.3, 4.0], [75.0, 75.0]],
    "timing": {"ttft_s": 0.25, "total_s": 0.5},
    "tokens": 3,
}
NARRATION = Narration("a red circle appears", Span(2.0, 4.0), ANSWER)


def test_an_answer_has_exactly_the_agreed_keys() -> None:
    assert answer_record(ANSWER) == RECORD
    assert list(answer_record(ANSWER)) == [
        "question",
        "text",
        "asked_at_s",
        "seen_until_s",
        "used",
        "timing",
        "tokens",
    ]


def test_a_narration_has_its_own_stretch_of_time_and_its_words() -> None:
    record = narration_record(NARRATION)
    assert record.keys() == {"start_s", "end_s", *RECORD}
    assert (record["start_s"], record["end_s"], record["text"]) == (2.0, 4.0, "a red circle appears")


def test_for_programs_each_result_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    with Printer(as_json=True, duration_s=10.0, label="watching") as printer:
        printer.progress(1.0)
        printer.answer(ANSWER)
        printer.narration(NARRATION)
        printer.result({"a": 1}, "for people")
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [RECORD, narration_record(NARRATION), {"a": 1}]
    assert "Où" in out and err == ""


def test_for_people_times_are_those_of_a_clock(capsys: pytest.CaptureFixture[str]) -> None:
    with Printer(as_json=False, duration_s=None, label="watching") as printer:
        printer.answer(ANSWER)
        printer.narration(NARRATION)
        printer.result({"a": 1}, "for people")
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "[0:12.5] Où est-il?",
        "    left",
        "    seen until 0:12.0, read 0:00.3 - 0:04.0, 1:15.0 - 1:15.0; 3 tokens in 0.50 s",
        "[0:02.0 - 0:04.0] a red circle appears",
        "for people",
    ]
    assert err == ""


def test_an_answer_without_words_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    empty = Answer("what?", "", 1.0, 1.0, (), Timing(0, 0), ())
    Printer(as_json=False, duration_s=None, label="").answer(empty)
    assert "(no answer)" in capsys.readouterr().out


def test_a_terminal_gets_a_bar_and_results_stay_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Printer(as_json=True, duration_s=10.0, label="watching") as printer:
        for n in range(3):
            printer.progress(float(n))
            printer.answer(ANSWER)
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [RECORD] * 3
    assert "watching" in err and "watching" not in out


@pytest.mark.parametrize(
    ("time_s", "words"),
    [
        (0, "0:00.0"),
        (-1, "0:00.0"),
        (9.96, "0:10.0"),
        (59.94, "0:59.9"),
        (59.96, "1:00.0"),
        (75.5, "1:15.5"),
        (3599.99, "1:00:00.0"),
        (3675, "1:01:15.0"),
        (360_000, "100:00:00.0"),
    ],
)
def test_a_clock_never_shows_sixty_seconds(time_s: float, words: str) -> None:
    assert clock(time_s) == words


def test_spans_that_touch_or_nearly_do_are_one() -> None:
    spans = [Span(5, 6), Span(0, 1), Span(2, 2), Span(9, 9), Span(5.5, 5.7)]
    assert join_spans(spans, gap_s=1.0) == (Span(0, 2), Span(5, 6), Span(9, 9))
    assert join_spans(spans, gap_s=0.5) == (Span(0, 1), Span(2, 2), Span(5, 6), Span(9, 9))
    assert join_spans([], gap_s=1.0) == ()


def test_an_answer_cannot_know_the_future() -> None:
    with pytest.raises(ValueError, match=r"seen later frames than it was asked at; got seen_until_s=2.0"):
        Answer("what?", "", 1.0, 2.0, (), Timing(0, 0), ())
    with pytest.raises(ValueError, match="0 <= ttft_s <= total_s; got ttft_s=2, total_s=1"):
        Timing(2, 1)

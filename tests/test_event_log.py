"""EventLog: lines are found by any words, never outgrow their cap, and outlive the process."""

from __future__ import annotations

import random
import tempfile
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.memory.event_log import MIN_BUDGET_BYTES, EventLog
from millpond.memory.event_words import STOP_WORDS, clean, terms
from millpond.stream import Span

HOSTILE = [
    *('"', "'", '""', "AND", "OR NOT", "NEAR(a b, 3)", "text:car", "car*", "^car", "(", "a AND (b OR", "-car", "+"),
    *("{x}: y", "car\0door", "\0", "\ud800", "%_", "; DROP TABLE lines; --", "' OR 1=1 --", "\u200b"),
    *("𝔠𝔞𝔯 é e\u0301 ß İ ǆ", "你好，世界", "*" * 5000, "a " * 5000, '"' * 999, "(" * 9999, "NOT " * 300),
    " OR ".join(f"w{n}" for n in range(999)),
]
SOME_WORDS = [f"word{n}" for n in range(3000)]


def some_text(made: random.Random, num_words: int = 8) -> str:
    return " ".join(made.choices(SOME_WORDS, k=num_words))


@pytest.fixture
def log() -> EventLog:
    return EventLog()


def texts(lines: list) -> list[str]:
    return [line.text for line in lines]


def test_lines_are_found_by_their_words_best_first(log: EventLog) -> None:
    log.add(Span(0, 1), "a red car stands at the door")
    log.add(Span(1, 2), "a man opens the door")
    log.add(Span(2, 3), "the red car leaves; a Red car comes")
    assert texts(log.search("RED, car?", 10)) == ["the red car leaves; a Red car comes", "a red car stands at the door"]
    assert texts(log.search("who opened or opens the door", 1)) == ["a man opens the door"]
    found = log.search("door", 10)
    assert found == sorted(found, key=lambda line: -line.score) and len(found) == 2
    assert log.search("bicycle", 10) == log.search("", 10) == log.search("?!", 10) == log.search("door", 0) == []


def test_stop_words_count_where_there_are_no_others(log: EventLog) -> None:
    log.add(Span(0, 1), "what is it")
    log.add(Span(1, 2), "a house")
    assert texts(log.search("What is a house?", 5)) == ["a house"]
    assert texts(log.search("what is", 5)) == ["what is it"]
    assert {"before", "first", "again"}.isdisjoint(STOP_WORDS)


def test_lines_come_in_order_of_time(log: EventLog) -> None:
    for start_s in (5, 1, 3, 3, 9):
        log.add(Span(start_s, start_s + 1), f"at {start_s}", "event" if start_s == 3 else "narration")
    assert [line.span.start_s for line in log.lines()] == [1, 3, 3, 5, 9]
    assert [line.span.start_s for line in log.lines(num_lines=2)] == [5, 9], "the latest"
    assert [line.number for line in log.lines(kind="event")] == [2, 3]
    assert texts(log.lines(Span(0, 2), "narration")) == ["at 1"]
    assert log.lines(kind="trace") == log.lines(num_lines=0) == []


def test_a_stream_that_starts_again_at_zero_is_kept_in_time(log: EventLog) -> None:
    for start_s in (100, 101, 0, 1):
        log.add(Span(start_s, start_s + 1), f"at {start_s}")
    assert texts(log.lines()) == ["at 0", "at 1", "at 100", "at 101"]
    assert [line.number for line in log.lines()] == [2, 3, 0, 1]
    log.check()


times = st.sampled_from([-2.0, 0.0, 0.5, 1.0, 1.5, 2.0, 7.0])


@settings(max_examples=100)
@given(st.lists(st.tuples(times, times), max_size=12), st.tuples(times, times))
def test_spans_overlap_as_spans_do(given_spans: list[tuple[float, float]], asked: tuple[float, float]) -> None:
    log = EventLog()
    spans = [Span(min(pair), max(pair)) for pair in given_spans]
    for span in spans:
        log.add(span, "car")
    asked_span = Span(min(asked), max(asked))
    expected = [number for number, span in enumerate(spans) if span.overlaps(asked_span)]
    assert sorted(line.number for line in log.lines(asked_span)) == expected
    assert sorted(line.number for line in log.search("car", 99, asked_span)) == expected


# Any text


@pytest.mark.parametrize("words", HOSTILE, ids=range(len(HOSTILE)))
def test_no_query_is_an_operator(log: EventLog, words: str) -> None:
    log.add(Span(0, 1), "a red car at the door")
    number = log.add(Span(1, 2), f"zebra {words}")
    assert all(line.number in (0, 1) for line in log.search(words, 10))
    assert number in [line.number for line in log.search(f"{words} zebra", 10)] or len(terms(words)) >= 32
    assert number in [line.number for line in log.search(f"zebra {words}", 10)]
    log.check()


@settings(max_examples=300)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_a_safe_query_and_a_planted_line_is_found_by_its_words(planted: str, other: str) -> None:
    log = EventLog()
    log.add(Span(0, 1), other)
    number = log.add(Span(1, 2), planted)
    log.add(Span(2, 3), "car")
    log.search(other, 3)
    found = [line.number for line in log.search(planted, 3)]
    if any(char.isascii() and char.isalnum() for char in planted):
        assert number in found
    assert log.lines(Span(1, 2))[0].text == clean(planted, 4096)


@settings(max_examples=200)
@given(st.text(st.characters(categories=["L", "N", "M", "P", "S", "Z"]), min_size=1, max_size=8))
def test_a_word_between_any_signs_is_found(signs: str) -> None:
    log = EventLog()
    number = log.add(Span(0, 1), f"red{signs}car")
    assert [line.number for line in log.search(f"red{signs}car", 3)] == [number]


def test_a_megabyte_of_text_is_a_query_and_a_line(log: EventLog) -> None:
    whole = "zebra " + "x" * 2**20
    number = log.add(Span(0, 1), whole)
    assert [line.number for line in log.search(whole, 1)] == [number]
    assert [line.number for line in log.search("zebra", 1)] == [number]
    kept = log.lines()[0].text
    assert len(kept) <= 8192 and kept.endswith("…")
    one = EventLog()
    one.add(Span(0, 1), "y" * 2**20)
    assert len(one.search("y" * 2**20, 1)) == 1


@pytest.mark.parametrize("kind", ["", "trace", "x" * 41])
def test_a_kind_is_a_short_word(log: EventLog, kind: str) -> None:
    with pytest.raises(ValueError, match="short word other than 'trace'; got"):
        log.add(Span(0, 1), "car", kind)


def test_settings_and_counts_are_checked(log: EventLog) -> None:
    with pytest.raises(ValueError, match="at least 1048576 bytes; got 1000"):
        EventLog(budget_bytes=1000)
    with pytest.raises(ValueError, match="got 0"):
        EventLog(lines_per_commit=0)
    for ask in (lambda: log.search("car", -1), lambda: log.lines(num_lines=-1)):
        with pytest.raises(ValueError, match="got -1"):
            ask()
    log.close()
    log.close()
    for act in (lambda: log.add(Span(0, 1), "x"), lambda: log.search("x", 1), log.flush, log.check):
        with pytest.raises(ValueError, match="got closed"):
            act()


# Caps


def fill(log: EventLog, num_lines: int, made: random.Random, *, look: int = 97, first_s: int = 0) -> None:
    for n in range(num_lines):
        log.add(Span(first_s + n, first_s + n + 1), some_text(made))
        if n % look == 0:
            assert log.num_bytes <= log._budget_bytes


@pytest.mark.parametrize("in_ram", [False, True])
def test_the_cap_holds_and_what_goes_leaves_a_trace(tmp_path: Path, in_ram: bool) -> None:
    log = EventLog(None if in_ram else tmp_path / "log.sqlite", budget_bytes=MIN_BUDGET_BYTES)
    num_added = 12_000
    log.add(Span(-1, 0), "zebra " * 200)
    fill(log, num_added - 1, random.Random(0))
    log.flush()
    log.check()
    traces = log.lines(kind="trace", num_lines=1000)
    lines = [line for line in log.lines(num_lines=num_added) if line.kind != "trace"]
    assert log.num_lines == len(lines) + len(traces)
    assert log.num_let_go + len(lines) == num_added, "every line is here or in a trace"
    assert len(lines) > 2000, "and the cap is made use of"
    assert [line.number for line in lines] == list(range(log.num_let_go, num_added)), "the oldest went"
    assert len(traces) <= 64
    assert traces[0].span.start_s == -1
    for trace, follower in pairwise(traces):
        assert trace.span.end_s == follower.span.start_s, "none of the past is without one"
    assert traces[-1].span.end_s == lines[0].span.start_s
    assert traces[0].text.startswith(f"{int(traces[0].span.end_s) + 1} lines from -1 to ")
    assert log.search("zebra", 1)[0].kind == "trace", "its most frequent words are kept"
    assert log.search(lines[0].text, 1)[0].number == lines[0].number


@settings(max_examples=12)
@given(
    st.lists(st.tuples(st.integers(0, 900), st.integers(1, 4000)), min_size=1, max_size=8),
    st.integers(1, 300),
    st.integers(0, 2**32),
)
def test_the_cap_holds_after_any_sequence(bursts: list[tuple[int, int]], per_commit: int, seed: int) -> None:
    made = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.sqlite"
        log = EventLog(path, budget_bytes=MIN_BUDGET_BYTES, lines_per_commit=per_commit)
        num_added = 0
        for num_lines, num_chars in bursts:
            for n in range(num_lines * 400 // (400 + num_chars) + 1):
                letters = bytes(made.choices(b"abcdefghij      ", k=num_chars)).decode()
                log.add(Span(num_added, num_added + 1), letters)
                num_added += 1
                if n % 20 == 0:
                    assert sum(p.stat().st_size for p in Path(folder).iterdir()) <= MIN_BUDGET_BYTES
            log.search("ab cd", 3)
            log.flush()
            log.check()
        num_traces = len(log.lines(kind="trace", num_lines=10**6))
        assert log.num_lines - num_traces + log.num_let_go == num_added
        before = (log.num_lines, log.num_let_go, log.lines(num_lines=10**6), log.search("ab cd ef", 5))
        log.close()
        log = EventLog(path, budget_bytes=MIN_BUDGET_BYTES)
        assert before == (log.num_lines, log.num_let_go, log.lines(num_lines=10**6), log.search("ab cd ef", 5))
        assert log.add(Span(0, 1), "next") == num_added
        log.check()
        log.close()


@pytest.mark.parametrize("flush_every", [1, 10**9])
def test_a_full_log_lets_go_a_little_at_a_time(tmp_path: Path, flush_every: int) -> None:
    """What one call does is in proportion to what came in since, however much is held."""
    budget_bytes = MIN_BUDGET_BYTES
    log = EventLog(tmp_path / "log.sqlite", budget_bytes=budget_bytes)
    made, gone, written, num_added = random.Random(4), [], [], 8_000
    for n in range(num_added):
        before, before_bytes = log.num_let_go, log.num_bytes
        log.add(Span(n, n + 1), some_text(made, 14))
        if n % flush_every == 0:
            log.flush()
        gone.append(log.num_let_go - before)
        written.append(log.num_bytes - before_bytes)
    log.check()
    assert log.num_let_go > num_added // 4
    assert max(gone) < log.num_lines // 16
    assert max(written) < budget_bytes // 8
    assert max(sum(gone[n : n + 1000]) for n in range(0, num_added, 1000)) < 3000
    *traces, _ = log.lines(kind="trace", num_lines=100)
    assert all(int(trace.text.split()[0]) > log.num_lines // 16 for trace in traces), "but traces stand for many"
    log.close()
    again = EventLog(tmp_path / "log.sqlite", budget_bytes=budget_bytes)
    assert again.num_let_go == log.num_let_go, "opening it lets nothing go"
    again.close()


def test_a_lower_cap_is_kept_from_the_opening_on(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = EventLog(path, budget_bytes=4 * MIN_BUDGET_BYTES)
    fill(log, 12_000, random.Random(1))
    log.close()
    assert path.stat().st_size > MIN_BUDGET_BYTES
    log = EventLog(path, budget_bytes=MIN_BUDGET_BYTES)
    log.check()
    assert log.num_let_go > 0 and log.lines(num_lines=1)[0].number == 11_999
    log.close()


@pytest.mark.parametrize("num_lines", [20_000, pytest.param(10_000_000, marks=pytest.mark.long)])
def test_ten_million_lines(tmp_path: Path, num_lines: int) -> None:
    budget_bytes = 2 * MIN_BUDGET_BYTES if num_lines < 10**6 else 64 * 2**20
    log = EventLog(tmp_path / "log.sqlite", budget_bytes=budget_bytes)
    fill(log, num_lines, random.Random(2), look=1009)
    log.flush()
    log.check()
    assert log.num_let_go > num_lines // 4
    newest = log.lines(num_lines=1)[0]
    assert newest.number == num_lines - 1
    assert newest.number in [line.number for line in log.search(newest.text, 20)]
    log.close()


def test_lines_after_a_number_come_in_its_order(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log.sqlite")
    numbers = [log.add(Span(10.0 - n, 11.0 - n), f"line {n}") for n in range(6)]
    assert [line.number for line in log.after(-1)] == numbers
    assert [line.text for line in log.after(numbers[2], 2)] == ["line 3", "line 4"]
    assert log.after(numbers[-1]) == [] and log.after(2**70) == [] and log.after(-(2**70), 1)[0].number == numbers[0]
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.after(0)


def test_threads_may_write_search_and_follow_at_once() -> None:
    log, num_each = EventLog(None, lines_per_commit=4), 60
    seen: list[list[int]] = [[] for _ in range(2)]
    written: list[int] = []

    def follow(mine: list[int]) -> None:
        while len(mine) < 2 * num_each:
            mine += [line.number for line in log.after(mine[-1] if mine else -1)]
            log.search("fox", 3)

    def write(name: str) -> None:
        written.extend(log.add(Span(n, n + 1), f"{name} fox {n}") for n in range(num_each))

    threads = [threading.Thread(target=follow, args=(mine,), daemon=True) for mine in seen]
    threads += [threading.Thread(target=write, args=(name,), daemon=True) for name in ("red", "grey")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [sorted(written)] * 2
    log.check()
    log.close()

"""The ledger of answers: whole lines whatever kills the run, nothing believed that is not checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.pipeline.eval.record import Answered, Ledger, NoLedger, item_digest
from millpond.stream import Span

from .eval_parts import item

SETTINGS = {"method": "telling", "engine": {"fps": 1.0}}

numbers = st.floats(0, 1e9, allow_nan=False)
counts = st.integers(0, 2**60)
answers = st.builds(
    Answered,
    id=st.text(min_size=1),
    item=st.text(),
    video=st.text(),
    kind=st.text(),
    category=st.text(),
    form=st.text(),
    at_s=numbers,
    question=st.text(),
    answer=st.text(),
    asked=st.text(),
    text=st.text(),
    score=st.floats(0, 1),
    first_yes_s=st.none() | numbers,
    problem=st.none() | st.text(),
    seen_until_s=st.none() | numbers,
    used=st.lists(st.tuples(numbers, numbers).map(lambda pair: Span(min(pair), max(pair))), max_size=3).map(tuple),
    num_frames=counts,
    num_polls=counts,
    num_tokens=counts,
    ingest_s=numbers,
    ttft_s=numbers,
    total_s=numbers,
    kv_bytes=counts,
    held_bytes=counts,
)


def answered(number: int, **given: Any) -> Answered:
    one = item(str(number))
    usual = {
        "id": one.id,
        "item": item_digest(one, one.video),
        "video": one.video,
        "kind": "seen",
        "category": "real-time",
        "form": "words",
        "at_s": 1.0,
        "question": one.question,
        "answer": "yes",
        "asked": one.question,
        "text": f"said {number}",
        "score": 1.0,
        "used": (Span(0.0, 1.0),),
    }
    return Answered(**{**usual, **given})


def kept(path: Path, num: int = 10) -> list[int]:
    with Ledger(path, SETTINGS) as ledger:
        return [number for number in range(num) if ledger.answered(item(str(number)), item().video) is not None]


def wrote(path: Path, num: int) -> bytes:
    with Ledger(path, SETTINGS) as ledger:
        for number in range(num):
            ledger.add(answered(number))
    return path.read_bytes()


@given(answers)
def test_a_line_says_all_of_an_answer(one: Answered) -> None:
    line = one.to_line()
    assert "\n" not in line
    assert Answered.from_line(line.encode("utf-8", "backslashreplace")) == one


def test_what_was_answered_is_there_after_the_process(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "telling.jsonl"
    wrote(path, 3)
    assert kept(path) == [0, 1, 2]
    with Ledger(path, SETTINGS) as ledger:
        assert ledger.answered(item("1"), item().video) == answered(1)


def test_an_answer_is_on_the_disk_before_add_returns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Ledger(path, SETTINGS) as ledger:
        ledger.add(answered(0))
        assert json.loads(path.read_text().splitlines()[1])["text"] == "said 0"


@settings(max_examples=60)
@given(st.data())
def test_whatever_is_cut_off_only_the_torn_line_is_lost(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("torn") / "a.jsonl"
    whole = wrote(path, 4)
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    num_whole = max(0, whole[:cut].count(b"\n") - 1)
    assert kept(path) == list(range(num_whole))
    with Ledger(path, SETTINGS) as ledger:
        ledger.add(answered(9))
    assert kept(path) == [*range(num_whole), 9]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_damaged_line_costs_itself_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    lines = wrote(path, 3).splitlines(keepends=True)
    lines[2] = b"\x00" * 30 + b"\n"
    path.write_bytes(b"".join(lines))
    assert kept(path) == [0, 2]
    assert "1 lines are damaged" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"score": 2},
        {"score": True},
        {"score": "1"},
        {"text": None},
        {"text": 7},
        {"kv_bytes": -1},
        {"kv_bytes": 1.5},
        {"ttft_s": float("inf")},
        {"total_s": -1},
        {"first_yes_s": "soon"},
        {"used": [[2.0, 1.0]]},
        {"used": [1]},
        {"used": None},
        {"problem": {}},
        {"id": ["1"]},
        {"at_s": 10**400},
        {"used": [[0, 10**400]]},
        {"nothing": 1},
    ],
)
def test_a_line_that_is_no_answer_is_refused(change: dict[str, Any]) -> None:
    value = {**json.loads(answered(0).to_line()), **change}
    with pytest.raises(ValueError, match=r"got |must be"):
        Answered.from_line(json.dumps(value))


@pytest.mark.parametrize("line", ["", "[]", "7", "{}", "{", '{"used": []}', "[" * 100_000, '"\\ud800"'])
def test_a_line_of_something_else_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        Answered.from_line(line)


def test_an_item_that_reads_otherwise_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    wrote(path, 1)
    with Ledger(path, SETTINGS) as ledger:
        assert ledger.answered(item("0"), item().video)
        for changed in (item("0", question="Another?"), item("0", 2.0), item("0", answer="no")):
            assert ledger.answered(changed, item().video) is None
        assert ledger.answered(item("0"), "another.mp4") is None


def test_other_settings_are_refused_and_say_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    before = wrote(path, 2)
    with pytest.raises(ValueError, match=r"engine\.fps was 1\.0 and is 2\.0; .*--anew"):
        Ledger(path, {**SETTINGS, "engine": {"fps": 2.0}})
    assert path.read_bytes() == before
    with Ledger(path, {**SETTINGS, "engine": {"fps": 2.0}}, anew=True) as ledger:
        assert ledger.answered(item("0"), item().video) is None


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for text in ("my notes\n", "{}\n", '{"version": 99, "settings": {}}\n', '{"version": 1, "settings": []}\n'):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no file of answers"):
            Ledger(path, SETTINGS)
        assert path.read_text() == text


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Ledger(path, SETTINGS), pytest.raises(ValueError, match="another run is writing"):
        Ledger(path, SETTINGS, anew=True)
    assert kept(path) == []


def test_a_place_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(ValueError, match=r"answers cannot be written to .*; give another folder"):
        Ledger(tmp_path / "a.jsonl", SETTINGS)


def test_the_newest_answer_to_an_item_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Ledger(path, SETTINGS) as ledger:
        ledger.add(answered(0))
        ledger.add(answered(0, text="better"))
    with Ledger(path, SETTINGS) as ledger:
        found = ledger.answered(item("0"), item().video)
        assert found == replace(answered(0), text="better")


def test_no_ledger_keeps_nothing() -> None:
    with NoLedger() as ledger:
        ledger.add(answered(0))
        assert ledger.answered(item("0"), item().video) is None

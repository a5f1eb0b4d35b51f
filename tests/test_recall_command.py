"""`millpond recall`: what an earlier run kept is told, asked and searched."""

from __future__ import annotations

from pathlib import Path

import pytest

from millpond.memory.event_log import EventLog
from millpond.stream import Span

from .test_cli import ANSWER_KEYS, BRIEF, CLIP, QUESTION, Millpond, folder, millpond, refused

__all__ = ["folder", "millpond"]  # fixtures


@pytest.fixture
def kept(millpond: Millpond, tmp_path: Path) -> Path:
    """Where a run kept what it saw and narrated."""
    config = tmp_path / "often.toml"
    config.write_text(BRIEF + "min_gap_s = 2\nmax_gap_s = 2\n", encoding="utf-8")
    assert millpond("narrate", CLIP, "--config", config, "--memory", tmp_path / "kept").status == 0
    return tmp_path / "kept"


def test_without_a_question_recall_tells_what_is_kept(millpond: Millpond, kept: Path) -> None:
    done = millpond.brief("recall", kept)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("seen from 0:00.0 to 0:05.0: 6 blocks of keys and values, ")
    (record,) = millpond.brief("recall", kept, "--json").records
    assert list(record) == ["seen", "num_blocks", "num_keyframes", "num_lines", "bytes_by_tier", "notices"]
    assert (record["num_blocks"], record["notices"]) == (6, []) and record["num_keyframes"] >= 1
    assert list(record["bytes_by_tier"]) == ["T0", "T1", "T2", "T3"]


def test_questions_are_answered_from_what_is_kept(millpond: Millpond, kept: Path) -> None:
    done = millpond.brief("recall", kept, QUESTION, "How many objects have appeared?", "--json")
    assert (done.status, done.err) == (0, "")
    assert [list(record) for record in done.records] == [ANSWER_KEYS, ANSWER_KEYS]
    (asked,) = millpond.brief("ask", CLIP, QUESTION, "--json").records
    assert {**done.records[0], "timing": 0} == {**asked, "timing": 0}, "as if it were asked while it was seen"
    (record,) = millpond.brief("recall", kept, QUESTION, "--since", "1", "--until", "3", "--json").records
    assert record["used"] == [[1.0, 3.0]]
    assert millpond.brief("recall", kept, QUESTION).out.startswith(f"[0:05.0] {QUESTION}\n")


def test_what_was_narrated_is_searched(millpond: Millpond, kept: Path) -> None:
    log = EventLog(kept / "log.sqlite")
    log.add(Span(1.0, 2.0), "a heron lands on the weir")
    log.close()
    done = millpond.brief("recall", kept, "--search", 'HERON "weir" OR', "--json")
    assert (done.status, done.err) == (0, "")
    assert done.records == [{"start_s": 1.0, "end_s": 2.0, "kind": "narration", "text": "a heron lands on the weir"}]
    assert millpond.brief("recall", kept, "--search", "heron").out == "[0:01.0 - 0:02.0] a heron lands on the weir\n"
    assert millpond.brief("recall", kept, "--search", "zebra").out == ""


@pytest.mark.parametrize(
    ("where", "options", "message"),
    [
        ("missing", [], "missing"),
        ("empty", [], "empty"),
        ("words.mp4", [], "words.mp4"),
        ("kept", [QUESTION, "--since", "100"], "no frame from 100.0 s is remembered"),
        ("kept", [QUESTION, "--since", "3", "--until", "2"], "needs since_s <= until_s; got 3.0 and 2.0"),
        ("kept", [" "], "a question needs words"),
        ("kept", ["--model", "/no/such/folder"], "there is no folder '/no/such/folder'"),
    ],
)
def test_what_cannot_be_recalled(
    millpond: Millpond, kept: Path, folder: Path, where: str, options: list[str], message: str
) -> None:
    before = sorted(folder.iterdir())
    assert message in refused(millpond.brief("recall", folder / where, *options))
    assert sorted(folder.iterdir()) == before and not list((folder / "empty").iterdir()), "a question makes nothing"

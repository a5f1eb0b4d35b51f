"""The defaults, asked again a small part of what the results page shows: they must not fall below its interval."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from millpond.pipeline.config import EngineConfig
from millpond.pipeline.eval.methods import METHODS
from millpond.pipeline.eval.page_read import SMALL, SuiteResult, read_result
from millpond.pipeline.eval.small_part import held, measure, part_of

from . import result_files as made

FOLDER = Path(__file__).parent.parent / "docs" / "results"
COMMITTED = FOLDER / f"{SMALL}.json"

in_checkout = pytest.mark.skipif(not COMMITTED.is_file(), reason="the results are not beside the tests")
# As it was measured: the figures of another device may differ by a rounding.
CONFIG = EngineConfig(device="cpu")


def small() -> SuiteResult:
    result = read_result(COMMITTED)
    assert isinstance(result, SuiteResult)
    return result


@in_checkout
def test_the_defaults_are_as_often_right_as_was_committed() -> None:
    """Where this fails a change made the defaults worse; where that is meant, measure and commit the results anew."""
    result = small()
    verdict = held(result, measure(part_of(result, FOLDER), config=CONFIG))
    assert verdict.holds, str(verdict)


@in_checkout
def test_settings_that_miss_most_of_a_stream_fall_below() -> None:
    """The check above can fail: the defaults, with a frame every half minute."""
    result = small()
    verdict = held(result, measure(part_of(result, FOLDER), config=replace(CONFIG, fps=1 / 30)))
    assert not verdict.holds, str(verdict)


@in_checkout
@pytest.mark.slow
def test_a_method_that_sees_nothing_falls_below() -> None:
    result = small()
    verdict = held(result, measure(part_of(result, FOLDER), METHODS["blind"], CONFIG))
    assert not verdict.holds, str(verdict)


@in_checkout
def test_the_small_part_is_one_that_can_tell() -> None:
    """Few questions have a wide interval, below which nothing would fall."""
    row = small().row("millpond")
    assert row is not None and row.share is not None
    assert row.share.num_questions >= 30
    assert row.share.low > 0.25
    assert len(row.by_type) >= 5 and len(row.by_category) >= 2


def result(tmp_path: Path, **more: Any) -> SuiteResult:
    folder = made.write(tmp_path, one=made.suite(made.method("millpond", 80), **more))
    read = read_result(folder / "one.json")
    assert isinstance(read, SuiteResult)
    return read


@pytest.mark.parametrize(("right", "holds"), [(95, True), (80, True), (72, True), (71, False), (0, False)])
def test_what_is_within_the_interval_holds_and_what_is_below_does_not(tmp_path: Path, right: int, holds: bool) -> None:
    verdict = held(result(tmp_path), made.shares(right))  # 0.8 of 100 is 0.711 to 0.867
    assert verdict.holds is holds
    assert f"{right / 100:.3f} now; 0.800 (0.711 to 0.867) was committed" in str(verdict)


def test_other_questions_are_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="100 questions were committed, got 50 now"):
        held(result(tmp_path), made.shares(40, 50))


QUESTION = {"video": "synthetic://shapes?duration_s=2", "at_s": 1, "question": "What is there?", "answer": "a cat"}


def test_a_part_is_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_text("\n".join(json.dumps({**QUESTION, "id": str(n)}) for n in range(4)))
    asked = {"suite": "jsonl", "questions": "some.jsonl", "settings": {}}
    part = part_of(result(tmp_path, asked=asked), tmp_path)
    assert [item.id for item in part.items] == [item.id for item in part.all_items] == ["0", "1", "2", "3"]
    part = part_of(result(tmp_path, asked={**asked, "limit": 2}), tmp_path)
    assert [item.id for item in part.items] == ["0", "2"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (None, "must say what was asked"),
        ([], "asked: must be an object"),
        ({"suite": "none", "settings": {}}, "no suite named 'none'; there are"),
        ({"suite": "jsonl", "settings": {}, "questions": "../secret.jsonl"}, "the name of a file beside the result"),
        ({"suite": "jsonl", "settings": {}, "questions": "/etc/passwd"}, "the name of a file beside the result"),
        ({"suite": "jsonl", "settings": {}, "questions": ".."}, "the name of a file beside the result"),
        ({"suite": "jsonl", "settings": {}, "questions": "gone.jsonl"}, "the questions must be a file"),
        ({"suite": "jsonl", "settings": []}, "settings must be an object"),
        ({"suite": "jsonl", "settings": {"a": [[1]]}}, "settings must be an object of plain values"),
        ({"suite": "jsonl", "settings": {"a": [1]}, "questions": "some.jsonl"}, "this suite has no setting 'a'"),
        ({"suite": "jsonl", "settings": {}, "limit": 1.5}, "limit must be a whole number"),
        ({"suite": "jsonl", "settings": {}, "model": "x"}, "no field is named 'model'"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_again_is_refused(tmp_path: Path, asked: Any, said: str) -> None:
    (tmp_path / "some.jsonl").write_text(json.dumps(QUESTION))
    with pytest.raises(ValueError, match=said):
        part_of(result(tmp_path, asked=asked), tmp_path)

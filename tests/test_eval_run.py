"""Whole runs of a suite: what is missing or broken is told, what was answered is kept, whatever ends the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.config import EngineConfig
from millpond.pipeline.eval import Item
from millpond.pipeline.eval.method import EvalMethod
from millpond.pipeline.eval.progress import Began, Event, Gave, LeftOut, Watched
from millpond.pipeline.eval.run import Results, compare, evaluate, spread_over
from millpond.pipeline.eval.showing import LookedBack, Streamed
from millpond.pipeline.eval.videos import locate, name_of

from .clips import make_clip
from .eval_parts import GivenSuite, Telling, item, method, mini, moment, run_of_four, small

ROOT = Path(__file__).parent.parent
SHAPES = "synthetic://shapes?seed={}&duration_s=5&rate_hz=1&width=64&height=48"


def asked_of_three() -> list[Item]:
    return [item(f"{seed}-{at_s}", float(at_s), video=SHAPES.format(seed)) for seed in range(3) for at_s in (4, 1)]


def run(items: list[Item], show: Telling, **given: object) -> Results:
    return evaluate(GivenSuite(), items, method(show), config=small(), model=mini(), **given)  # type: ignore[arg-type]


def test_videos_that_are_missing_or_broken_are_told_and_not_scored(tmp_path: Path) -> None:
    make_clip(tmp_path / "there.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    asked = [
        item("1", 1.0, video="there.mp4"),
        item("2", 1.0, video="gone.mp4"),
        item("3", 1.0, video=str(tmp_path / "gone.mp4")),
        item("4", 1.0, video="broken.mp4"),
        item("5", 1.0, video="../there.mp4"),
        item("6", 1.0, video="rtsp://user:secret@host/clip"),
        item("7", 90.0, video=str(tmp_path / "there.mp4"), since_s=80.0),
    ]
    found = run(asked, Telling(says=lambda asking: "yes"), videos=tmp_path)
    assert [(one.item.id, one.score) for one in found.scored] == [("1", 1.0)]
    told_of = [(one.video, one.is_missing, one.num_items) for one in found.left_out]
    assert ("broken.mp4", False, 1) in told_of and ("../there.mp4", True, 1) in told_of
    assert told_of.count(("gone.mp4", True, 1)) == 2  # named in two ways
    assert ("there.mp4", False, 1) in told_of
    assert sum(one.num_items for one in found.left_out) == 6
    assert "secret" not in str(told_of)
    assert str(tmp_path) not in found.answered[0].to_line()


@pytest.mark.parametrize(
    "video", ["/etc/passwd", "../a.mp4", "a/../../b.mp4", "http://host/a.mp4", "file:///etc/passwd"]
)
def test_an_item_leads_nowhere_else(video: str, tmp_path: Path) -> None:
    (tmp_path.parent / "a.mp4").touch()
    assert locate(video, tmp_path).uri is None


def test_a_video_is_found_below_its_folder_and_named_by_its_place_there(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a b.mp4"
    path.touch()
    for video in ("in/a b.mp4", str(path)):
        assert locate(video, tmp_path) == (str(path), "")
        assert name_of(str(path), tmp_path) == "in/a b.mp4"
    assert locate("in/a b.mp4", None).uri is None
    assert locate(SHAPES, None).uri == SHAPES


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    asked = asked_of_three()
    whole = run(asked, Telling())

    def interrupt(event: Event) -> None:
        if isinstance(event, Gave) and event.answered.id == "1-1":
            raise KeyboardInterrupt

    first, second, third = Telling(), Telling(), Telling()
    with pytest.raises(KeyboardInterrupt):
        run(asked, first, out=tmp_path, on_event=interrupt)
    assert len(first.log) == 3
    resumed = run(asked, second, out=tmp_path)
    assert len(second.log) == 3
    assert len([time_s for time_s in second.seen if time_s == 0.0]) == 2  # the first video is not watched again
    kept = run(asked, third, out=tmp_path)
    assert (third.log, third.seen, kept.num_kept) == ([], [], 6)
    for found in (resumed, kept):
        assert [(one.id, one.text, one.score) for one in found.answered] == [
            (one.id, one.text, one.score) for one in whole.answered
        ]
        assert [one.item for one in found.scored] == asked


def test_answers_are_scored_by_the_rule_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_of_three()
    assert sum(one.score for one in run(asked, Telling(), out=tmp_path).scored) == 0
    monkeypatch.setattr(GivenSuite, "score", lambda self, item, said: float(said.text == "5"))
    show = Telling()
    assert sum(one.score for one in run(asked, show, out=tmp_path).scored) == 3
    assert not show.log


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config": replace(small(), fps=0.5)}, r"engine\.fps was 1\.0 and is 0\.5"),
        ({"config": replace(small(), max_new_tokens=5)}, r"engine\.max_new_tokens was 4 and is 5"),
        ({"poll_s": 2.0}, r"poll_s was 1\.0 and is 2\.0"),
    ],
)
def test_answers_of_other_settings_do_not_stand_together(change: dict[str, object], said: str, tmp_path: Path) -> None:
    asked = asked_of_three()[:1]
    shown = method(Telling())
    base = {"config": small(), "model": mini(), "out": tmp_path}
    evaluate(GivenSuite(), asked, shown, **base)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=said):
        evaluate(GivenSuite(), asked, shown, **{**base, **change})  # type: ignore[arg-type]
    evaluate(GivenSuite(), asked, shown, **{**base, **change, "anew": True})  # type: ignore[arg-type]


def test_another_way_of_showing_is_another_setting(tmp_path: Path) -> None:
    asked = asked_of_three()[:1]
    for show, fits in (
        (LookedBack(num_frames=2, choose="last"), True),
        (LookedBack(num_frames=3, choose="last"), False),
    ):
        shown = EvalMethod(name="last", about="the last", show=show)
        if fits:
            evaluate(GivenSuite(), asked, shown, config=small(), model=mini(), out=tmp_path)
        else:
            with pytest.raises(ValueError, match=r"show\.num_frames was 2 and is 3"):
                evaluate(GivenSuite(), asked, shown, config=small(), model=mini(), out=tmp_path)


def test_what_happens_is_told() -> None:
    events: list[Event] = []
    asked = [*asked_of_three()[:2], item("gone", 1.0, video="gone.mp4")]
    run(asked, Telling(), on_event=events.append)
    assert events[0] == Began("telling", 3, 0)
    assert [event.pts_s for event in events if isinstance(event, Watched)] == [0, 1, 2, 3, 4]
    assert {event.length_s for event in events if isinstance(event, Watched)} == {5.0}
    assert [event.answered.id for event in events if isinstance(event, Gave)] == ["0-1", "0-4"]
    assert [event.num_items for event in events if isinstance(event, LeftOut)] == [1]


def test_methods_are_compared_on_one_model_and_their_costs_are_measured() -> None:
    asked = [
        item("1", 2.0, video=SHAPES.format(0), question="How many objects are there now?"),
        item("2", 4.0, video=SHAPES.format(0), question="What appeared?"),
        moment("3", 0.0, right_at_s=3.0, until_s=4.0, video=SHAPES.format(0), question="Did a red circle appear?"),
    ]
    methods = [
        EvalMethod(name="streamed", about="all in a session", show=Streamed()),
        EvalMethod(name="last", about="the last two", show=LookedBack(num_frames=2, choose="last")),
    ]
    found = {one.method.name: one for one in compare(GivenSuite(), asked, methods, config=small())}
    assert list(found) == ["streamed", "last"]
    for one in found.values():
        assert [answered.id for answered in one.answered] == ["1", "2", "3"]
        for answered in one.answered:
            assert answered.problem is None
            assert 0 < answered.ttft_s <= answered.total_s
            assert 0 < answered.kv_bytes <= answered.held_bytes
            assert answered.seen_until_s is not None and answered.used
    streamed, last = (sum(one.ingest_s for one in found[name].answered) for name in found)
    assert last < streamed  # it reads nothing until it is asked
    # Five frames against two: keys and values say so.
    assert found["last"].answered[1].kv_bytes < found["streamed"].answered[1].kv_bytes


def test_ids_that_are_not_their_own_are_refused() -> None:
    with pytest.raises(ValueError, match="ids of items must differ"):
        run([item("1"), item("1", 2.0)], Telling())


@pytest.mark.parametrize("poll_s", [0.0, -1.0, float("nan"), float("inf")])
def test_polls_without_distance_are_refused(poll_s: float) -> None:
    with pytest.raises(ValueError, match="poll_s must be finite and more than 0; got"):
        run([item("1")], Telling(), poll_s=poll_s)


def test_a_conversation_is_whole_where_only_some_of_its_items_are_asked() -> None:
    asked = [item("1"), item("2", 2.0, context=("1",))]
    found = run(asked[1:], Telling(), all_items=asked)
    assert [one.id for one in found.answered] == ["2"]


@given(st.integers(1, 60), st.integers(1, 60))
def test_some_of_many_are_spread_evenly(num_items: int, num_chosen: int) -> None:
    items = [item(str(number)) for number in range(num_items)]
    chosen = [int(one.id) for one in spread_over(items, num_chosen)]
    assert len(chosen) == min(num_items, num_chosen) and chosen[0] == 0
    steps = {after - before for before, after in pairwise(chosen)}
    assert not steps or (min(steps) >= 1 and max(steps) - min(steps) <= 1)


def test_the_settings_are_plain_json() -> None:
    found = run(asked_of_three()[:1], Telling())
    text = json.dumps(found.settings)
    assert json.loads(text) == found.settings
    assert found.settings["method"] == "telling" and found.settings["engine"]["fps"] == EngineConfig().fps


KILLED = """
import sys, time
from pathlib import Path
from tests.eval_parts import run_of_four

run_of_four(Path(sys.argv[1]), lambda event: time.sleep(0.01))
"""


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "streamed.jsonl"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=environment)
    try:
        deadline_s = time.monotonic() + 900
        while not path.exists() or path.read_bytes().count(b"\n") < 8:
            assert time.monotonic() < deadline_s and killed.poll() is None, "it did not get that far"
            time.sleep(0.01)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    with path.open("ab") as file:
        file.write(b'{"id": "3-11", "text": "half a li')  # as a loss of power may leave it
    before = path.read_bytes().split(b"\n")[1:-1]
    assert 7 <= len(before) < 48
    shown: list[Event] = []
    resumed = run_of_four(tmp_path, shown.append)
    assert (resumed.num_kept, len(resumed.answered)) == (len(before), 48)
    assert sum(isinstance(event, Gave) for event in shown) == 48 - len(before)
    lines = path.read_bytes().splitlines()[1:]
    assert lines[: len(before)] == before  # what was there is there as it was
    assert len(lines) == 48 == len({json.loads(line)["id"] for line in lines})  # each once
    straight = run_of_four(None)
    assert [(one.id, one.text, one.used) for one in resumed.answered] == [
        (one.id, one.text, one.used) for one in straight.answered
    ]

"""Readers of annotation files: the published samples, files that the tests write, and files that wish us ill."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond.pipeline.eval import SUITES, Item, Said, Scored
from millpond.pipeline.eval.ovo_bench import TASKS
from millpond.pipeline.eval.suites import Suite
from millpond.stream import open_source

from .clips import VIDEOS, make_clip, number_of

SAMPLES = VIDEOS.parent / "benchmarks"
OVO = "ovo_bench.sample.json"
STREAMING = {part: f"streamingbench.questions_{part}.sample.json" for part in ("real", "omni", "sqa", "proactive")}
HERE_ONLY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)

needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples of the annotation files are not here")

CHOICE = {
    "id": 7, "task": "EPM", "video": "Ego4D/clips/a.mp4", "realtime": 2, "question": "What?",
    "answer": "red", "options": ["red", "blue", "green"], "gt": 0,
}  # fmt: skip
COUNTED = {
    "id": 8, "task": "REC", "video": "perception/b.mp4", "activity": "open a box", "start_times": [1], "end_times": [2],
    "test_info": [{"realtime": 1, "count": 0}, {"realtime": 2.5, "count": 1}],
}  # fmt: skip
STEPS = {
    "id": 9, "task": "SSR", "video": "COIN/c.mp4", "tutorial": "Tea",
    "test_info": [{"realtime": 1, "step": "boil", "type": 1}, {"realtime": 2, "step": "pour", "type": 0}],
}  # fmt: skip
CLUE = {
    "id": 10, "task": "CRR", "video": "d.mp4", "question": "What does she do?", "answer": "She waves.",
    "ask_time": 1, "clue_time": 2, "test_info": [{"realtime": 1, "type": 0}, {"realtime": 3, "type": 1}],
}  # fmt: skip
NOW = {
    "task_type": "Counting",
    "question": "How many?",
    "time_stamp": "00:01:02",
    "answer": "B",
    "options": ["A. 1.", "B. 2."],
}
WAIT = {
    "task_type": "Proactive Output", "question": 'When the cup falls, output "cup".', "time_stamp": "00:00:06",
    "ground_truth_time_stamp": "00:00:09", "ground_truth_output": "cup",
}  # fmt: skip
LINE = {"video": "a.mp4", "at_s": 2, "question": "What?", "answer": "red"}


def block(*questions: dict[str, Any], video: str = "./videos/s.mp4") -> dict[str, Any]:
    return {"time": "[0:00:00 - 0:01:00]", "questions": list(questions), "video_categories": "x", "video_path": video}


def written(folder: Path, value: Any, name: str = "q.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def read(name: str, folder: Path, value: Any, **more: Any) -> list[Item]:
    return SUITES[name]().items(written(folder, value), folder, **more)


def lines(folder: Path, *entries: Any) -> list[Item]:
    path = folder / "q.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return SUITES["jsonl"]().items(path, folder)


def scored(suite: Suite, items: list[Item], wrong: set[str] = frozenset()) -> list[Scored]:  # type: ignore[assignment]
    """As from a model that is right but for those."""
    said = {item.id: Said("?" if item.id in wrong else item.answer, None if item.id in wrong else item.right_at_s)
            for item in items}  # fmt: skip
    return [Scored(item, said[item.id], suite.score(item, said[item.id])) for item in items]


# ---- the published samples


@needs_samples
def test_the_sample_of_ovo_bench_has_all_twelve_tasks(tmp_path: Path) -> None:
    items = SUITES["ovo"]().items(SAMPLES / OVO, tmp_path)
    entries = json.loads((SAMPLES / OVO).read_text(encoding="utf-8"))
    assert {item.kind for item in items} == set(TASKS)
    assert len(items) == sum(len(entry.get("test_info", [0])) for entry in entries) == len({item.id for item in items})
    assert {(item.category, item.form) for item in items} == {
        ("backward", "choice"), ("real-time", "choice"), ("forward", "number"), ("forward", "yes_no"),
    }  # fmt: skip
    by_id = {item.id: item for item in items}
    first = by_id["0"]
    assert (first.kind, first.category, first.at_s, first.answer) == ("EPM", "backward", 215.0, "C")
    assert first.options[2] == "a person with blue shirt"
    # A choice's right option is the one whose number is given: its own `answer` may be worded otherwise.
    assert by_id["1109"].answer == "B"
    assert [by_id[f"1468_{n}"].answer for n in range(5)] == ["no", "no", "yes", "yes", "yes"]
    assert [(by_id[f"1559_{n}"].at_s, by_id[f"1559_{n}"].answer) for n in range(4)] == [
        (5.0, "1"), (13.0, "2"), (18.0, "3"), (20.0, "3"),
    ]  # fmt: skip
    assert "showing something to the camera" in by_id["1559_0"].question
    assert "put on the hair extensions" in by_id["1516_2"].question and by_id["1516_2"].answer == "no"


@needs_samples
def test_the_samples_of_streamingbench(tmp_path: Path) -> None:
    suite = SUITES["streamingbench"]()
    items = {part: suite.items(SAMPLES / name, tmp_path) for part, name in STREAMING.items()}
    assert {part: len(listed) for part, listed in items.items()} == {"real": 8, "omni": 8, "sqa": 10, "proactive": 8}
    assert all(item.id.startswith(f"{part}-") for part, listed in items.items() for item in listed)
    assert {item.form for item in items["real"] + items["omni"] + items["sqa"]} == {"choice"}
    assert {item.form for item in items["proactive"]} == {"moment"}
    real = items["real"][0]
    assert (real.at_s, real.answer, real.kind, real.since_s) == (31.0, "C", "Clips Summarize", 0.0)
    assert real.options[2] == "The individual replenished bread inventory by placing new buns onto the shelves."
    moment = items["proactive"][0]
    assert (moment.at_s, moment.right_at_s, moment.until_s, moment.answer) == (20.0, 29.0, 33.0, "3")
    assert moment.category == "forward" and moment.kind == "Proactive Output"
    # One conversation has letters before its options, the other has none: both have none after reading.
    assert items["sqa"][0].options[0] == "Wang chuqin." and items["sqa"][5].options == ("DEN.", "MIA.", "BOS.", "GS.")
    assert [len(item.context) for item in items["sqa"]] == [0, 1, 2, 3, 4] * 2
    assert items["sqa"][7].context == (items["sqa"][5].id, items["sqa"][6].id)


@needs_samples
@pytest.mark.parametrize("name", [OVO, *STREAMING.values()])
def test_a_sample_opens_the_clips_that_it_names(tmp_path: Path, name: str) -> None:
    suite = SUITES["ovo" if name == OVO else "streamingbench"]()
    videos = sorted({item.video for item in suite.items(SAMPLES / name, tmp_path)})
    assert videos
    clips = [make_clip(tmp_path / f"{num_frames}.mp4", num_frames) for num_frames in (2, 3, 4)]
    for video, clip in zip(videos, itertools.cycle(clips), strict=False):
        Path(video).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, video)
    for video, clip in zip(videos, itertools.cycle(clips), strict=False):
        assert Path(video).resolve().is_relative_to(tmp_path.resolve())
        if videos.index(video) % 4:  # opening all of them takes longer than it tells
            continue
        with open_source(video) as source:
            assert [number_of(frame.rgb_HW3) for frame in source] == list(range(int(clip.stem)))


@needs_samples
@pytest.mark.parametrize("name", [OVO, *STREAMING.values()])
def test_a_sample_reads_the_same_each_time_and_right_answers_are_right(tmp_path: Path, name: str) -> None:
    suite = SUITES["ovo" if name == OVO else "streamingbench"]()
    items = suite.items(SAMPLES / name, tmp_path)
    assert items == suite.items(SAMPLES / name, tmp_path)
    summary = suite.summary(scored(suite, items))
    assert summary["accuracy"] == 1.0 and summary["num_questions"] == len(items)
    nothing = suite.summary(scored(suite, items, {item.id for item in items}))
    assert nothing["accuracy"] == 0.0 and nothing["num_right"] == 0
    json.dumps(summary)


# ---- OVO-Bench


def test_ovo_scores_each_moment_and_means_over_tasks_then_over_categories(tmp_path: Path) -> None:
    entries = [CHOICE, {**CHOICE, "id": 1}, {**CHOICE, "id": 2, "task": "ASI"}, {**CHOICE, "id": 3, "task": "OCR"},
               COUNTED, STEPS, CLUE]  # fmt: skip
    suite = SUITES["ovo"]()
    items = read("ovo", tmp_path, entries)
    assert [item.id for item in items] == ["7", "1", "2", "3", "8_0", "8_1", "9_0", "9_1", "10_0", "10_1"]
    assert [item.answer for item in items] == ["A", "A", "A", "A", "0", "1", "yes", "no", "no", "yes"]
    summary = suite.summary(scored(suite, items, wrong={"7", "8_0", "8_1", "9_1"}))
    # EPM 1/2, ASI 1; OCR 1; REC 0, SSR 1/2, CRR 1.
    accuracy = {category: figures["accuracy"] for category, figures in summary["by_category"].items()}
    assert accuracy == pytest.approx({"backward": 0.75, "real-time": 1.0, "forward": 0.5})
    assert summary["accuracy"] == pytest.approx((0.75 + 1.0 + 0.5) / 3)
    assert summary["accuracy_over_tasks"] == pytest.approx((0.5 + 1 + 1 + 0 + 0.5 + 1) / 6)
    assert (summary["num_right"], summary["num_questions"]) == (6.0, 10)
    assert summary["by_type"]["SSR"] == {"accuracy": 0.5, "num_questions": 2, "num_right": 1.0}


def test_ovo_finds_videos_that_were_cut_for_each_question(tmp_path: Path) -> None:
    make_clip(tmp_path / "7.mp4", num_frames=2)
    make_clip(tmp_path / "8_1.mp4", num_frames=2)
    names = {item.id: Path(item.video).relative_to(tmp_path) for item in read("ovo", tmp_path, [CHOICE, COUNTED])}
    assert names == {"7": Path("7.mp4"), "8_0": Path("perception/b.mp4"), "8_1": Path("8_1.mp4")}
    (tmp_path / "Ego4D/clips").mkdir(parents=True)
    make_clip(tmp_path / "Ego4D/clips/a.mp4", num_frames=2)
    assert Path(read("ovo", tmp_path, [CHOICE])[0].video) == tmp_path / "Ego4D/clips/a.mp4"


# ---- StreamingBench


def test_streamingbench_reads_one_folder_of_four_files(tmp_path: Path) -> None:
    emotion = {**NOW, "task_type": "Emotion Recognition"}
    written(tmp_path, [block(NOW)], "questions_real.json")
    written(tmp_path, [block(emotion)], "questions_omni.json")
    written(tmp_path, [[block({**NOW, "task_type": "Sequential Question Answering"})]], "questions_sqa.json")
    written(tmp_path, [block(WAIT)], "questions_proactive.json")
    suite = SUITES["streamingbench"]()
    items = suite.items(tmp_path, tmp_path)
    assert [item.id for item in items] == ["real-0-0", "omni-0-0", "sqa-0-0-0", "proactive-0-0"]
    summary = suite.summary(scored(suite, items, wrong={"sqa-0-0-0"}))
    assert {name: group["accuracy"] for name, group in summary["by_group"].items()} == {
        "real-time visual": 1.0, "omni-source": 1.0, "contextual": 0.5,
    }  # fmt: skip
    assert summary["accuracy"] == 0.75
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"none of questions_real.json.* is in the folder; got"):
        suite.items(tmp_path / "empty", tmp_path)


@pytest.mark.parametrize(
    ("off_s", "is_right"), [(-3, False), (-2, True), (0, True), (2, True), (3, False), (None, False)]
)
def test_a_proactive_answer_is_right_within_two_seconds(tmp_path: Path, off_s: int | None, is_right: bool) -> None:
    suite = SUITES["streamingbench"]()
    (item,) = read("streamingbench", tmp_path, [block(WAIT)])
    said = Said("the cup!", None if off_s is None else 9.0 + off_s)
    assert suite.score(item, said) == is_right
    proactive = suite.summary([Scored(item, said, suite.score(item, said))])["proactive"]
    assert proactive == {"in_time": is_right, "in_time_and_said": is_right}
    other = Scored(item, Said("a plate", 9.0), 1.0)
    assert suite.summary([other])["proactive"] == {"in_time": 1.0, "in_time_and_said": 0.0}
    assert suite.summary([other._replace(said=Said("", 9.0))])["proactive"]["in_time_and_said"] is None


def test_a_conversation_tells_what_was_asked_before_and_nothing_later(tmp_path: Path) -> None:
    late, early = {**NOW, "time_stamp": "0:09:00"}, {**NOW, "time_stamp": "0:02:00"}
    items = read("streamingbench", tmp_path, [[block(NOW, late), block(early)], [block(NOW)]])
    assert [(item.id, item.context) for item in items] == [
        ("sqa-0-0-0", ()), ("sqa-0-0-1", ("sqa-0-0-0",)), ("sqa-0-1-0", ("sqa-0-0-0",)), ("sqa-1-0-0", ()),
    ]  # fmt: skip


def test_questions_outside_a_conversation_have_no_context(tmp_path: Path) -> None:
    assert [item.context for item in read("streamingbench", tmp_path, [block(NOW, NOW), block(NOW)])] == [(), (), ()]


def test_a_window_says_how_much_may_be_seen(tmp_path: Path) -> None:
    (item,) = read("streamingbench", tmp_path, [block(NOW)], window_s=60.0)
    assert (item.at_s, item.since_s) == (62.0, 2.0)
    (item,) = read("streamingbench", tmp_path, [block(NOW)], window_s=90)
    assert item.since_s == 0.0
    with pytest.raises(ValueError, match="window_s must be more than 0"):
        read("streamingbench", tmp_path, [block(NOW)], window_s=0)
    with pytest.raises(ValueError, match="window_s must be more than 0, or none for everything; got 'all'"):
        read("streamingbench", tmp_path, [block(NOW)], window_s="all")
    with pytest.raises(ValueError, match="no setting 'window'; it has: window_s"):
        read("streamingbench", tmp_path, [block(NOW)], window=60)


def test_videos_lie_in_the_folder_or_in_videos_below_it(tmp_path: Path) -> None:
    inner, bare = tmp_path / "videos" / "s.mp4", tmp_path / "s.mp4"

    def where() -> Path:
        return Path(read("streamingbench", tmp_path, [block(NOW)])[0].video)

    assert where() == inner, "one that is missing is named as the file names it"
    make_clip(bare, num_frames=2)
    assert where() == bare
    inner.parent.mkdir()
    make_clip(inner, num_frames=2)
    assert where() == inner


@given(
    st.lists(st.text("abcXYZ .,1", min_size=1).filter(str.strip), min_size=2, max_size=26, unique=True), st.booleans()
)
@HERE_ONLY
def test_letters_come_off_options_and_nothing_else_does(tmp_path: Path, words: list[str], has_letters: bool) -> None:
    words = [f"x{word.strip()}" for word in words]
    options = [f"{chr(65 + n)}. {word}" for n, word in enumerate(words)] if has_letters else words
    (item,) = read("streamingbench", tmp_path, [block({**NOW, "options": options})])
    assert list(item.options) == words


def test_a_name_is_no_letter(tmp_path: Path) -> None:
    names = ["A. Smith", "J. Doe", "C. Ng", "A. Poe"]
    assert read("streamingbench", tmp_path, [block({**NOW, "options": names})])[0].options == tuple(names)


# ---- plain JSONL


def test_a_line_shows_by_its_answer_what_it_asks_for(tmp_path: Path) -> None:
    options = ["red", "blue"]
    items = lines(
        tmp_path,
        LINE,
        {**LINE, "answer": 3, "type": "count"},
        {**LINE, "answer": 2.5},
        {**LINE, "answer": True},
        {**LINE, "answer": "No"},
        {**LINE, "answer": "B", "options": options},
        {**LINE, "answer": "Blue.", "options": options},
        {**LINE, "answer": 3, "options": [2, 3]},
        {**LINE, "answer": "now", "right_at_s": 5},
        {
            **LINE,
            "video": "synthetic://shapes?seed=3",
            "options": None,
            "id": "mine",
            "category": "backward",
            "since_s": 1,
        },
    )
    assert [(item.form, item.answer) for item in items] == [
        ("words", "red"), ("number", "3"), ("number", "2.5"), ("yes_no", "yes"), ("yes_no", "no"), ("choice", "B"),
        ("choice", "B"), ("choice", "B"), ("moment", "now"), ("words", "red"),
    ]  # fmt: skip
    assert [item.kind for item in items][:3] == ["words", "count", "number"]
    assert [item.id for item in items] == [*map(str, range(1, 10)), "mine"]
    assert (items[8].right_at_s, items[8].until_s) == (5.0, 9.0)
    assert (items[9].video, items[9].category, items[9].since_s) == ("synthetic://shapes?seed=3", "backward", 1.0)
    assert Path(items[0].video) == tmp_path / "a.mp4"


def test_empty_lines_are_let_be_and_an_empty_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(LINE).encode() + b"\r\n\r\n  \n" + json.dumps(LINE).encode())
    assert [item.id for item in SUITES["jsonl"]().items(path, tmp_path)] == ["1", "2"]
    path.write_bytes(b"\n\n")
    with pytest.raises(ValueError, match=r"q\.jsonl: must have one question or more; got none"):
        SUITES["jsonl"]().items(path, tmp_path)

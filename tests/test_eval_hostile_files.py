"""Annotation files that wish us ill, or are merely wrong: refused with file, entry and field."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond.pipeline.eval import SUITES, Item, entries

HERE_ONLY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)

LINE = {"video": "a.mp4", "at_s": 2, "question": "What?", "answer": "red"}
CHOICE = {
    "id": 7, "task": "EPM", "video": "a.mp4", "realtime": 2, "question": "What?", "options": ["red", "blue"], "gt": 0,
}  # fmt: skip
COUNTED = {
    "id": 8, "task": "REC", "video": "b.mp4", "activity": "open a box", "test_info": [{"realtime": 1, "count": 0}],
}  # fmt: skip
NOW = {"task_type": "Counting", "question": "How many?", "time_stamp": "00:01:02", "answer": "B", "options": ["1", "2"]}
WAIT = {
    "task_type": "Proactive Output", "question": "When the cup falls, say so.", "time_stamp": "00:00:06",
    "ground_truth_time_stamp": "00:00:09", "ground_truth_output": "cup",
}  # fmt: skip

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["..", "/", "A", "0:1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
# Parts that paths are attacked with, put together at random.
PATHS = st.lists(
    st.sampled_from(
        [
            "..",
            ".",
            "/",
            "//",
            "\\",
            "a",
            "b.mp4",
            "C:",
            "~",
            "file:",
            "rtsp:",
            "?x",
            "#",
            "%2e%2e",
            " ",
            "\0",
            "\n",
            "|",
        ]
    )
    | st.text(max_size=4),
    max_size=8,
).map("".join)


def block(*questions: dict[str, Any], video: str = "./videos/s.mp4") -> dict[str, Any]:
    return {"questions": list(questions), "video_path": video}


def read(suite: str, folder: Path, value: Any) -> list[Item]:
    """As the suite reads it: one JSON value, or, for jsonl, one per line."""
    path = folder / "q.json"
    text = "\n".join(json.dumps(one) for one in value) if suite == "jsonl" else json.dumps(value)
    path.write_text(text, encoding="utf-8")
    return SUITES[suite]().items(path, folder / "videos")


@pytest.fixture(autouse=True)
def _videos(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()


# suite, what stands in the file, what the complaint says
WRONG: list[tuple[str, Any, str]] = [
    ("ovo", [CHOICE, {**CHOICE, "id": 8, "gt": 2}], "q.json, entry 1: gt must be a whole number from 0 to 1; got 2"),
    ("ovo", [{**CHOICE, "gt": True}], "entry 0: gt must be a whole number"),
    ("ovo", [{**CHOICE, "gt": "0"}], "entry 0: gt must be a whole number from 0 to 1; got '0'"),
    ("ovo", [{**CHOICE, "task": "XYZ"}], "entry 0: task must be one of EPM, ASI"),
    ("ovo", [{**CHOICE, "options": ["red"]}], "entry 0: options must be a list of 2 to 26 texts; got a list of 1"),
    ("ovo", [{**CHOICE, "options": ["red", ["b"]]}], "entry 0: options must be a list of texts"),
    ("ovo", [{**CHOICE, "options": "red"}], "entry 0: options must be a list of texts; got 'red'"),
    ("ovo", [{**CHOICE, "realtime": -1}], "entry 0: realtime must be a number of seconds from 0 to"),
    ("ovo", [{**CHOICE, "realtime": "2"}], "entry 0: realtime must be a number of seconds"),
    ("ovo", [{**CHOICE, "realtime": 10**400}], "entry 0: realtime must be a number of seconds"),
    ("ovo", [{**CHOICE, "question": " "}], "entry 0: question must be a text of 1 to 20000 characters; got ' '"),
    ("ovo", [{**CHOICE, "question": "x" * 20_001}],
     "entry 0: question must be a text of 1 to 20000 characters; got 'xxx"),
    ("ovo", [{**CHOICE, "question": "\ud800"}], "entry 0: question must be a text"),
    ("ovo", [CHOICE, CHOICE], "entry 1: id must be its own; got '7' again"),
    ("ovo", [{**CHOICE, "id": None}], "entry 0: id must be a text"),
    ("ovo", [{**COUNTED, "test_info": []}],
     "entry 0: test_info must be a list of one or more objects; got a list of 0"),
    ("ovo", [{**COUNTED, "test_info": [{"realtime": 1}]}],
     "entry 0, test_info.0.: count must be a whole number.*; got none"),
    ("ovo", [{**COUNTED, "activity": 3}], "entry 0: activity must be a text"),
    ("ovo", [3], "q.json, entry 0: must be an object with fields; got 3"),
    ("ovo", {"a": 1}, "q.json: must be a list of one or more entries; got a dict of 1"),
    ("ovo", [], "q.json: must be a list of one or more entries; got a list of 0"),
    ("streamingbench", [block({**NOW, "time_stamp": "62"})],
     r"entry 0, questions\[0\]: time_stamp must be a time such as"),
    ("streamingbench", [block({**NOW, "time_stamp": 62})], r"questions\[0\]: time_stamp must be a text"),
    ("streamingbench", [block({**NOW, "answer": "C"})],
     r"questions\[0\]: answer must be a letter from A to B; got 'C'"),
    ("streamingbench", [block({**NOW, "answer": "red"})],
     r"questions\[0\]: answer must be a letter from A to B; got 'red'"),
    ("streamingbench", [block(NOW), block()],
     "entry 1: questions must be a list of one or more objects; got a list of 0"),
    ("streamingbench", [[block(NOW)], [block(3)]],
     r"entry 1, block 0, questions\[0\]: must be an object with fields; got 3"),
    ("streamingbench", [[block(NOW)], {}], "entry 1: must be a list of one or more blocks; got a dict of 0"),
    ("streamingbench", [block({**WAIT, "ground_truth_output": ""})],
     r"questions\[0\]: ground_truth_output must be a text"),
    ("jsonl", [LINE, {**LINE, "at_s": None}], "q.json, line 2: at_s must be a number of seconds"),
    ("jsonl", [{**LINE, "option": ["a", "b"]}], "line 1: no field is named 'option'; there are: video, at_s"),
    ("jsonl", [{**LINE, "answer": None}], "line 1: answer must be a text"),
    ("jsonl", [{**LINE, "answer": 10**16}], "line 1: answer must be a number of at most 15 digits"),
    ("jsonl", [{**LINE, "answer": "C", "options": ["a", "b"]}],
     "line 1: answer must be the letter of one option, or its words"),
    ("jsonl", [{**LINE, "answer": "A", "options": ["B", "A"]}], "line 1: answer must be the letter of one option"),
    ("jsonl", [{**LINE, "answer": "a", "options": ["x"]}], "line 1: options must be a list of 2 to 26 texts"),
    ("jsonl", [{**LINE, "category": "song"}],
     "line 1: category must be one of real-time, backward, forward; got 'song'"),
    ("jsonl", [{**LINE, "since_s": 3}], "line 1: since_s must be at most at_s, 2; got 3"),
    ("jsonl", [{**LINE, "until_s": 3}], "line 1: until_s must be left out where there is no right_at_s"),
    ("jsonl", [{**LINE, "right_at_s": 4, "until_s": 1}], "line 1: until_s must be at least at_s, 2, and at most a day"),
    ("jsonl", [{**LINE, "right_at_s": 10**6}], "line 1: right_at_s must be at least at_s, 2, and at most a day later"),
    ("streamingbench", [block({**WAIT, "ground_truth_time_stamp": "99:00:00"})], "stamp must be at most a day after"),
    ("jsonl", [{**LINE, "id": "x"}, {**LINE, "id": "x"}], "line 2: id must be its own; got 'x' again"),
    ("jsonl", [{**LINE, "type": "a\nb"}], "line 1: type must be a text on one line"),
    ("jsonl", [[LINE]], "line 1: must be an object with fields; got a list of 1"),
]  # fmt: skip


@pytest.mark.parametrize(("suite", "value", "complaint"), WRONG, ids=lambda part: str(part)[:40])
def test_what_is_wrong_is_said_with_file_entry_and_field(
    tmp_path: Path, suite: str, value: Any, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        read(suite, tmp_path, value)


@pytest.mark.parametrize("suite", ["jsonl", "ovo", "streamingbench"])
@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"[" * 500_000 + b"]" * 500_000, "nested too deep"),
        (b"[{]", "must be JSON; got"),
        (b"\xff\xfe[]", "must be UTF-8; got"),
        (b"[NaN]", "must be JSON; got JSON has no NaN"),
        (b'{"a": -Infinity}', "must be JSON; got JSON has no -Infinity"),
        (b"[" + b"9" * 5_000 + b"]", "must be JSON; got"),
        (b"", "must"),
    ],
    ids=lambda part: str(part)[:20],
)  # fmt: skip
def test_bytes_that_are_no_such_file(tmp_path: Path, suite: str, data: bytes, complaint: str) -> None:
    path = tmp_path / "q.json"
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=rf"q\.json.*{complaint}" if complaint != "nested too deep" else "nested|at most"
    ):
        SUITES[suite]().items(path, tmp_path)


@pytest.mark.parametrize("suite", ["jsonl", "ovo", "streamingbench"])
def test_what_is_no_file_or_folder_is_refused(tmp_path: Path, suite: str) -> None:
    path = tmp_path / "q.json"
    path.write_text("[]")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path_given, complaint in (
        (None, "from a file; give its path"),
        (tmp_path / "none.json", "the questions must be a file; got"),
        (fifo, "the questions must be a file; got"),
    ):
        with pytest.raises(ValueError, match=complaint):
            SUITES[suite]().items(path_given, tmp_path)
    with pytest.raises(ValueError, match="must be a folder that is there; got"):
        SUITES[suite]().items(path, tmp_path / "none")
    with pytest.raises(ValueError, match="has no setting 'speed'; it has: "):
        SUITES[suite]().items(path, tmp_path, speed=2)


@pytest.mark.parametrize(("suite", "value"), [("jsonl", [LINE]), ("ovo", [CHOICE]), ("streamingbench", [block(NOW)])])
def test_without_a_folder_of_videos_it_is_asked_for(tmp_path: Path, suite: str, value: Any) -> None:
    read(suite, tmp_path, value)
    with pytest.raises(ValueError, match=r"q.json, (line 1|entry 0): video\w* is '.*'; give the folder of the videos"):
        SUITES[suite]().items(tmp_path / "q.json", None)


def test_a_file_and_a_line_have_a_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="line 2: must be at most 1048576 bytes long; got more"):
        read("jsonl", tmp_path, [LINE, {**LINE, "question": "x" * 2**20}])
    monkeypatch.setattr(entries, "MAX_FILE_BYTES", 10)
    with pytest.raises(ValueError, match=r"q\.json: \d+ bytes are more than 10; split the file"):
        read("ovo", tmp_path, [CHOICE])


@pytest.mark.parametrize(
    "video",
    [
        "/etc/passwd", "//server/x.mp4", "../x.mp4", "a/../../x.mp4", "./..", "..", "a/..", ".", "./", "/", "",
        " ", "file:///etc/passwd",
        "rtsp://host/x", "http://host/x.mp4", "device://0", "/dev/video0", "C:/x.mp4", "c:x.mp4", "..\\x.mp4",
        "\\\\server\\x", "a\0b.mp4",
        "a\nb.mp4", "x" * 300, "a/" * 600 + "x.mp4", "synthetic:shapes", "SYNTHETIC://shapes",
        7, None, ["a.mp4"], "pipe:0", "concat:a|b",
    ],
    ids=lambda video: repr(video)[:20],
)  # fmt: skip
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, video: Any) -> None:
    for suite, value, field in (
        ("ovo", [{**CHOICE, "video": video}], "video"),
        ("ovo", [{**COUNTED, "video": video}], "video"),
        ("streamingbench", [block(NOW, video=video)], "video_path"),
        ("streamingbench", [[block(NOW, video=video)]], "video_path"),
        ("jsonl", [{**LINE, "video": video}], "video"),
    ):
        with pytest.raises(ValueError, match=rf"q\.json, (line 1|entry 0)(, block 0)?: {field} must be "):
            read(suite, tmp_path, value)


@given(PATHS)
@HERE_ONLY
def test_whatever_a_path_says_it_stays_below_the_folder(tmp_path: Path, video: str) -> None:
    for suite, value in (("ovo", [{**CHOICE, "video": video}]), ("streamingbench", [block(NOW, video=video)])):
        try:
            (item,) = read(suite, tmp_path, value)
        except ValueError as error:
            assert re.search(r"q\.json, entry 0: video\w* must be", str(error))
        else:
            assert Path(item.video).resolve().is_relative_to((tmp_path / "videos").resolve())
            assert Path(item.video).resolve() != (tmp_path / "videos").resolve()


def test_an_id_finds_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").touch()
    for id in ("../x", "..\\x", "/x", "a/../../x"):
        (item,) = read("ovo", tmp_path, [{**CHOICE, "id": id}])
        assert Path(item.video) == tmp_path / "videos" / "a.mp4"


FILES = {
    "ovo": [CHOICE, COUNTED],
    "streamingbench": [block(NOW), block(WAIT)],
    "jsonl": [LINE, {**LINE, "answer": "B", "options": ["x", "y"]}, {**LINE, "right_at_s": 3}],
}


@given(data=st.data(), suite=st.sampled_from(sorted(FILES)))
@HERE_ONLY
def test_any_value_in_any_place_is_read_or_refused(tmp_path: Path, data: st.DataObject, suite: str) -> None:
    value = json.loads(json.dumps(FILES[suite]))
    place: Any = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.integers(0, 3)) == 0:
            break
        place = place[key]
    place[key] = data.draw(JSON_VALUES)
    path = tmp_path / "q.json"
    text = "\n".join(map(json.dumps, value)) if suite == "jsonl" else json.dumps(value)
    path.write_text(text, encoding="utf-8")
    try:
        items = SUITES[suite]().items(path, tmp_path / "videos")
    except ValueError as error:
        assert str(error).startswith("q.json"), error
        assert len(str(error)) < 400 and str(error).isprintable()
    else:
        assert items and len({item.id for item in items}) == len(items)
        json.dumps([item.question + item.answer + item.video for item in items], ensure_ascii=False).encode()


@given(data=st.binary(max_size=60), suite=st.sampled_from(sorted(FILES)))
@HERE_ONLY
def test_any_bytes_are_refused_or_read(tmp_path: Path, data: bytes, suite: str) -> None:
    path = tmp_path / "q.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"^q\.json"):
        SUITES[suite]().items(path, tmp_path / "videos")

"""Files of a results page are hostile until they are checked: refused with file and field, or shown as plain text."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millpond.pipeline.eval.page import page_of
from millpond.pipeline.eval.page_text import figure, plain

from . import result_files as made
from .result_files import SVG, marks

RESULTS = {"suite": made.usual(), "mini": made.mini(), "real": made.real()}
WRONG: list[tuple[Any, Any, str]] = [
    (
        ("methods", "millpond", "accuracy"),
        1.5,
        "accuracy must be from 0 to 1",
    ),
    (("methods", "millpond", "accuracy"), True, "accuracy must be a finite number"),
    (("methods", "millpond", "accuracy"), "0.8", "accuracy must be a finite number"),
    (("methods", "millpond", "interval"), [0.9, 0.7], "two numbers, the lower first"),
    (("methods", "millpond", "interval"), [0.85, 0.9], "accuracy must be in its interval"),
    (("methods", "millpond", "interval"), [0.5], "a list of two numbers"),
    (("methods", "millpond", "num_questions"), -1, "num_questions must be a whole number"),
    (("methods", "millpond", "costs"), [], "must be an object with fields"),
    (("methods", "millpond", "costs", "frame_s"), -0.1, "frame_s must be a finite number, 0 or more"),
    (("methods", "millpond", "costs", "frame_s"), 1e-300, "frame_s must be 0, or 1e-12 and more"),
    (("methods", "millpond", "costs", "kv_bytes"), 10**400, "kv_bytes must be a finite number"),
    (("methods", "millpond", "about"), "two\nlines", "about must be a text on one line"),
    (("methods", "millpond", "missing"), {}, "missing must be a list of at most 500 objects"),
    (("methods", "millpond", "by_type"), {str(n): made.shares(1) for n in range(501)}, "at most 500 objects"),
    (("methods",), ["millpond"], "methods must be an object"),
    (("methods", "millpond"), 3, "must be an object with fields; got 3"),
    (("commit",), None, "commit must be a text"),
    (("machine",), "x" * 5000, "machine must be a text of at most 1000 characters"),
    (("command",), "", "command must be a text"),
    (("command",), "a\x1b[2Jb", "command must be a text on one line"),
    (("suite",), 7, "suite must be a text"),
]


@pytest.mark.parametrize(("path", "value", "said"), WRONG, ids=lambda one: str(one)[:40])
def test_a_wrong_value_is_refused_with_file_and_field(tmp_path: Path, path: Any, value: Any, said: str) -> None:
    result = made.usual()
    inner: Any = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=f"^one.json.*({said})"):
        made.page(tmp_path, one=result)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "one.json: cannot be read, got JSONDecodeError"),
        (b"\xff\xfe{", "one.json: cannot be read, got "),
        (b"[]", "one.json: must be an object with fields"),
        (b"{}", "one.json: command must be a text"),
        (b"[" * 100_000, "one.json: cannot be read, got RecursionError"),
        (b'{"command": NaN}', "JSON has no such number, got NaN"),
        (b'{"commit": "a", "commit": "b"}', "each key stands once"),
        (b'{"command": "a", "machine": "b", "commit": "c"}', "must be of millpond eval, bench real or bench mini"),
        (b" " * (16 * 2**20 + 1), "a file of at most 16777216 bytes is wanted"),
    ],
    ids=lambda one: str(one)[:30],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    folder = made.write(tmp_path / "results")
    (folder / "one.json").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        page_of(folder, tmp_path / "results.md")


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="results are a folder"):
        page_of(tmp_path / "none", tmp_path / "results.md")
    with pytest.raises(ValueError, match="1 to 100 JSON files; got 0"):
        page_of(tmp_path, tmp_path / "results.md")
    (tmp_path / "a](x).json").write_text("{}")
    with pytest.raises(ValueError, match="a result's name is words of letters and digits"):
        page_of(tmp_path, tmp_path / "results.md")


HOSTILE = "<script>alert(1)</script>|**x** [a](http://b) `c` ![d](e) &amp; \\ $y$ \u202e\u2028 _z_ ~~w~~ # - "


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    result = made.usual()
    result["methods"][HOSTILE] = made.method("last-4", 50, about=HOSTILE)
    result["methods"]["millpond"]["by_type"] = {HOSTILE: made.shares(50)}
    result["methods"]["millpond"]["broken"] = [{"video": HOSTILE, "reason": HOSTILE, "num_questions": 1}]
    result |= {"command": HOSTILE, "machine": HOSTILE, "commit": HOSTILE, "suite": HOSTILE}
    clean, dirty = made.page(tmp_path, one=made.usual()), made.page(tmp_path, one=result)
    outside_code = re.sub(r"^```.*?^```$", "", dirty.text, flags=re.MULTILINE | re.DOTALL)
    assert "<script" not in outside_code and "](http" not in outside_code and "**x**" not in outside_code
    assert "\u202e" not in dirty.text and "\u2028" not in dirty.text
    assert "<script" not in dirty.figures["one"]
    titles = [group.find(f"{SVG}title").text for group in marks(dirty.figures["one"])]  # type: ignore[union-attr]
    assert any(title.startswith("<script>") for title in titles if title)  # as text
    first = [
        [row.count("|") for row in text.splitlines() if row.startswith("|")] for text in (clean.text, outside_code)
    ]
    assert set(first[0][:9]) == set(first[1][:10])


def test_a_command_with_fences_stays_in_its_block(tmp_path: Path) -> None:
    text = made.page(tmp_path, one={**made.usual(), "command": "a ``` b ```` c"}).text
    assert "\n`````\na ``` b ```` c\n`````\n" in text


@given(st.text(max_size=60))
def test_escaped_text_has_no_sign_that_means_something(text: str) -> None:
    shown = re.sub(r"&#[0-9]+;", "", plain(text))
    assert not set(shown) & set('<>|*_`[]\\~$#!&"@:{}\n\r')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(RESULTS)), data=st.data())
def test_any_value_anywhere_is_a_page_or_a_sentence(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    result = copy.deepcopy(RESULTS[kind])
    path = data.draw(st.sampled_from(sorted(made.leaves(result), key=str)))
    path = path[: data.draw(st.integers(1, len(path)))]
    inner: Any = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = data.draw(json_values)
    try:
        made_page = made.page(tmp_path, one=result)
    except ValueError as error:
        assert str(error).startswith("one.json") or "no suite named" in str(error)
    else:
        for svg in made_page.figures.values():
            ElementTree.fromstring(svg)
        json.dumps(made_page.text).encode("utf-8")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.00012, "0.00012"),
        (0.123, "0.123"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234, "1234"),
    ],
)
def test_figures_have_three_digits_or_so(value: float, shown: str) -> None:
    assert figure(value) == shown

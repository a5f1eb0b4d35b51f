"""The results page: every number comes from the JSON, what it says follows from it, and hostile files stay text."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from millpond.pipeline.cli_page import page as page_command
from millpond.pipeline.eval.page import page_of, write_page

from . import result_files as made

ROOT = Path(__file__).parent.parent
SVG = "{http://www.w3.org/2000/svg}"

in_checkout = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the docs are not beside the tests")


# Every number comes from the JSON.


# What a result holds and no page shows.
UNSHOWN = {
    "num_right", "num_frames", "config", "method", "num_parameters", "stc_every", "num_decoded", "repeats",
    "num_worlds",
}  # fmt: skip
# Of bench mini the first length stands there twice.
TWICE = ("accuracy", "interval", "num_questions", "blind_accuracy", "by_type")
RESULTS = {"suite": made.usual(), "mini": made.mini(), "real": made.real()}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_changed_number_or_word_changes_the_page(tmp_path: Path, kind: str) -> None:
    result = RESULTS[kind]
    before = made.page(tmp_path, one=result)
    num_changed = 0
    for path in made.leaves(result):
        if UNSHOWN & set(path) or (kind == "mini" and path[0] in TWICE):
            continue
        changed = copy.deepcopy(result)
        inner: Any = changed
        for key in path[:-1]:
            inner = inner[key]
        was = inner[path[-1]]
        shared = {"accuracy", "interval", "changed_share", "recomputed_share", "blind_accuracy"} & set(map(str, path))
        if kind == "suite" and path[-1] == "num_questions" and {"by_type", "by_category", "by_length"} & set(path):
            continue  # the page has it of all questions, for a method
        if isinstance(was, str):
            if path[-1] == "suite":
                continue  # the name of one there is
            inner[path[-1]] = was + "x"
        elif shared:
            # Within its interval, and a limit outwards.
            inner[path[-1]] = was + (0.004 if path[-1] != 0 else -0.004)
        elif path[-1] == 0:
            inner[path[-1]] = was * 0.9
        else:
            inner[path[-1]] = was + 1 if isinstance(was, int) and was < 1000 else was * 1.07
        try:
            after = made.page(tmp_path, one=changed)
        except ValueError as error:
            pytest.fail(f"{path}: {error}")
        assert after.text != before.text, f"{path} is not on the page"
        num_changed += 1
    assert num_changed > 20


def test_figures_follow_the_json_too(tmp_path: Path) -> None:
    result = made.usual()
    before = made.page(tmp_path, one=result).figures["one"]
    for cost in ("frame_s", "kv_bytes", "ttft_s"):
        changed = copy.deepcopy(result)
        changed["methods"]["rekv"]["costs"][cost] *= 0.5
        assert made.page(tmp_path, one=changed).figures["one"] != before
    changed = copy.deepcopy(result)
    changed["methods"]["rekv"]["interval"][0] -= 0.05
    assert made.page(tmp_path, one=changed).figures["one"] != before


def test_beside_the_numbers_stand_command_hardware_and_commit(tmp_path: Path) -> None:
    text = made.page(tmp_path, one=made.usual(), two=made.real(), three=made.mini()).text
    for section in text.split("\n## ")[1:]:
        head, table = section.split("\n| ", 1)
        assert f"```\n{made.ORIGIN['command']}\n```" in head
        assert f"Hardware: {made.ORIGIN['machine'].replace('_', '&#95;')}." in head
        assert made.ORIGIN["commit"] in head
        assert re.search(r"\[\w+\.json\]\(results/\w+\.json\)", head)
        assert table.count("|") > 20


def test_a_method_that_another_command_measured_has_its_own_beside_it(tmp_path: Path) -> None:
    result = made.usual()
    others = {"command": "python demos/kvpress_peer.py score jsonl", "machine": "another", "commit": "9f9f9f9"}
    result["methods"]["kvpress-snapkv-50"] = made.method("kvpress-snapkv-50", 50, **others)
    text = made.page(tmp_path, one=result).text
    assert "\nBut <code>kvpress-snapkv-50</code>:\n\n```\npython demos/kvpress_peer.py score jsonl\n```\n" in text
    assert "Hardware: another. Commit: <code>9f9f9f9</code>." in text
    del result["methods"]["kvpress-snapkv-50"]["commit"]
    with pytest.raises(ValueError, match="commit must be a text"):
        made.page(tmp_path, one=result)


def test_the_table_has_every_method_with_its_figures(tmp_path: Path) -> None:
    text = made.page(tmp_path, one=made.usual()).text
    head, _, *rows = [line for line in text.splitlines() if line.startswith("|")][:9]
    assert [cell.strip() for cell in head.split("|")[1:-1]] == [
        *("method", "right", "real-time", "backward"),
        *("wall time per frame, ms", "keys and values kept, MiB", "time to first token, ms", "questions"),
    ]
    assert "| method | <code>1 min</code> | <code>10 min</code> |" in text
    names = [re.search("<code>(.*)</code>", row)[1] for row in rows]  # type: ignore[index]
    assert names == ["last-4", "codec-int8", "rekv", "millpond", "uniform-16", "fifo-16", "blind"]  # best first
    ours = rows[3]
    assert "(defaults)" in ours and "0.800 (0.711 to 0.867)" in ours
    # On the front of time to first token alone: fifo-16 and last-4 are others'.
    assert ours.endswith("| 20.0 | 4.00 | **40.0** | 100 |")


def test_of_the_small_part_it_is_said_that_tests_ask_it_again(tmp_path: Path) -> None:
    text = made.page(tmp_path, one=made.usual(), small=made.usual()).text
    assert text.count("The tests ask this part again") == 1
    assert "The tests ask this part again" in text.split("## small")[1]


def test_the_same_json_makes_the_same_files_and_another_folder_only_other_links(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "docs" / "results", one=made.usual(), two=made.real())
    to = tmp_path / "docs" / "results.md"
    write_page(folder, to)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.name for path in files} == {"one.json", "two.json", "results.md", "one.svg"}
    write_page(folder, to)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    elsewhere = tmp_path / "elsewhere" / "page.md"
    write_page(folder, elsewhere)
    assert (elsewhere.parent / "page" / "one.svg").read_bytes() == files[folder / "one.svg"]
    text = elsewhere.read_text()
    assert "(../docs/results/one.json)" in text and "(page/one.svg)" in text
    back = text.replace("../docs/results/", "results/").replace("(page/", "(results/")
    assert back == to.read_text()


def test_links_lead_to_folders_of_any_name(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "a (b) c", one=made.usual())
    text = page_of(folder, tmp_path / "my page.md").text
    assert "[one.json](a%20%28b%29%20c/one.json)" in text and "](my%20page/one.svg)" in text


def test_the_command_writes_it_and_says_where(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "results", one=made.usual())
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(page_command)
    done = CliRunner().invoke(app, ["--from", str(folder), "--to", str(tmp_path / "results.md")])
    assert done.exit_code == 0, done.output
    assert "results.md" in done.stdout and "one.svg" in done.stdout
    assert (tmp_path / "results.md").read_text() == page_of(folder, tmp_path / "results.md").text
    wrong = CliRunner().invoke(app, ["--from", str(folder), "--to", str(tmp_path / "results.html")])
    assert "a page is a file of .md" in str(wrong.exception)


@in_checkout
def test_the_committed_page_is_what_the_committed_json_makes() -> None:
    """Where this fails: run `millpond page`."""
    folder, to = ROOT / "docs" / "results", ROOT / "docs" / "results.md"
    expected = page_of(folder, to)
    assert to.read_text(encoding="utf-8") == expected.text
    figures = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.svg")}
    assert figures == expected.figures

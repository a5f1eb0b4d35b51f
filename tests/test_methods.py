"""Methods by name: `millpond list` prints every row of every table, and the command line takes them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from inspect import getdoc
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from millpond.encoders import Text
from millpond.encoders.compressors import COMPRESSORS
from millpond.encoders.families.base_hf import HFVideoLLM
from millpond.encoders.reuse import REUSERS
from millpond.encoders.selectors import SELECTORS
from millpond.encoders.sight import Need
from millpond.memory import CODECS, EVICTORS, PRUNERS, RETRIEVERS, TIERS
from millpond.memory.depots import DEPOTS
from millpond.memory.recall_gate import RECALL_GATES
from millpond.pipeline.cli import main
from millpond.pipeline.methods import KINDS, Method, as_markdown, as_text, list_of
from millpond.stream import GATES, SAMPLERS, Frame, Source, Table

from .clips import make_clip
from .test_similarity import save_siglip

TABLES: dict[str, Table[Any]] = {
    "samplers": SAMPLERS,
    "gates": GATES,
    "selectors": SELECTORS,
    "reusers": REUSERS,
    "compressors": COMPRESSORS,
    "pruners": PRUNERS,
    "codecs": CODECS,
    "tiers": TIERS,
    "evictors": EVICTORS,
    "depots": DEPOTS,
    "recall gates": RECALL_GATES,
    "retrievers": RETRIEVERS,
}
ROWS = [(kind, name) for kind in TABLES for name in TABLES[kind]]
CLIP = "synthetic://shapes?seed=5&duration_s=6&width=96&height=96"
QUESTION = "What appeared first?"
ANSWER_KEYS = ["question", "text", "asked_at_s", "seen_until_s", "used", "timing", "tokens"]
KEYS = ["kind", "name", "stage", "about", "source", "needs", "is_offline_as_published"]


class Done(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


@pytest.fixture
def millpond(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`millpond ...`, run in this process."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["millpond", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            return Done(int(end.code or 0), *capsys.readouterr())
        return Done(0, *capsys.readouterr())

    return run


@pytest.fixture
def brief(tmp_path: Path) -> Path:
    """Settings for short answers, and for a window that the clip does not fit into."""
    config = tmp_path / "brief.toml"
    config.write_text("max_new_tokens = 3\n[memory]\nrecent_frames = 2\n", encoding="utf-8")
    return config


def the(kind: str, name: str) -> Method:
    (method,) = [method for method in list_of(kind) if method.name == name]
    return method


def test_every_table_is_listed() -> None:
    assert {kind: table for kind, (table, _) in KINDS.items()} == TABLES
    assert [(method.kind, method.name) for method in list_of()] == ROWS
    for kind in TABLES:
        assert [method.name for method in list_of(kind)] == list(TABLES[kind])


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_a_row_says_what_its_docstring_says(kind: str, name: str) -> None:
    method, row = the(kind, name), TABLES[kind][name]
    doc = " ".join((getdoc(row) or "").split())
    assert method.about and doc.startswith(method.about)
    assert method.source in doc and (method.source or "Paper:" not in doc)
    assert not method.source.startswith(("Paper", "Differs")) and "Differs" not in method.source
    assert method.needs == tuple(sorted(need.value for need in getattr(row, "needs", ())))
    assert method.is_offline_as_published == getattr(row, "is_offline_as_published", False)
    assert method.stage == KINDS[kind][1]


@pytest.mark.parametrize("kind", ["selectors", "reusers", "compressors"])
def test_methods_on_the_way_to_the_model_name_a_paper_or_a_baseline(kind: str) -> None:
    for method in list_of(kind):
        is_paper = "(arXiv " in method.source and method.source.rstrip(".").endswith(")")
        assert is_paper or method.source.startswith("Baseline: "), method


def test_what_is_known_of_some_rows() -> None:
    drop = the("compressors", "temporal_drop")
    assert drop.source.endswith("(arXiv 2504.17343)") and drop.needs == () and not drop.is_offline_as_published
    assert the("compressors", "vidcom2").is_offline_as_published
    assert the("compressors", "temporal_merging").needs == (Need.TEXT.value,) == the("selectors", "text").needs
    assert the("compressors", "hired").needs == tuple(sorted((Need.CLS.value, Need.RECEIVED.value)))
    assert the("compressors", "none").source.startswith("Baseline: ")


def test_people_read_every_row_under_its_kind(millpond: Run) -> None:
    status, out, err = millpond("list")
    assert (status, err, out) == (0, "", as_text(list_of()) + "\n")
    shown: dict[str, list[str]] = {}
    for line in out.splitlines():
        if line and not line.startswith(" "):
            kind = line.split(" (")[0]
            shown[kind] = []
        elif line[:3].strip():
            shown[kind].append(line.split()[0])
    assert shown == {kind: list(table) for kind, table in TABLES.items()}
    assert "A causal variant: the paper looks at the whole video." in out
    assert "Needs a question." in out


def test_json_has_an_object_for_each_row(millpond: Run) -> None:
    done = millpond("list", "--json")
    records = done.records
    assert (done.status, done.err) == (0, "")
    assert [(record["kind"], record["name"]) for record in records] == ROWS
    for record in records:
        assert list(record) == KEYS
        assert isinstance(record["needs"], list) and isinstance(record["is_offline_as_published"], bool)


def test_markdown_has_a_table_for_each_kind(millpond: Run) -> None:
    status, out, err = millpond("list", "--markdown")
    assert (status, err, out) == (0, "", as_markdown(list_of()) + "\n")
    tables = [part.splitlines() for part in out.strip().split("\n\n")]
    assert [table[0].split("|")[1].strip() for table in tables] == list(TABLES)
    for table, kind in zip(tables, TABLES, strict=True):
        assert table[1] == "|---|---|---|"
        assert [row.split("`")[1] for row in table[2:]] == list(TABLES[kind])
        # A bar in a cell would be one more column.
        assert {row.count("|") for row in table} == {4}


def test_one_kind_can_be_asked_for(millpond: Run) -> None:
    assert [record["name"] for record in millpond("list", "reusers", "--json").records] == list(REUSERS)
    assert millpond("list", "gates").out == as_text(list_of("gates")) + "\n"
    told = f"millpond: no kind of method named 'gardens'; there are: {', '.join(TABLES)}\n"
    assert millpond("list", "gardens") == Done(2, "", told)


# Chosen by name.


@pytest.mark.parametrize(
    "options",
    [
        "--gate difference",
        "--reuse none",
        "--reuse stc",
        "--reuse delta --compress temporal_drop",
        "--compress temporal_merging",
        "--select uniform --frames 4",
        "--select text --frames 3 --compress mmtok",
        "--select thumbnails --frames 4 --gate difference --reuse stc --compress difference_pruning",
    ],
)
def test_methods_are_chosen_by_name(millpond: Run, brief: Path, options: str) -> None:
    done = millpond("ask", CLIP, QUESTION, *options.split(), "--config", brief, "--json")
    (record,) = done.records
    assert (done.status, done.err, list(record)) == (0, "", ANSWER_KEYS)
    assert record["used"] and record["seen_until_s"] <= 5.0


def test_only_what_a_selector_chooses_is_looked_at(millpond: Run, brief: Path) -> None:
    select = ["--select", "uniform", "--frames", "2", "--config", brief, "--json"]
    (record,) = millpond("ask", CLIP, QUESTION, *select).records
    assert (record["used"], record["seen_until_s"]) == ([[1.0, 1.0], [4.0, 4.0]], 4.0)
    (record,) = millpond("summarize", CLIP, *select).records
    assert (record["start_s"], record["end_s"]) == (1.0, 4.0)


def test_the_model_is_told_how_to_read_a_picture_card(
    millpond: Run, brief: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    word = HFVideoLLM.question

    def question(self: HFVideoLLM, text: str) -> Text:
        asked.append(text)
        return word(self, text)

    monkeypatch.setattr(HFVideoLLM, "question", question)
    (record,) = millpond(
        "ask", CLIP, QUESTION, "--select", "grid", "--frames", "4", "--config", brief, "--json"
    ).records
    assert record["question"] == QUESTION
    assert asked[-1].startswith("One picture shows 4 frames of the video in 2 rows and 2 columns, in order of time")
    assert asked[-1].endswith(f" {QUESTION}")


def refused(done: Done) -> str:
    """The sentence."""
    assert (done.status, done.out) == (2, ""), done
    assert done.err.startswith("millpond: ") and done.err.count("\n") == 1, done.err
    return done.err


def test_a_method_that_needs_a_question_where_there_is_none(millpond: Run) -> None:
    told = refused(millpond("narrate", CLIP, "--compress", "temporal_merging"))
    assert "TemporalMerging needs a question, which stream 'stream' does not offer; take another: millpond list" in told
    assert "TextSelector needs a question" in refused(millpond("summarize", CLIP, "--select", "text"))


class Live(Source):
    def __init__(self) -> None:
        super().__init__("rtsp://user:secret@door/1", stream_id="door", is_live=True)

    def __iter__(self) -> Iterator[Frame]:
        raise AssertionError("read")


def test_frames_of_a_live_stream_are_not_selected(millpond: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millpond.pipeline.opening.open_source", lambda _uri, **_settings: Live())
    for command in (["ask", "rtsp://door/1", QUESTION], ["summarize", "rtsp://door/1"]):
        told = refused(millpond(*command, "--select", "uniform"))
        assert "are selected from recordings" in told and "got the live rtsp://" in told and "secret" not in told


def test_keep_says_how_many_tokens_a_compressor_keeps(millpond: Run, brief: Path, tmp_path: Path) -> None:
    few = millpond("ask", CLIP, QUESTION, "--config", brief, "--compress", "uniform", "--keep", "4", "--json")
    assert (few.status, few.err) == (0, "") and list(few.records[0]) == ANSWER_KEYS
    config = tmp_path / "rows.toml"
    config.write_text(brief.read_text(encoding="utf-8") + '[compressor]\nname = "todre"\n', encoding="utf-8")
    assert millpond("narrate", CLIP, "--config", config, "--keep", "4").status == 0
    for given, said in ((("--keep", "4"), "NoCompressor takes no count"), (("--keep", "0"), "keep_tokens must be at")):
        compress = () if "takes" in said else ("--compress", "uniform")
        done = millpond("ask", CLIP, QUESTION, *compress, *given)
        assert done.status == 2 and said in done.err


def test_motion_vectors_are_read_where_there_is_a_codec(millpond: Run, tmp_path: Path) -> None:
    config = tmp_path / "motion.toml"
    config.write_text("motion_vectors = true\nmax_new_tokens = 3\n", encoding="utf-8")
    for source in (CLIP, make_clip(tmp_path / "clip.mp4", 60)):
        done = millpond("ask", source, QUESTION, "--config", config, "--json")
        assert (done.status, done.err) == (0, "") and list(done.records[0]) == ANSWER_KEYS


def test_siglip_may_say_what_fits_a_question(millpond: Run, brief: Path, tmp_path: Path) -> None:
    folder = save_siglip(tmp_path / "siglip")
    chosen = ("--select", "text", "--frames", "3", "--config", brief, "--json")
    done = millpond("ask", CLIP, QUESTION, *chosen, "--similarity", folder)
    assert done.status == 0 and list(done.records[0]) == ANSWER_KEYS
    refused = millpond("ask", CLIP, QUESTION, *chosen, "--similarity", tmp_path)
    assert refused.status == 2 and str(tmp_path) in refused.err and refused.err.count("\n") == 1

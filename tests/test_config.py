"""Settings: from keywords, mappings or a TOML file; what does not belong is refused with a hint."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from millpond.memory import MemoryConfig
from millpond.pipeline import EngineConfig, NarrationConfig, Prompts


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert EngineConfig.from_toml(written(tmp_path, "")) == EngineConfig() == EngineConfig.from_dict({})


def test_a_file_sets_what_it_names(tmp_path: Path) -> None:
    text = """
        model = "some/folder"
        fps = 2
        gate = "difference"
        [memory]
        recent_frames = 3
        budget_bytes = 1_000_000
        retriever = "recent"
        [narration]
        min_gap_s = 1
        change_levels = 12.5
        [prompts]
        first = "Was siehst du?"
        news = "Was ist neu seit {since} s?"
        summary = "Fasse zusammen."
        recount = "Notizen: {log}"
        silent = ["nichts"]
    """
    assert EngineConfig.from_toml(written(tmp_path, text)) == EngineConfig(
        model="some/folder",
        fps=2,
        gate="difference",
        memory=MemoryConfig(recent_frames=3, budget_bytes=1_000_000, retriever="recent"),
        narration=NarrationConfig(min_gap_s=1, change_levels=12.5),
        prompts=Prompts(
            first="Was siehst du?",
            news="Was ist neu seit {since} s?",
            summary="Fasse zusammen.",
            recount="Notizen: {log}",
            silent=("nichts",),
        ),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle = 'x'", "there is no setting 'modle'; did you mean 'model'?"),
        ("zzz = 1", "there is no setting 'zzz'; there are: chunk_frames, device, "),
        ("[memory]\nrecent_frame = 1", r"no setting 'recent_frame' in \[memory\]; did you mean 'recent_frames'"),
        ("[narration]\nmax_gap = 1", r"there is no setting 'max_gap' in \[narration\]; did you mean 'max_gap_s'"),
        ("memory = 3", r"\[memory\] must be a table of settings; got 3"),
        ("narration = ['x']", r"\[narration\] must be a table of settings"),
        ("fps = 'fast'", "'fps' must be float; got 'fast'"),
        ("fps = true", "'fps' must be float; got True"),
        ("fps = 0", "fps must be finite and more than 0; got 0"),
        ("fps = nan", "fps must be finite and more than 0; got nan"),
        ("fps = inf", "fps must be finite and more than 0; got inf"),
        ("chunk_frames = 1.5", "'chunk_frames' must be int; got 1.5"),
        ("chunk_frames = 0", "chunk_frames must be a whole number, at least 1; got 0"),
        ("max_new_tokens = -1", "max_new_tokens must be a whole number"),
        ("max_side_px = 0", "max_side_px must be a whole number"),
        ("max_side_px = '10'", r"'max_side_px' must be int \| None; got '10'"),
        ("model = 7", "'model' must be str; got 7"),
        ("gate = 'garden'", "no gate named 'garden'; there are: difference, none"),
        ("[memory]\nbudget_bytes = -1", "budget_bytes must be a whole number, at least 0; got -1"),
        ("[memory]\nbudget_bytes = '1 GB'", r"'budget_bytes' in \[memory\] must be int; got '1 GB'"),
        ("[memory]\ncodec = 'zip'", "no codec named 'zip'; there are: plain"),
        ("[memory]\ncodec = 1", r"'codec' in \[memory\] must be str"),
        ("[narration]\nmin_gap_s = 20", "narration needs 0 <= min_gap_s <= max_gap_s; got min_gap_s=20"),
        ("[narration]\nchange_levels = 300", "change_levels is in levels of 0 to 255; got 300"),
        ("[narration]\nmax_new_tokens = 0", "max_new_tokens must be a whole number"),
        ("[prompts]\nfirst = 'What?'", r"settings are missing in \[prompts\]: got first; add news, summary, recount"),
        ("[prompts]\nfirst='a'\nnews='b'\nsummary='c'\nrecount='{log}'", r"prompt 'news' must have one place {since}"),
        ("fps = ", "settings.toml' is not TOML: "),
        ("fps = 1\nfps = 2", "settings.toml' is not TOML: "),
    ],
)
def test_what_does_not_belong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        EngineConfig.from_toml(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no.toml' cannot be read: No such file or directory; give a TOML file"):
        EngineConfig.from_toml(tmp_path / "no.toml")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        EngineConfig.from_toml(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"binary.toml' is not TOML"):
        EngineConfig.from_toml(tmp_path / "binary.toml")


@pytest.mark.parametrize("kind", [EngineConfig, NarrationConfig, MemoryConfig])
def test_every_setting_is_explained_and_has_a_default(kind: type[Any]) -> None:
    assert is_dataclass(kind) and kind() == kind()
    with pytest.raises(TypeError, match="positional"):
        kind(1)
    source = Path(__import__("inspect").getfile(kind)).read_text(encoding="utf-8")
    for one in fields(kind):
        after = source.split(f"\n    {one.name}: ", 1)[1]
        assert after.split("\n", 2)[1].strip().startswith('"""'), f"{one.name} says nothing about itself"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="cannot assign to field 'fps'"):
        EngineConfig().fps = 3.0  # type: ignore[misc]


def test_a_narration_may_never_be_due_by_time_alone() -> None:
    assert NarrationConfig(max_gap_s=math.inf).max_gap_s == math.inf
    with pytest.raises(ValueError, match="narration needs 0 <= min_gap_s"):
        NarrationConfig(min_gap_s=math.nan)

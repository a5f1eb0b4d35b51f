"""Settings: from keywords, mappings or a TOML file; what does not belong is refused with a hint."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from millpond.encoders.compressors import COMPRESSORS, Budget
from millpond.encoders.compressors.temporal import TemporalDrop
from millpond.encoders.reuse import REUSERS
from millpond.encoders.reuse.delta import DeltaReuse
from millpond.encoders.reuse.none import NoReuse
from millpond.encoders.selectors import SELECTORS
from millpond.encoders.selectors.card import GridSelector
from millpond.memory import MemoryConfig
from millpond.pipeline import EngineConfig, NarrationConfig, Prompts
from millpond.stream import GATES, Table
from millpond.stream.change import ChangeRule
from millpond.stream.gates import DifferenceGate

from .watched import mini


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


def test_methods_have_settings_of_their_own(tmp_path: Path) -> None:
    text = """
        [gate]
        name = "difference"
        threshold = 4
        [reuse]
        name = "delta"
        falls_back = false
        [reuse.rule]
        cut_share = 0.5
        [compressor]
        name = "temporal_drop"
        refresh_blocks = 9
        [compressor.at_most]
        tokens_per_s = 100
        floor_tokens = 2
        [selector]
        name = "grid"
        cells = 4
    """
    given = EngineConfig.from_toml(written(tmp_path, text))
    assert given == EngineConfig(
        gate=DifferenceGate(threshold=4),
        reuse=DeltaReuse(falls_back=False, rule=ChangeRule(cut_share=0.5)),
        compressor=TemporalDrop(refresh_blocks=9, at_most=Budget(tokens_per_s=100, floor_tokens=2)),
        selector=GridSelector(cells=4),
    )
    made = (given.made_gate(), given.made_reuser(mini()), given.made_compressor(), given.made_selector())
    assert made == (given.gate, given.reuse, given.compressor, given.selector)
    assert EngineConfig.from_dict(vars(given)) == given


@pytest.mark.parametrize(
    ("key", "table"), [("gate", GATES), ("reuse", REUSERS), ("compressor", COMPRESSORS), ("selector", SELECTORS)]
)
def test_every_row_can_be_named_either_way(key: str, table: Table[Any]) -> None:
    for name in table:
        row = EngineConfig.from_dict({key: {"name": name}})
        assert type(getattr(row, key)) is table[name] and getattr(row, key) == table[name]()
        assert getattr(EngineConfig.from_dict({key: name}), key) == name
    with pytest.raises(ValueError, match=rf"{key} must be a name or a \w+; got 3; see: millpond list"):
        EngineConfig(**{key: 3})  # type: ignore[arg-type]


def test_reuse_is_what_the_model_allows_unless_it_is_named() -> None:
    no_tower = copy(mini())
    no_tower.__dict__.pop("tower", None)
    no_tower.__class__ = type("NoTower", (type(no_tower),), {"tower": None})
    assert EngineConfig().made_reuser(mini()) == DeltaReuse()
    assert EngineConfig().made_reuser(no_tower) == NoReuse()
    with pytest.raises(ValueError, match="delta reuse needs a vision tower that can be taken apart"):
        EngineConfig(reuse="delta").made_reuser(no_tower).over(no_tower)
    assert EngineConfig().made_selector() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle = 'x'", "there is no setting 'modle'; did you mean 'model'?"),
        ("zzz = 1", "there is no setting 'zzz'; there are: chunk_frames, compressor, device, "),
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
        ("[memory]\ncodec = 'zip'", "no codec named 'zip'; there are: adaptive, fp8, int2, int4, "),
        ("[memory]\ncodec = 1", r"'codec' in \[memory\] must be str"),
        ("[narration]\nmin_gap_s = 20", "narration needs 0 <= min_gap_s <= max_gap_s; got min_gap_s=20"),
        ("[narration]\nchange_levels = 300", "change_levels is in levels of 0 to 255; got 300"),
        ("[narration]\nmax_new_tokens = 0", "max_new_tokens must be a whole number"),
        ("[prompts]\nfirst = 'What?'", r"settings are missing in \[prompts\]: got first; add news, summary, recount"),
        ("[prompts]\nfirst='a'\nnews='b'\nsummary='c'\nrecount='{log}'", r"prompt 'news' must have one place {since}"),
        ("fps = 2020-01-01", "'fps' must be float; got datetime.date"),
        ("reuse = 'x'", "no reuser named 'x'; there are: delta, none, stc"),
        ("compressor = 'x'", "no compressor named 'x'; there are: difference_pruning, fastervlm, "),
        ("selector = 'x'", "no selector named 'x'; there are: change, grid, keyframes, text, thumbnails, uniform"),
        ("compressor = 3", "'compressor' must be str . Compressor; got 3"),
        ("gate = ['none']", r"'gate' must be str . Gate; got \['none'\]"),
        ("reuse_budget_bytes = -1", "reuse_budget_bytes must not be negative; got -1"),
        ("select_frames = 0", "select_frames must be a whole number, at least 1; got 0"),
        ("[compressor]\nkeep_tokens = 3", r"\[compressor\] needs a name; got None; there are: difference_pruning, "),
        ("[selector]\nname = 3", r"\[selector\] needs a name; got 3; there are: change, grid"),
        ("[gate]\nname = 'garden'", "no gate named 'garden'; there are: difference, none"),
        ("[gate]\nname = 'none'\nx = 1", r"there is no setting 'x' in \[gate\]; there are: none"),
        ("[compressor]\nname = 'tome'\nkeep_token = 3", r"'keep_token' in \[compressor\]; did you mean 'keep_tokens'"),
        ("[compressor]\nname = 'tome'\nkeep_tokens = 'x'", r"'keep_tokens' in \[compressor\] must be int; got 'x'"),
        ("[compressor]\nname = 'tome'\nat_most = 9", r"\[compressor.at_most\] must be a table of settings; got 9"),
        (
            "[compressor]\nname = 'tome'\n[compressor.at_most]\ntokens = 1",
            r"'tokens' in \[compressor.at_most\]; did you",
        ),
        ("[reuse]\nname = 'delta'\nfalls_back = 'no'", r"'falls_back' in \[reuse\] must be bool; got 'no'"),
        ("[reuse]\nname = 'delta'\n[reuse.rule]\ncut_share = 'x'", r"'cut_share' in \[reuse.rule\] must be float; got"),
        ("[compressor]\nname = 'tome'\nkeep_tokens = 0", "keep_tokens must be at least 1; got 0"),
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

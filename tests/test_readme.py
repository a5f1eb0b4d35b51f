"""What the README shows is run: its Python, its commands' names, its tour of the files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="not in a checkout")


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_runs_and_says_what_it_should(tmp_path: Path) -> None:
    blocks = "\n".join(re.findall(r"```python\n(.*?)```", readme(), re.DOTALL))
    done = subprocess.run([sys.executable, "-c", blocks], capture_output=True, text=True, check=True, cwd=tmp_path)
    first, of_two, robot, second = done.stdout.splitlines()
    assert re.match(r"\w+ \w+ 13\.0 \(Span\(0\.000\.\.13\.000 s\),\) Timing\(", first)
    assert of_two == first[: first.index(" 13.0")], "the same world, whoever watches it"
    assert robot == "(24, 192) ('top',) True"
    assert second.startswith("Kept(") and (tmp_path / "memories" / "door" / "millpond.json").exists()


def test_every_command_shown_exists() -> None:
    from millpond.pipeline.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    shown = set(re.findall(r"^(?:\$ )?millpond ([a-z]+)", readme(), re.MULTILINE))
    assert shown <= commands.keys() and {"narrate", "ask", "summarize", "models", "sources", "bench"} <= shown
    options = {o for c in commands.values() for p in c.params for o in p.opts}
    assert set(re.findall(r"(?<=[\s`])--[a-z][a-z\-]*[a-z]", readme())) - {"--out", "--export"} <= options


def test_the_tour_names_files_that_are_there() -> None:
    named = set(re.findall(r"`((?:stream|memory|encoders|pipeline|demos|tests)/[\w/]+\.py)`", readme()))
    assert named and not [name for name in named if not (ROOT / name).exists()]
    rows = dict(re.findall(r"^\| `(\w+)/` \| (.*) \|$", readme(), re.MULTILINE))
    assert rows.keys() == {"stream", "memory", "encoders", "pipeline", "demos", "tests"}
    told = [f"{folder}/{name}" for folder, cell in rows.items() for name in re.findall(r"`([\w/]+\.py|\w+/)`", cell)]
    assert len(told) > 30 and not [name for name in told if not (ROOT / name).exists()]


def test_the_settings_shown_are_settings(tmp_path: Path) -> None:
    from millpond.pipeline import EngineConfig

    _, block = re.findall(r"```toml\n(.*?)```", readme(), re.DOTALL)
    (tmp_path / "settings.toml").write_text(block, encoding="utf-8")
    config = EngineConfig.from_toml(tmp_path / "settings.toml")
    assert type(config.reuse).__name__ == "DeltaReuse" and type(config.compressor).__name__ == "TemporalDrop"


def test_the_service_shown_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    from millpond.pipeline.serve import read_config

    service, _ = re.findall(r"```toml\n(.*?)```", readme(), re.DOTALL)
    monkeypatch.setenv("MILLPOND_HOOK_SECRET", "a secret of sixteen letters or more")
    (tmp_path / "millpond.toml").write_text(service, encoding="utf-8")
    config = read_config(tmp_path / "millpond.toml")
    assert [one.id for one in config.streams] == ["front-door"] and [one.id for one in config.alerts] == ["red-circle"]
    assert config.memory_at == str(tmp_path / "kept") and config.server.port == 8321


def test_the_methods_listed_are_those_that_there_are() -> None:
    """`millpond list --markdown` prints what stands there."""
    from millpond.pipeline.methods import as_markdown, list_of

    assert as_markdown(list_of()) in readme()


def test_no_output_is_left_to_be_pasted() -> None:
    assert "@@" not in readme()

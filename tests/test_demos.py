"""Every demo runs with no arguments, or says what it wants."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import pytest
from safetensors import safe_open

DEMOS = Path(__file__).parents[1] / "demos"

pytestmark = pytest.mark.skipif(not DEMOS.is_dir(), reason="not in a checkout")


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ask_while_watching() -> None:
    lines = run(str(DEMOS / "ask_while_watching.py")).splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "left   at  6.0 s",
        "right  at  6.0 s",
        "left   at 13.0 s",
        "right  at 13.0 s",
    ]


def test_make_clip(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    run(str(DEMOS / "make_clip.py"), "synthetic://shapes?seed=3&duration_s=2&width=64&height=48", str(clip))
    with av.open(str(clip)) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.width, video.height) == ("h264", 64, 48)
        assert sum(1 for _ in container.decode(video=0)) == 20


def test_training_starts_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """Two steps of the first stage, an interruption, and a step more: the place is kept, the loss is finite."""
    program = f"""
import sys; sys.path.insert(0, {str(DEMOS)!r})
from dataclasses import replace
from pathlib import Path
import train_mini as t
stages = [replace(s, steps=int(sys.argv[1]), mix=replace(s.mix, clips=2, max_frames=min(2, s.mix.max_frames)))
          for s in t.STAGES[:2]]
t.STAGES = tuple(stages)
t.REPORT_FRAMES = ()
t.main(out=Path({str(tmp_path)!r}), seed=1, export=None, stop_after=sys.argv[2], skip_to="", evaluate_only=False)
"""
    for steps, stage in (("2", "look"), ("3", "one-frame")):
        run("-c", program, steps, stage)
        with safe_open(tmp_path / "state.safetensors", "pt") as state:
            assert state.metadata() == {"stage": stage, "step": steps}
            assert all(state.get_tensor(name).isfinite().all() for name in state.keys())


def test_the_figure_of_compressors_is_drawn(tmp_path: Path) -> None:
    row = {"tokens_per_frame": 10.0, "accuracy": 0.8, "interval": [0.75, 0.84], "num_questions": 339}
    rows = [{**row, "name": "none", "tokens_per_frame": 37.0}, {**row, "name": "todre"}]
    measured = tmp_path / "compress.json"
    measured.write_text(json.dumps({"compressors": rows}))
    run(str(DEMOS / "plot_compressors.py"), str(measured), str(tmp_path / "one.svg"))
    run(str(DEMOS / "plot_compressors.py"), str(measured), str(tmp_path / "two.svg"))
    drawn = (tmp_path / "one.svg").read_text()
    assert "<svg" in drawn and drawn == (tmp_path / "two.svg").read_text()

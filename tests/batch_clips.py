"""What tests of batches share: clips of coloured shapes, who does the work here, and what results must be."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from millpond.pipeline import EngineConfig, NarrationConfig
from millpond.pipeline.batch import BatchSettings, Report, run_batch
from millpond.pipeline.batch.crew import Here
from millpond.stream import open_source

from .clips import H264
from .watched import mini

BRIEF = EngineConfig(device="cpu", max_new_tokens=8, narration=NarrationConfig(max_new_tokens=8))
SHORT = BatchSettings(chunk_s=5, min_chapter_s=4.0)
FILES = ("chapters.json", "summary.txt", "log.jsonl", "captions.srt", "captions.vtt")


def make_shapes(path: Path, *, seed: int = 0, length_s: float = 10.0, rate_hz: int = 4) -> Path:
    """A clip of the world that the built-in model knows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    uri = f"synthetic://shapes?seed={seed}&duration_s={length_s}&rate_hz={rate_hz}&width=160&height=120"
    with open_source(uri) as frames, av.open(str(path), "w") as container:
        video = container.add_stream(H264, rate=Fraction(rate_hz), options={"g": "8", "bf": "0"})
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame.rgb_HW3, format="rgb24")))
        container.mux(video.encode())
    return path


def run_here(given: list[Path], out: Path, **settings: Any) -> Report:
    """A batch in this process, by the built-in model."""
    config, batch = settings.pop("config", BRIEF), settings.pop("settings", SHORT)
    return run_batch(given, out, config=config, settings=batch, crew=Here(config, batch, model=mini()), **settings)


def manifest_of(out: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    return value


def folder_of(out: Path, name: str) -> Path:
    """The folder of results of the file of this name."""
    (entry,) = [one for one in manifest_of(out)["videos"] if Path(one["path"]).name == name]
    return out / str(entry["folder"])


def results_of(out: Path) -> dict[str, bytes]:
    """All that was written of all videos, but for the chunks."""
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in sorted(out.glob("*/*")) if p.is_file()}


def chunks_of(out: Path) -> dict[str, int]:
    """Every chunk that is done, and when it was."""
    return {f"{p.parts[-3]}/{p.name}": p.stat().st_mtime_ns for p in sorted(out.glob("*/chunks/*.json"))}


def check_results(folder: Path) -> None:
    """The files of a video are all there, and what they must be."""
    told = json.loads((folder / "chapters.json").read_text(encoding="utf-8"))
    chapters = told["chapters"]
    assert told["summary"] + "\n" == (folder / "summary.txt").read_text(encoding="utf-8")
    assert chapters[0]["start_s"] == 0 and chapters[-1]["end_s"] == told["length_s"]
    for one, following in pairwise(chapters):
        assert one["start_s"] < one["end_s"] == following["start_s"]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == told["num_lines"] and all(line["text"] and line["kind"] == "narration" for line in lines)
    assert all(0 <= line["start_s"] <= line["end_s"] <= told["length_s"] for line in lines)
    assert [line["start_s"] for line in lines] == sorted(line["start_s"] for line in lines)
    check_captions((folder / "captions.srt").read_text(encoding="utf-8"), is_vtt=False)
    check_captions((folder / "captions.vtt").read_text(encoding="utf-8"), is_vtt=True)


def check_captions(text: str, *, is_vtt: bool) -> list[tuple[int, int, str]]:
    """Reads captions as a strict player would: (start, end, text) in milliseconds."""
    blocks = [block for block in re.split(r"\n\n+", text.strip("\n")) if block]
    point = r"\." if is_vtt else ","
    time = rf"(\d\d+):([0-5]\d):([0-5]\d){point}(\d\d\d)"
    if is_vtt:
        assert blocks.pop(0) == "WEBVTT"
    found: list[tuple[int, int, str]] = []
    for number, block in enumerate(blocks, 1):
        lines = block.split("\n")
        if not is_vtt:
            assert lines.pop(0) == str(number)
        assert len(lines) == 2, f"a caption is a time and a line of words: {block!r}"
        times = re.fullmatch(rf"{time} --> {time}", lines[0])
        assert times is not None, lines[0]
        h, m, s, ms, h2, m2, s2, ms2 = map(int, times.groups())
        start, end = ((h * 60 + m) * 60 + s) * 1000 + ms, ((h2 * 60 + m2) * 60 + s2) * 1000 + ms2
        assert start < end and (not found or found[-1][1] <= start)
        assert lines[1].strip() and "-->" not in lines[1] and not re.search(r"[<>]", lines[1])
        found.append((start, end, lines[1]))
    return found

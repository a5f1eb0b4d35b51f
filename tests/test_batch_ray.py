"""A batch on a real Ray: processes share the work, die at it, and are killed with all they were at."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from millpond.pipeline.batch import Advanced, Event, Report, run_batch

from .batch_clips import (
    BRIEF,
    SHORT,
    check_results,
    chunks_of,
    folder_of,
    make_shapes,
    manifest_of,
    results_of,
    run_here,
)
from .clips import cut
from .ray_cluster import descendants, everybody, running_ray, wait_until


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_shapes(folder / "a.mp4", seed=1, length_s=14.0)
    make_shapes(folder / "b.mp4", seed=2, length_s=4.0)
    shutil.copy(folder / "a.mp4", folder / "copy of a.mp4")
    cut(folder / "b.mp4", 0.5)
    return folder


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("long") / "long.mp4", seed=3, length_s=80.0, rate_hz=2)


@pytest.fixture(scope="module")
def a_ray() -> Iterator[None]:
    with running_ray():
        yield


def on_ray(given: list[Path], out: Path, **more: object) -> Report:
    return run_batch(given, out, config=BRIEF, settings=SHORT, num_workers=2, **more)  # type: ignore[arg-type]


def test_two_workers_write_what_one_process_writes(a_ray: None, videos: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    report = on_ray([videos], tmp_path / "ray", on_event=events.append)
    run_here([videos], tmp_path / "here")
    assert (report.num_done, report.num_failed, report.num_same, report.num_chunks_done) == (2, 1, 1, 4)
    assert results_of(tmp_path / "ray") == results_of(tmp_path / "here")
    for name in ("a.mp4", "b.mp4"):
        check_results(folder_of(tmp_path / "ray", name))
    assert manifest_of(tmp_path / "ray")["is_complete"]
    assert {e.name for e in events if isinstance(e, Advanced)} == {"a.mp4", "b.mp4"}
    assert report.hours_per_hour > 0


@pytest.mark.slow
def test_a_worker_dies_in_the_middle(a_ray: None, long: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Advanced) and not killed:
            killed.extend(pid for pid in descendants() if is_worker(pid))
            os.kill(killed[0], signal.SIGKILL)

    report = on_ray([long], tmp_path, on_event=on_event)
    assert len(killed) == 2, "there are two workers"
    assert (report.num_done, report.num_failed) == (1, 0)
    assert report.num_chunks_done == report.num_chunks == 16
    check_results(folder_of(tmp_path, "long.mp4"))


def is_worker(pid: int) -> bool:
    """Whether a process is an actor of the batch: Ray writes into its title what it does."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return title.startswith(b"ray::") and b"Map(_Actor)" in title


def is_reader(pid: int) -> bool:
    """Whether a process is decord's."""
    try:
        return b"decord_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_model_that_does_not_load_is_a_sentence(a_ray: None, videos: Path, tmp_path: Path) -> None:
    config = replace(BRIEF, model="/nowhere/at all")
    with pytest.raises(ValueError, match="there is no folder '/nowhere/at all'"):
        run_batch([videos], tmp_path, config=config, settings=SHORT)
    assert {one["state"] for one in manifest_of(tmp_path)["videos"]} == {"waiting", "failed"}


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(long: Path, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\n"
        "from millpond.pipeline import EngineConfig, NarrationConfig\n"
        "from millpond.pipeline.batch import BatchSettings, run_batch\n"
        "config = EngineConfig(device='cpu', max_new_tokens=8, narration=NarrationConfig(max_new_tokens=8))\n"
        "run_batch([sys.argv[1]], sys.argv[2], config=config, settings=BatchSettings(chunk_s=5, min_chapter_s=4.0),\n"
        "          num_workers=2)\n"
    )
    out = tmp_path / "out"
    running = subprocess.Popen([sys.executable, str(script), str(long), str(out)], start_new_session=True)
    started: set[int] = set()
    try:
        wait_until(lambda: len(chunks_of(out)) > 2 or running.poll() is not None, "some chunks are done", 120)
        assert running.poll() is None, "it was too fast to be killed"
        started = descendants(running.pid)
        at_work = {pid for pid in started if is_worker(pid) or is_reader(pid)}
        running.kill()
        running.wait()
        # Who was at work ends with it: nobody goes on writing. (Some agents of Ray's take their time.)
        assert len(at_work) >= 2
        wait_until(lambda: not at_work & everybody(), "its workers are gone", 60)
    finally:
        running.kill()
        running.wait()
        for pid in started & everybody():
            os.kill(pid, signal.SIGKILL)
    kept = chunks_of(out)
    assert 3 <= len(kept) < 16 and manifest_of(out)["is_complete"] is False
    report = run_here([long], out)
    assert report.num_chunks_kept == len(kept) and report.num_chunks_done == 16 - len(kept)
    assert {name: when for name, when in chunks_of(out).items() if name in kept} == kept, (
        "a finished chunk is done again"
    )
    run_here([long], tmp_path / "whole")
    assert results_of(out) == results_of(tmp_path / "whole")
    assert not list(out.rglob("*.part"))

"""A batch as a whole, in this process: what is written, what is done once, what a run goes on from, what it refuses."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from millpond.pipeline import EngineConfig
from millpond.pipeline.batch import Advanced, BatchSettings, Ended, Event, Looked, Planned, run_batch
from millpond.pipeline.batch.plan import plan
from millpond.pipeline.batch.settings import described, differences, digest
from millpond.pipeline.batch.work import Attempts, Done, Job, Worker
from millpond.stream import DifferenceGate, SourceError

from .batch_clips import BRIEF, FILES, SHORT, check_results, chunks_of, folder_of, make_shapes, manifest_of, results_of
from .batch_clips import run_here as run
from .clips import VIDEOS, cut
from .watched import mini


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_shapes(folder / "a.mp4", seed=1, length_s=14.0)
    make_shapes(folder / "b.mp4", seed=2, length_s=4.0)
    shutil.copy(folder / "a.mp4", folder / "copy of a.mp4")
    cut(folder / "b.mp4", 0.5)
    return folder


@pytest.fixture(scope="module")
def done(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    run([videos], out)
    return out


def test_every_video_is_told(videos: Path, done: Path) -> None:
    manifest = manifest_of(done)
    assert manifest["is_complete"] and (manifest["num_done"], manifest["num_failed"]) == (2, 1)
    by_name = {Path(one["path"]).name: one for one in manifest["videos"]}
    assert set(by_name) == {"a.mp4", "b.mp4", "cut-b.mp4"}
    assert by_name["a.mp4"]["also"] == [str(videos / "copy of a.mp4")]
    assert by_name["a.mp4"]["num_chunks"] == by_name["a.mp4"]["num_chunks_done"] == 3
    assert by_name["a.mp4"]["num_frames"] == 14 and by_name["a.mp4"]["length_s"] == pytest.approx(14.0)
    assert by_name["cut-b.mp4"]["state"] == "failed" and "cut off or damaged" in by_name["cut-b.mp4"]["reason"]
    for name in ("a.mp4", "b.mp4"):
        folder = folder_of(done, name)
        assert {p.name for p in folder.iterdir()} == {*FILES, "chunks"}
        check_results(folder)
    assert json.loads((folder_of(done, "a.mp4") / "log.jsonl").read_text().splitlines()[0])["text"]


def test_the_same_again_does_nothing(videos: Path, done: Path) -> None:
    before, chunks = results_of(done), chunks_of(done)
    report = run([videos], done)
    assert (report.num_done, report.num_old, report.num_chunks_done, report.num_failed) == (2, 2, 0, 1)
    assert chunks_of(done) == chunks and results_of(done) == before and report.hours_per_hour == 0


def test_the_same_input_gives_the_same_results(videos: Path, done: Path, tmp_path: Path) -> None:
    run([videos / "b.mp4", videos / "copy of a.mp4"], tmp_path)
    named = {name.replace("copy_of_a-", "a-"): data for name, data in results_of(tmp_path).items()}
    assert named == results_of(done)


class Stop(KeyboardInterrupt):
    """Takes the place of Ctrl-C, at a chosen moment."""


def stop_after(num_chunks: int, out: Path) -> Callable[[Event], None]:
    """An `on_event` that ends the run when so many chunks are done."""

    def on_event(event: Event) -> None:
        if isinstance(event, Advanced) and len(chunks_of(out)) >= num_chunks:
            raise Stop

    return on_event


@pytest.mark.parametrize("num_chunks", [1, 2])
def test_a_run_goes_on_where_one_was_stopped(videos: Path, done: Path, tmp_path: Path, num_chunks: int) -> None:
    with pytest.raises(Stop):
        run([videos / "a.mp4"], tmp_path, on_event=stop_after(num_chunks, tmp_path))
    kept = chunks_of(tmp_path)
    assert len(kept) == num_chunks and manifest_of(tmp_path)["is_complete"] is False
    report = run([videos / "a.mp4"], tmp_path)
    assert (report.num_chunks_kept, report.num_chunks_done) == (num_chunks, 3 - num_chunks)
    assert {name: when for name, when in chunks_of(tmp_path).items() if name in kept} == kept
    assert results_of(folder_of(tmp_path, "a.mp4").parent).items() <= results_of(done).items()


def test_what_was_taken_away_is_made_again(videos: Path, done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    folder, chunks = folder_of(tmp_path, "a.mp4"), chunks_of(tmp_path)
    (folder / "summary.txt").unlink()
    report = run([videos], tmp_path)
    assert report.num_chunks_done == 0 and report.num_old == 1 and report.num_done == 2
    assert {n: d for n, d in results_of(tmp_path).items()} == results_of(done)
    (folder / "chapters.json").unlink()
    (folder / "chunks" / "00001.json").write_text("{}")
    (folder / "chunks" / "00002.json").write_text('{"version": 1, "set')
    report = run([videos], tmp_path)
    assert report.num_chunks_done == 2 and results_of(tmp_path) == results_of(done)
    assert chunks_of(tmp_path)[f"{folder.name}/00000.json"] == chunks[f"{folder.name}/00000.json"]


def test_other_names_and_orders_go_on_with_the_same_folder(videos: Path, done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    report = run([videos / "copy of a.mp4"], tmp_path)
    assert report.num_old == report.num_done == 1 and report.num_chunks_done == 0
    assert results_of(tmp_path) == results_of(done)
    assert [Path(one["path"]).name for one in manifest_of(tmp_path)["videos"]] == [
        "b.mp4",
        "cut-b.mp4",
        "copy of a.mp4",
    ]


def test_other_settings_are_refused_or_begun_anew(videos: Path, tmp_path: Path) -> None:
    run([videos / "b.mp4"], tmp_path)
    other = replace(BRIEF, fps=2.0)
    with pytest.raises(ValueError, match=r"begun with other settings: got fps was 1.0 and is 2.0; .* --anew"):
        run([videos / "b.mp4"], tmp_path, config=other)
    with pytest.raises(ValueError, match=r"batch.chunk_s was 5 and is 3"):
        run([videos / "b.mp4"], tmp_path, settings=replace(SHORT, chunk_s=3))
    report = run([videos / "b.mp4"], tmp_path, config=other, anew=True)
    assert report.num_chunks_done == 1 and manifest_of(tmp_path)["videos"][0]["num_frames"] == 8
    run([videos / "b.mp4"], tmp_path, config=replace(other, device="auto", reuse_budget_bytes=2**30))


def test_settings_are_described_by_their_names() -> None:
    plain, gated = described(BRIEF, SHORT), described(replace(BRIEF, gate=DifferenceGate(threshold=7.0)), SHORT)
    assert json.loads(json.dumps(gated)) == gated and digest(plain) != digest(gated)
    assert gated["gate"]["kind"] == "DifferenceGate" and gated["gate"]["threshold"] == 7.0
    assert differences(plain, gated) == ["gate was none and is DifferenceGate"]
    assert digest(plain) == digest(json.loads(json.dumps(plain)))


@pytest.mark.parametrize("harm", ["", "{", "[]", '{"version": 9}', '{"version": 1, "settings": {}, "videos": [7]}'])
def test_a_damaged_manifest_costs_a_look_at_the_files(
    videos: Path, done: Path, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    (tmp_path / "manifest.json").write_text(harm)
    with caplog.at_level(logging.WARNING):
        report = run([videos], tmp_path)
    assert report.num_old == 2 and report.num_chunks_done == 0 and "looked at anew" in caplog.text


def test_a_manifest_cannot_lead_elsewhere(videos: Path, done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    path.write_text(path.read_text().replace('"folder": "b-', '"folder": "../b-'))
    run([videos], tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert folder_of(tmp_path / "out", "b.mp4").is_dir()


HOLD = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_two_runs_do_not_share_a_folder(videos: Path, tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(ValueError, match="another run is at work in"):
            run([videos / "b.mp4"], tmp_path)
    finally:
        other.kill()
        other.wait()
    assert run([videos / "b.mp4"], tmp_path).num_done == 1


def test_what_goes_wrong_in_a_video_does_not_stop_the_rest(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, num_tries = Worker._do_chunk, []

    def do_chunk(self: Worker, job: Job, number: int, folder: Path) -> None:
        if job.video.name == "a.mp4" and number == 1:
            num_tries.append(number)
            raise RuntimeError("out of luck")
        real(self, job, number, folder)

    monkeypatch.setattr(Worker, "_do_chunk", do_chunk)
    report = run([videos / "a.mp4", videos / "b.mp4"], tmp_path)
    assert (report.num_done, report.num_failed, len(num_tries)) == (1, 1, 3)
    (failed,) = [one for one in manifest_of(tmp_path)["videos"] if one["state"] == "failed"]
    assert failed["reason"] == "RuntimeError: out of luck" and failed["num_chunks_done"] == 2
    monkeypatch.undo()
    report = run([videos / "a.mp4", videos / "b.mp4"], tmp_path)
    assert (report.num_done, report.num_chunks_done) == (2, 1), "failed videos are tried again, finished chunks are not"


def test_what_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "3.try"
    for _ in range(3):
        Attempts(path, "this run").begin()  # and never comes to an end
    with pytest.raises(SourceError, match="whoever works on it dies: 3 workers have, at chunk 3"):
        Attempts(path, "this run").begin()
    Attempts(path, "another run").begin()
    Attempts(path, "another run").end()
    assert not path.exists()
    path.write_text('{"run": "this run", "num": "many"}')
    Attempts(path, "this run").begin()


def test_a_chunk_that_killed_its_workers_fails_its_video(videos: Path, tmp_path: Path) -> None:
    (video,) = plan([videos / "b.mp4"], chunk_s=5).videos
    job = Job(video, 0, str(tmp_path), "s", "this run")
    for _ in range(3):
        Attempts(tmp_path / video.folder / "chunks" / "0.try", job.run).begin()
    worker = Worker(BRIEF, SHORT, model=mini())
    done = worker.do(Job.from_text(job.to_text()))
    assert done.is_lasting and "whoever works on it dies" in (done.problem or "") and not done.is_chunk_done
    done = worker.do(replace(job, run="the next one"))
    assert done.is_chunk_done and done.finished is not None and done.problem is None
    assert Done.from_text(done.to_text()) == done
    worker.close()
    assert not list(tmp_path.rglob("*.try"))


def test_a_video_that_changes_meanwhile_is_told_about(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    shutil.copy(videos / "a.mp4", path)

    def change(event: Event) -> None:
        if isinstance(event, Advanced):
            shutil.copy(videos / "b.mp4", path)

    report = run([path], tmp_path / "out", on_event=change)
    assert report.num_failed == 1 and "changed while" in manifest_of(tmp_path / "out")["videos"][0]["reason"]


def test_what_happens_is_told(videos: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    run([videos], tmp_path, on_event=events.append)
    assert [e for e in events if isinstance(e, Looked)][-1] == Looked(4, 4)
    (planned,) = [e for e in events if isinstance(e, Planned)]
    assert (planned.num_videos, planned.num_broken, planned.num_same, planned.num_chunks) == (2, 1, 1, 4)
    steps = [e.done_s for e in events if isinstance(e, Advanced) and e.name == "a.mp4"]
    assert steps == sorted(steps) and steps[-1] == pytest.approx(14.0)
    assert [(e.record["state"], e.is_old) for e in events if isinstance(e, Ended)] == [
        ("failed", False), ("done", False), ("done", False),
    ]  # fmt: skip


def test_selectors_gates_and_questions_are_used(videos: Path, tmp_path: Path) -> None:
    config = replace(BRIEF, gate="difference", selector="uniform", select_frames=2)
    run([videos / "a.mp4"], tmp_path, config=config)
    assert manifest_of(tmp_path)["videos"][0]["num_frames"] == 6
    check_results(folder_of(tmp_path, "a.mp4"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"chunk_s": 0}, "chunk_s must be a whole number, at least 1; got 0"),
        ({"chunk_s": 1.5}, "chunk_s must be a whole number"),
        ({"min_chapter_s": 9.0, "max_chapter_s": 5.0}, "got 9.0 and 5.0"),
        ({"question": " "}, "needs words"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BatchSettings(**settings)  # type: ignore[arg-type]


def test_places_that_cannot_be(videos: Path) -> None:
    with pytest.raises(ValueError, match="go into a folder; got the file"):
        run([videos], videos / "a.mp4")
    with pytest.raises(ValueError, match="needs a worker at least; got 0"):
        run_batch([videos], videos / "out", num_workers=0)


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="the real clips are not here")
def test_clips_from_the_world(tmp_path: Path) -> None:
    settings = BatchSettings(chunk_s=20)
    report = run(
        [VIDEOS / "cup.mp4", VIDEOS / "tree.avi"],
        tmp_path,
        config=EngineConfig(device="cpu", fps=0.5),
        settings=settings,
    )
    assert report.num_done == 2 and report.num_failed == 0
    for name in ("cup.mp4", "tree.avi"):
        check_results(folder_of(tmp_path, name))

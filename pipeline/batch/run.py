"""run_batch: summarises many recordings, goes on where an earlier run was stopped, and says what became of each."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..config import EngineConfig
from .crew import Crew, RayCrew
from .files import remove_parts
from .manifest import Entry, Manifest, read_before
from .plan import plan
from .progress import Advanced, Ended, Event, Looked, Planned
from .record import read_chunk
from .results import read_finished
from .settings import BatchSettings, described, differences, digest
from .work import Done, Job

_log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_NUM_TRIES = 3


@dataclass(frozen=True, slots=True)
class Report:
    """Made by `run_batch`: what became of the batch.

    num_done: videos that are done, those of earlier runs among them (num_old).
    num_chunks: of all videos; num_chunks_kept: done by earlier runs; num_chunks_done: by this one.
    video_s: seconds of video that this run worked through; work_s: from its first chunk begun to its last one done;
        wall_s: all of it.
    """

    manifest: Path
    num_done: int
    num_old: int
    num_failed: int
    num_same: int
    num_chunks: int
    num_chunks_kept: int
    num_chunks_done: int
    video_s: float
    work_s: float
    wall_s: float

    @property
    def hours_per_hour(self) -> float:
        """Hours of video for each hour of work, the start of the workers left out; 0 where nothing was to be done."""
        return self.video_s / self.work_s if self.work_s > 0 else 0.0


def run_batch(
    given: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    config: EngineConfig | None = None,
    settings: BatchSettings | None = None,
    num_workers: int = 1,
    address: str | None = None,
    anew: bool = False,
    on_event: Callable[[Event], None] | None = None,
    crew: Crew | None = None,
) -> Report:
    """Summarises the videos that are given into folders of `out`, and writes `out`/manifest.json.

    Stopped or killed, it goes on from the chunks that are done when it is run again. Videos that failed are tried
    again then. The same content twice is done once.

    given: files, folders, patterns, and lists of these (.txt), a line each.
    num_workers: processes with a model each. address: of a Ray cluster; None: on this machine.
    anew: whether what was made with other settings is thrown away; otherwise ValueError says what differs.
    on_event: called with what happens, from any thread, one call at a time.
    crew: who does the work, in place of Ray.
    """
    config, settings = config or EngineConfig(), settings or BatchSettings()
    folder = Path(out).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"the results go into a folder; got the file {folder}")
    crew = crew or RayCrew(config, settings, num_workers=num_workers, address=address)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        return _Run(folder, given, config, settings, anew, on_event).run(crew)


class _Run:
    """One run of a batch, in a folder that is its own while it lasts."""

    def __init__(
        self,
        folder: Path,
        given: Sequence[str | os.PathLike[str]],
        config: EngineConfig,
        settings: BatchSettings,
        anew: bool,
        on_event: Callable[[Event], None] | None,
    ) -> None:
        self._began_s, self._name = time.monotonic(), uuid.uuid4().hex
        self._folder, self._settings = folder, settings
        self._on_event = on_event
        self._lock = threading.RLock()
        description = described(config, settings)
        self._digest = digest(description)
        before = read_before(folder / MANIFEST)
        if before.settings is not None and digest(before.settings) != self._digest:
            changed = "; ".join(differences(before.settings, description)[:5])
            if not anew:
                raise ValueError(
                    f"{folder} was begun with other settings: got {changed}; give the same, another folder, or --anew"
                )
            _log.warning("%s is begun anew: %s", folder, changed)
        self._plan = plan(
            given,
            chunk_s=settings.chunk_s,
            hashes=before.hashes,
            folders=before.folders,
            on_look=lambda num_looked, num_files: self._emit(Looked(num_looked, num_files)),
        )
        self._manifest = Manifest(folder / MANIFEST, self._plan, description, before, chunk_s=settings.chunk_s)
        self._tally = _Tally()

    def run(self, crew: Crew) -> Report:
        jobs = self._jobs_left()
        tally = self._tally
        tally.num_chunks = sum(entry.num_chunks for entry in self._manifest.entries)
        tally.num_kept = sum(entry.num_chunks_done for entry in self._manifest.entries)
        tally.num_old = self._manifest.counts["done"]
        self._emit(
            Planned(
                num_videos=len(self._plan.videos),
                num_broken=len(self._plan.broken),
                num_same=self._num_same,
                length_s=sum(video.length_s for video in self._plan.videos),
                num_chunks=tally.num_chunks,
                num_chunks_kept=tally.num_kept,
            )
        )
        for entry in self._manifest.entries:
            if entry.state != "waiting":
                self._emit(Ended(entry.content, entry.as_dict(), is_old=entry.state == "done"))
        try:
            self._manifest.write()
            for number_of_try in range(1, _NUM_TRIES + 1):
                if not jobs:
                    break
                for done in crew.work(jobs, self._on_time):
                    self._take(done, is_last=number_of_try == _NUM_TRIES)
                jobs = self._jobs_left()
            for job in jobs:
                self._give_up(self._manifest.of(job.video.content), f"nobody came back from it, {_NUM_TRIES} times")
        finally:
            self._manifest.write(is_last=True)
        return self._report()

    def _jobs_left(self) -> list[Job]:
        """What is still to be done, by what is in the folders; what is done is noted."""
        jobs: list[Job] = []
        for entry in self._manifest.entries:
            video = entry.video
            if video is None or entry.state != "waiting":
                continue
            folder = self._folder / video.folder
            remove_parts(folder)
            remove_parts(folder / "chunks")
            spans = video.stretches(self._settings.chunk_s)
            left = [number for number in range(entry.num_chunks) if not self._has_chunk(entry, number)]
            self._tally.done_s[video.content] = {
                number: span.end_s - span.start_s for number, span in enumerate(spans) if number not in left
            }
            entry.num_chunks_done = entry.num_chunks - len(left)
            if not left:
                entry.finished = read_finished(folder, settings=self._digest, content=video.content)
                if entry.finished is not None:
                    entry.state = "done"
                    continue
            numbers: list[int | None] = [*left] or [None]
            jobs += [Job(video, number, str(self._folder), self._digest, self._name) for number in numbers]
        return jobs

    def _has_chunk(self, entry: Entry, number: int) -> bool:
        video = entry.video
        assert video is not None
        found = read_chunk(self._folder / video.folder, number, settings=self._digest, content=video.content)
        return found is not None

    def _take(self, done: Done, *, is_last: bool) -> None:
        entry = self._manifest.of(done.content)
        entry.work_s += done.ended_s - done.began_s
        video = entry.video
        assert video is not None
        self._tally.first_s = min(self._tally.first_s, done.began_s)
        self._tally.last_s = max(self._tally.last_s, done.ended_s)
        if done.problem is not None:
            _log.warning("%s: %s", video.path, done.problem)
            if done.is_lasting or is_last:
                self._give_up(entry, done.problem)
        if done.is_chunk_done and done.chunk is not None:
            span = video.stretches(self._settings.chunk_s)[done.chunk]
            entry.num_chunks_done += 1
            self._tally.num_done += 1
            self._tally.video_s += span.end_s - span.start_s
            self._on_time(done.content, done.chunk, span.end_s - span.start_s)
        if done.finished is not None and entry.state == "waiting":
            entry.state, entry.finished = "done", done.finished
            self._emit(Ended(done.content, entry.as_dict()))
        self._manifest.write()

    def _give_up(self, entry: Entry, reason: str) -> None:
        if entry.state == "waiting":
            entry.state, entry.reason = "failed", reason
            self._emit(Ended(entry.content, entry.as_dict()))

    def _on_time(self, content: str, chunk: int, done_s: float) -> None:
        entry = self._manifest.of(content)
        with self._lock:
            parts = self._tally.done_s.setdefault(content, {})
            parts[chunk] = max(done_s, parts.get(chunk, 0.0))
            if entry.video is not None and entry.state == "waiting":
                all_s = min(entry.video.length_s, sum(parts.values()))
                self._emit(Advanced(content, entry.name, all_s, entry.video.length_s))

    def _emit(self, event: Event) -> None:
        if self._on_event is not None:
            with self._lock:
                self._on_event(event)

    @property
    def _num_same(self) -> int:
        return sum(len(video.also) for video in self._plan.videos)

    def _report(self) -> Report:
        counts, tally = self._manifest.counts, self._tally
        return Report(
            manifest=self._folder / MANIFEST,
            num_done=counts["done"],
            num_old=tally.num_old,
            num_failed=counts["failed"],
            num_same=self._num_same,
            num_chunks=tally.num_chunks,
            num_chunks_kept=tally.num_kept,
            num_chunks_done=tally.num_done,
            video_s=tally.video_s,
            work_s=max(0.0, tally.last_s - tally.first_s),
            wall_s=time.monotonic() - self._began_s,
        )


@dataclass(slots=True)
class _Tally:
    """What a run counts as it goes. done_s: by video and chunk."""

    num_chunks: int = 0
    num_kept: int = 0
    num_old: int = 0
    num_done: int = 0
    video_s: float = 0.0
    first_s: float = float("inf")
    last_s: float = float("-inf")
    done_s: dict[str, dict[int, float]] = field(default_factory=dict)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder is this run's alone. The lock goes with the process, however that ends."""
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another run is at work in {folder}; wait for its end, or give another folder") from None
        yield
    finally:
        os.close(handle)

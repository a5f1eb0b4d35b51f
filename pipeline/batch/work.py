"""Worker: one process's share of a batch. It holds the model, and does one chunk after another."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ...encoders import VideoLLM, load_model
from ...encoders.selectors import Similarity
from ...encoders.sight import Need
from ...stream import Frame, SourceError, Span, redact
from ..config import EngineConfig
from ..engine import Engine
from ..session import Session
from .chapters import cut_chapters, scene_of
from .files import read_json, write_json
from .pictures import Pictures, Stretch
from .plan import Video
from .record import ChunkRecord, Said, one_line, read_chunk, write_chunk
from .results import Finished, read_finished, write_results
from .settings import BatchSettings
from .telling import teller_for

_log = logging.getLogger(__name__)

_REPORT_EVERY_S = 0.5
_MAX_DEATHS = 3
_ALL_DUE_HZ = 1e6  # a stretch's frames are the due ones already

OnTime = Callable[[str, int, float], None]
"""Called with a video's content, a chunk's number and how many of its seconds are done."""


@dataclass(frozen=True, slots=True)
class Job:
    """Made by the run, read by a worker. chunk: None where only the video is to be put together. run: names the run."""

    video: Video
    chunk: int | None
    out: str
    settings: str
    run: str

    def to_text(self) -> str:
        return json.dumps({**{name: getattr(self, name) for name in self.__slots__}, "video": self.video.as_dict()})

    @classmethod
    def from_text(cls, text: str) -> Job:
        given = json.loads(text)
        return cls(**{**given, "video": Video.from_dict(given["video"])})


@dataclass(frozen=True, slots=True)
class Done:
    """Made by a worker, read by the run: what came of a job.

    is_chunk_done: whether the job's chunk is written. finished: of a video of which nothing is left to do.
    problem: one sentence, where it went wrong. is_lasting: whether trying again is of no use.
    began_s, ended_s: wall times.
    """

    content: str
    chunk: int | None
    began_s: float
    ended_s: float
    is_chunk_done: bool = False
    finished: Finished | None = None
    problem: str | None = None
    is_lasting: bool = False

    def to_text(self) -> str:
        value = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({**value, "finished": None if self.finished is None else list(self.finished)})

    @classmethod
    def from_text(cls, text: str) -> Done:
        given = json.loads(text)
        finished = given["finished"]
        return cls(**{**given, "finished": None if finished is None else Finished(*finished)})


class Worker:
    """Does jobs, one at a time: a chunk is decoded, chosen from, encoded and narrated, and written as one file.

    Lines come from `Session.narrate`: when enough of the picture has changed, or enough time has passed. So the log
    is what `millpond narrate` would tell, its settings are the engine's, and a still scene costs a question every
    `max_gap_s`; where the video is cut into chapters is told by what is seen (see chapters.py), and costs no question.
    Who writes a video's last chunk puts it together: chapters, summary, captions.
    """

    def __init__(
        self,
        config: EngineConfig,
        settings: BatchSettings,
        *,
        model: VideoLLM | None = None,
        on_time: OnTime | None = None,
        num_threads: int = 0,
    ) -> None:
        model = model or load_model(
            config.model, device=config.device, dtype=config.dtype, max_side_px=config.max_side_px
        )
        self._config, self._settings = config.timeless(model), settings
        self._engine = Engine(self._config, model=model)
        self._on_time = on_time
        self._num_threads = num_threads
        self._teller = teller_for(self._engine.model, self._engine.config, notes_tokens=settings.notes_tokens)
        self._pictures: Pictures | None = None
        self._open: Video | None = None

    def do(self, job: Job) -> Done:
        """Does it. What goes wrong with a video is told in what comes back, and is not raised."""
        began_s = time.time()
        is_chunk_done, finished, problem, is_lasting = False, None, None, False
        folder = Path(job.out) / job.video.folder
        attempts = Attempts(folder / "chunks" / f"{job.chunk}.try", job.run)
        try:
            attempts.begin()
            if job.chunk is not None:
                self._do_chunk(job, job.chunk, folder)
                is_chunk_done = True
            finished = self._put_together(job, folder)
        except Exception as error:  # noqa: BLE001 - whatever a video makes codecs and models stumble over
            problem, is_lasting = _sentence(error), isinstance(error, SourceError)
            if not isinstance(error, SourceError | OSError):
                _log.warning("%s: %s", job.video.path, redact(traceback.format_exc()))
            self._let_go()
        attempts.end()
        return Done(job.video.content, job.chunk, began_s, time.time(), is_chunk_done, finished, problem, is_lasting)

    def close(self) -> None:
        """Ends what it started."""
        self._let_go()
        self._engine.close()

    def _do_chunk(self, job: Job, number: int, folder: Path) -> None:
        video = job.video
        if not video.is_as_planned():
            raise SourceError(f"{video.path} changed while it was worked on; run the batch again")
        span = video.stretches(self._settings.chunk_s)[number]
        pictures = self._pictures_of(video)
        num_damaged = pictures.source.stats.num_damaged
        session = self._engine.session(f"{video.folder}:{number}", question=self._settings.question)
        try:
            times_s: list[float] = []
            scenes: list[bytes] = []
            said: list[Said] = []
            for frame in self._told_of(self._chosen(pictures, span, session), video, number, span):
                times_s.append(frame.pts_s)
                scenes.append(scene_of(frame))
                session.push(frame)
                self._narrate(session, said, force=False)
            if times_s:
                self._narrate(session, said, force=True)
            record = ChunkRecord(
                settings=job.settings,
                content=video.content,
                number=number,
                span=Span(span.start_s, max(span.end_s, *times_s[-1:], span.start_s)),
                times_s=tuple(times_s),
                scenes=b"".join(scenes),
                said=tuple(said),
                num_dropped=session.num_dropped,
                num_damaged=pictures.source.stats.num_damaged - num_damaged,
            )
        finally:
            session.close()
        write_chunk(folder, record)

    def _narrate(self, session: Session, said: list[Said], *, force: bool) -> None:
        narration = session.narrate(force=force)
        text = "" if narration is None else one_line(narration.text)
        if narration is not None and text:
            said.append(Said(narration.span, text))

    def _chosen(self, pictures: Pictures, span: Span, session: Session) -> Iterator[Frame]:
        """The frames of a stretch that are to be looked at."""
        selector = self._engine.config.made_selector()
        if selector is None:
            return _forward(pictures.frames(span, rate_hz=self._config.fps))
        from ..selecting import choose_frames, fetch_frames

        stretch = Stretch(pictures, span, rate_hz=self._config.fps)
        choice = choose_frames(
            stretch,
            fps=_ALL_DUE_HZ,
            selector=selector,
            num_frames=self._config.select_frames,
            question=self._settings.question,
            model=self._engine.model,
            similarity=self._similarity if Need.TEXT in selector.needs else None,
        )
        if choice is None:
            return iter(())
        session.note = choice.note
        return _forward(fetch_frames(stretch, choice))

    @cached_property
    def _similarity(self) -> Similarity | None:
        if self._config.similarity is None:
            return None
        from ...encoders.selectors.siglip import SiglipSimilarity

        return SiglipSimilarity.load(self._config.similarity, device=self._engine.model.spec.device)

    def _told_of(self, frames: Iterable[Frame], video: Video, number: int, span: Span) -> Iterator[Frame]:
        """The same frames; now and then somebody is told how far they are."""
        told_at_s = time.monotonic()
        for frame in frames:
            yield frame
            if self._on_time is not None and time.monotonic() - told_at_s >= _REPORT_EVERY_S:
                told_at_s = time.monotonic()
                self._on_time(video.content, number, frame.pts_s - span.start_s)

    def _put_together(self, job: Job, folder: Path) -> Finished | None:
        """The whole video's results, once all its chunks are there. Two workers may find that at once: both write the
        same."""
        video, settings = job.video, self._settings
        num_chunks = len(video.stretches(settings.chunk_s))
        records = []
        for number in range(num_chunks):
            record = read_chunk(folder, number, settings=job.settings, content=video.content)
            if record is None:
                return None
            records.append(record)
        finished = read_finished(folder, settings=job.settings, content=video.content)
        if finished is not None:
            return finished
        times_s = [time_s for record in records for time_s in record.times_s]
        if not times_s:
            raise SourceError(f"{video.path} has a video stream but no picture in it can be decoded")
        chapters = cut_chapters(
            times_s,
            b"".join(record.scenes for record in records),
            [line for record in records for line in record.said],
            length_s=max(video.length_s, records[-1].span.end_s),
            min_chapter_s=settings.min_chapter_s,
            max_chapter_s=settings.max_chapter_s,
        )
        return write_results(folder, video, job.settings, records, chapters, self._teller.tell(chapters))

    def _pictures_of(self, video: Video) -> Pictures:
        if self._open != video or self._pictures is None:
            self._let_go()
            self._pictures = Pictures(video.path, stream_id=video.folder, num_threads=self._num_threads)
            self._open = video
        return self._pictures

    def _let_go(self) -> None:
        pictures, self._pictures, self._open = self._pictures, None, None
        if pictures is not None:
            pictures.close()


class Attempts:
    """How many workers died at one job: a file that is there while somebody is at it. What kills a worker would kill
    all of them, one after another.

    run: names the run; what died with an earlier one does not count.
    """

    def __init__(self, path: Path, run: str) -> None:
        self._path, self._run = path, run

    def begin(self) -> None:
        """Somebody begins. SourceError where too many have that did not come to an end."""
        num_deaths = 0
        try:
            value = read_json(self._path, max_bytes=4096)
            if value.get("run") == self._run and isinstance(value.get("num"), int):
                num_deaths = value["num"]
        except ValueError:
            pass  # nobody has begun, or nobody can say
        if num_deaths >= _MAX_DEATHS:
            raise SourceError(f"whoever works on it dies: {num_deaths} workers have, at chunk {self._path.stem}")
        write_json(self._path, {"run": self._run, "num": num_deaths + 1})

    def end(self) -> None:
        """It came to an end, good or bad."""
        self._path.unlink(missing_ok=True)


def _forward(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Only frames later than the one before: of a file whose times repeat, the first of each."""
    last_s: float | None = None
    for frame in frames:
        if last_s is None or frame.pts_s > last_s:
            last_s = frame.pts_s
            yield frame


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return redact(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    said = redact(" ".join(str(error).split())[:400])
    return said if said and isinstance(error, ValueError) else f"{type(error).__name__}: {said}"

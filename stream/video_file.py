"""FileSource: a video file through PyAV, in order with exact times, or at chosen times."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .clock import StreamClock
from .decoding import MAX_PIXELS, MEDIA_FORMATS, decode_all, first_video, in_display_order, to_rgb
from .frame import Frame
from .motion import MotionGatherer, ask_for_vectors
from .sampling import EveryFrame, Sampler, SamplerRun
from .source import Source, SourceError, local_path

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

_log = logging.getLogger(__name__)

_SAFE_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(MEDIA_FORMATS)}


class VideoFacts(NamedTuple):
    """What a file's header says of its video."""

    codec: str
    width: int
    height: int
    duration_s: float | None


class Instant(NamedTuple):
    """A picture in its place, not yet converted."""

    picture: av.VideoFrame
    pts_s: float
    index: int


class FileSource(Source):
    """A video file, in order with exact times, or at chosen times: clip.mp4, file:///videos/clip.mkv.

    Times are the file's own, as integers in its time base, relative to the start of the video. A damaged
    packet costs itself; a truncated file gives the frames that decode, then ends with a warning. Pixels are
    square: a sample aspect ratio is not applied.

    uri: a path or a file:// uri.
    max_pixels: a larger picture is refused before it is decoded.
    motion_vectors: frames in order (not those of `read_at`) bring how far their blocks moved since the frame before,
        where the codec tells: H.264, the MPEGs and their kin do; HEVC, VP9, AV1 and MJPEG do not.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        stream_id: str | None = None,
        max_pixels: int = MAX_PIXELS,
        motion_vectors: bool = False,
    ) -> None:
        self.path = local_path(os.fspath(uri))
        self.max_pixels = max_pixels
        self.motion_vectors = motion_vectors
        super().__init__(str(self.path), stream_id=stream_id or self.path.stem)
        self._check_path()
        with self.opened() as video:
            self.facts = _facts(video)
        self.duration_s = self.facts.duration_s

    def __iter__(self) -> Iterator[Frame]:
        return self.sampled(EveryFrame())

    def sampled(self, sampler: Sampler) -> Iterator[Frame]:
        """The frames that are due; the others are decoded, as they must be, but never converted to RGB."""
        run = sampler.start()
        if self.motion_vectors:
            return self._sampled_with_motion(run)
        return (self.to_frame(instant) for instant in self.instants() if run.take(instant.pts_s))

    def _sampled_with_motion(self, run: SamplerRun) -> Iterator[Frame]:
        """The frames that are due, with the motion of all pictures since the last, those left out included."""
        motion = MotionGatherer()
        num_damaged = self.stats.num_damaged
        for instant in self.instants():
            if self.stats.num_damaged != num_damaged:
                num_damaged = self.stats.num_damaged
                motion.add_damage()
            motion.add(instant.picture)
            if run.take(instant.pts_s):
                yield replace(self.to_frame(instant), motion=motion.take())

    def instants(self) -> Iterator[Instant]:
        """All pictures from the beginning, in their places."""
        self.check_open()
        last_s: float | None = None
        index = -1
        with self.opened() as video:
            for index, instant in enumerate(self.instants_from_here(video)):
                if self.is_closed:
                    return
                last_s = instant.pts_s
                yield instant._replace(index=index)
                if self.is_closed:
                    return
        self._tell_the_end(last_s, index + 1)

    def instants_from_here(self, video: av.VideoStream, clock: StreamClock | None = None) -> Iterator[Instant]:
        """The pictures from where the container stands; indices are the caller's business."""
        clock = clock or clock_of(video)
        pictures = decode_all(video.container, video, self.stats)  # type: ignore[arg-type]
        for picture, ticks in in_display_order(pictures, video, clock.restart_ticks):
            self._check_size(picture.width, picture.height)
            placed = clock.place(ticks, picture.duration)
            self.stats.num_frames += 1
            self.stats.num_retimed += not placed.is_own
            yield Instant(picture, placed.pts_s, 0)

    def read_at(self, times_s: Sequence[float], *, reader: str = "auto", deadline_s: float = 60.0) -> list[Frame]:
        """The frame shown at each of the times: the last one that begins at or before it, or the first frame.

        reader: "av", the reference; "decord", in a process of its own, and "av" where decord cannot be used
            for this file or misses the deadline; "auto": decord for dozens of pictures, "av" for fewer.
        deadline_s: how long decord may take for all of them.
        """
        from .random_access import read_at

        self.check_open()
        return read_at(self, times_s, reader=reader, deadline_s=deadline_s)

    def to_frame(self, instant: Instant) -> Frame:
        """The picture converted, with its time."""
        return Frame(to_rgb(instant.picture), instant.pts_s, self.stream_id, instant.index)

    @contextmanager
    def opened(self) -> Iterator[av.VideoStream]:
        """The file's video stream in a container of its own, ready to decode."""
        container = self._open_container()
        try:
            yield self._choose_stream(container)
        finally:
            container.close()

    def _open_container(self) -> InputContainer:
        import av

        try:
            # "file:" keeps a name such as "concat:a|b" or "-" from meaning something to FFmpeg.
            return av.open(
                f"file:{self.path.absolute()}",
                options={**_SAFE_OPTIONS, "max_pixels": str(self.max_pixels)},
                metadata_errors="ignore",
            )
        except av.FFmpegError as error:
            problem = self._explain(error)
        raise problem

    def _choose_stream(self, container: InputContainer) -> av.VideoStream:
        video = first_video(container)
        if video is None:
            kinds = " and ".join(sorted({s.type for s in container.streams}))
            raise SourceError(
                f"{self.uri} has no video in it, only {kinds}"
                if kinds
                else f"{self.uri} is cut off or has nothing in it"
            )
        if video.codec_context is None:
            raise SourceError(f"{self.uri} holds video in a codec that this FFmpeg cannot decode; convert it to H.264")
        self._check_size(video.codec_context.width, video.codec_context.height)
        video.thread_type = "AUTO"
        if self.motion_vectors:
            ask_for_vectors(video)
        return video

    def _check_path(self) -> None:
        """One clear sentence for everything that can be wrong before a byte is read."""
        path: Path = self.path
        try:
            facts = path.stat()
        except FileNotFoundError:
            raise SourceError(f"no file or folder at {self.uri}; check the path") from None
        except OSError as error:
            raise SourceError(f"cannot read {self.uri}: {error.strerror}") from None
        except ValueError:  # a NUL byte
            raise SourceError(f"{self.uri!r} is no path") from None
        if stat.S_ISDIR(facts.st_mode):
            raise SourceError(
                f"{self.uri} is a folder; give one video file, or use open_source for a folder of pictures"
            )
        if not stat.S_ISREG(facts.st_mode):
            raise SourceError(f"{self.uri} is no regular file; give a video file, or device://0 for a camera")
        if facts.st_size == 0:
            raise SourceError(f"{self.uri} is empty (0 bytes)")
        if not os.access(path, os.R_OK):
            raise SourceError(f"cannot read {self.uri}: permission denied")

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise SourceError(
                f"{self.uri} says its pictures are {width}x{height}, more than max_pixels={self.max_pixels};"
                " the file is damaged or hostile, or raise max_pixels"
            )

    def _explain(self, error: av.FFmpegError) -> SourceError:
        """Why the file did not open, for a person."""
        with self.path.open("rb") as file:
            head = file.read(12)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
            return SourceError(f"{self.uri} is an MP4 or MOV that is cut off or damaged: its index cannot be read")
        if head[:4] == b"RIFF" or head[:4] == b"\x1aE\xdf\xa3":
            return SourceError(f"{self.uri} is a video whose header is cut off or damaged")
        return SourceError(
            f"{self.uri} is not a video that can be read; wanted MP4, MOV, MKV, WebM, AVI, MPEG or the like"
        )

    def _tell_the_end(self, last_s: float | None, num_frames: int) -> None:
        """Called once all has been read: nothing at all is an error, less than promised is a warning."""
        if last_s is None:
            raise SourceError(f"{self.uri} has a video stream but no picture in it can be decoded")
        promised_s = self.facts.duration_s or 0.0
        # Half a second and a fiftieth: headers round, the last picture lasts a while, and sound may outlast
        # the pictures.
        if promised_s - last_s > 0.5 + 0.02 * promised_s:
            _log.warning(
                "%s is cut off: %d frames until %.3f s of the %.3f s that it promises (%d damaged)",
                self.uri, num_frames, last_s, promised_s, self.stats.num_damaged,
            )  # fmt: skip
        elif self.stats.num_damaged:
            _log.warning("%s: %d damaged parts among %d frames", self.uri, self.stats.num_damaged, num_frames)


def clock_of(video: av.VideoStream) -> StreamClock:
    """A clock for a stream that is about to be read in order."""
    time_base = video.time_base or Fraction(1, 90000)
    rate_hz = video.average_rate or video.guessed_rate or Fraction(25)
    # AVI counts in the order of decoding: where that is not the order of display it starts before the first
    # picture.
    start = None if video.container.format.name == "avi" else video.start_time
    return StreamClock(time_base, start, round(1 / (rate_hz * time_base)))


def _facts(video: av.VideoStream) -> VideoFacts:
    """What the header says; a length of nothing or less is no length."""
    container = video.container
    duration_s = None
    if video.duration and video.duration > 0 and video.time_base:
        duration_s = float(video.duration * video.time_base)
    elif container.duration and container.duration > 0:  # type: ignore[union-attr]
        duration_s = container.duration / 1_000_000  # type: ignore[union-attr]
    context = video.codec_context
    return VideoFacts(context.name, context.width, context.height, duration_s)

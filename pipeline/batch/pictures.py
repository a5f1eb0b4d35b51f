"""Pictures: those of one video at an even rate, stretch after stretch, each stretch for what it costs itself."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ...stream import Frame, RateSampler, Source, Span
from ...stream.random_access import (
    WORKER_COMMAND,
    PacketIndex,
    Picture,
    WorkerFailed,
    index_packets,
    read_by_seeking,
    receive,
    why_not_decord,
)
from ...stream.sampling import Sampler
from ...stream.video_file import FileSource, clock_of

_log = logging.getLogger(__name__)

_SEEK_BYTES = 64 * 2**20  # pictures held at a time where PyAV reads them


class Pictures:
    """One video's pictures, read by chunks. Not thread-safe: its worker's.

    The packets are walked over once and decord indexes once, however many stretches are read; a stretch is decoded
    from the key picture before it. Where decord cannot be trusted with the file, PyAV seeks; where its times cannot be
    trusted either, it is read in order.

    is_whole: whether only all of it can be read: any stretch is taken to reach to its end.
    deadline_s: how long decord may take for a picture.
    num_threads: of decord's; 0: one a core.
    """

    def __init__(self, path: str, *, stream_id: str, deadline_s: float = 60.0, num_threads: int = 0) -> None:
        self.source = FileSource(path, stream_id=stream_id)
        self._deadline_s = deadline_s
        with self.source.opened() as video:
            self._index: PacketIndex | None = index_packets(video)
            self.is_whole = not self._index.is_sound
            if self.is_whole:
                self._index = None
            else:
                self._clock = clock_of(video)
                self._clock.start_no_later_than(self._index.ticks[0])
        self._decord: _Decord | None = None
        if self._index is not None:
            why_not = why_not_decord(self.source)
            if why_not is None:
                self._decord = _Decord(self.source, len(self._index.ticks), deadline_s, num_threads)
            else:
                self._say_why_not(why_not)

    @property
    def reader(self) -> str:
        """What reads it: decord, av, or av in order."""
        return "in order" if self._index is None else "av" if self._decord is None else "decord"

    def frames(self, span: Span, *, rate_hz: float) -> Iterator[Frame]:
        """What is shown at each point `k / rate_hz` of the stretch, each picture once.

        A picture that was on the screen when the stretch began is the first one, with the stretch's beginning as its
        time. So stretches that meet give what the whole gives, and each can be told by itself.
        """
        if self._index is None:
            yield from self._in_order(span, rate_hz)
            return
        places = self._places(self._index, span, rate_hz)
        num_read, last_s = 0, -math.inf
        for frame in self._shown(self._index, places):
            num_read, last_s = num_read + 1, max(frame.pts_s, span.start_s)
            yield replace(frame, pts_s=last_s)
        if num_read < len(places):
            _log.warning("%s is not what its packets say; it is read in order", self.source.uri)
            self._index = None
            yield from (frame for frame in self._in_order(span, rate_hz) if frame.pts_s > last_s)

    def close(self) -> None:
        """Ends decord's process, and the file's reading."""
        self.source.close()
        if self._decord is not None:
            self._decord.close()

    def _places(self, index: PacketIndex, span: Span, rate_hz: float) -> list[int]:
        first, stop = math.ceil(span.start_s * rate_hz - 1e-9), math.ceil(span.end_s * rate_hz - 1e-9)
        shown = [index.place_of(self._clock.ticks(point / rate_hz)) for point in range(first, stop)]
        return sorted(set(shown))

    def _shown(self, index: PacketIndex, places: Sequence[int]) -> Iterator[Frame]:
        """The pictures at these places, in order; fewer, where the file is not what its packets say."""
        num_read = 0
        if self._decord is not None:
            try:
                for place, picture in self._decord.pictures(places):
                    own_s = float(index.ticks[place] * self._clock.time_base)
                    # decord's times are float32.
                    if abs(picture.begin_s - own_s) > 1e-4 + 2.5e-7 * abs(own_s):
                        raise WorkerFailed(f"it shows picture {place} at {picture.begin_s} s, not {own_s} s")
                    at_s = self._clock.seconds(index.ticks[place])
                    yield Frame(picture.rgb_HW3, at_s, self.source.stream_id, place)
                    num_read += 1
            except WorkerFailed as error:
                self._say_why_not(str(error))
                self._decord.close()
                self._decord = None
        yield from self._sought(index, places[num_read:])

    def _sought(self, index: PacketIndex, places: Sequence[int]) -> Iterator[Frame]:
        frame_bytes = max(1, self.source.facts.width * self.source.facts.height * 3)
        step = max(1, _SEEK_BYTES // frame_bytes)
        for start in range(0, len(places), step):
            part = list(places[start : start + step])
            frames = read_by_seeking(self.source, index, part)
            if frames is None:
                return
            yield from (frames[place] for place in part)

    def _in_order(self, span: Span, rate_hz: float) -> Iterator[Frame]:
        """Reads the file from its start. Where its times were never to be trusted, no more is its length."""
        end_s = math.inf if self.is_whole else span.end_s
        for frame in self.source.sampled(RateSampler(rate_hz)):
            if frame.pts_s >= end_s:
                return
            if frame.pts_s >= span.start_s:
                yield frame

    def _say_why_not(self, why_not: str) -> None:
        _log.info("reading %s with PyAV instead of decord: %s", self.source.uri, why_not)


class Stretch(Source):
    """A part of a video, at an even rate, as a recording of its own: what selectors choose from. May be read again."""

    def __init__(self, pictures: Pictures, span: Span, *, rate_hz: float) -> None:
        super().__init__(pictures.source.uri, stream_id=pictures.source.stream_id)
        self._pictures, self._span, self._rate_hz = pictures, span, rate_hz

    def __iter__(self) -> Iterator[Frame]:
        self.check_open()
        return self._pictures.frames(self._span, rate_hz=self._rate_hz)

    def sampled(self, sampler: Sampler) -> Iterator[Frame]:
        """All of them: they are at the rate that was asked for."""
        return iter(self)


class _Decord:
    """decord, in a process that stays while its video is read.

    A process, because decord can loop for ever holding the interpreter, or crash; see stream/random_access.py.
    """

    def __init__(self, source: FileSource, num_frames: int, deadline_s: float, num_threads: int) -> None:
        self._source, self._num_frames = source, num_frames
        self._deadline_s, self._num_threads = deadline_s, num_threads
        self._process: subprocess.Popen[bytes] | None = None

    def pictures(self, places: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        """The pictures at these places, one at a time: the process waits while nobody takes them."""
        request = {
            "path": str(self._source.path.absolute()),
            "num_frames": self._num_frames,
            "num_threads": self._num_threads,
            "places": list(places),
        }
        if self._process is None:
            self._process = subprocess.Popen(
                WORKER_COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        process, is_done = self._process, False
        try:
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
            except BrokenPipeError:
                raise WorkerFailed("its process died before it was asked") from None
            for place in places:
                # Only its own time counts: whoever takes the pictures may be as slow as they are.
                alarm = threading.Timer(self._deadline_s, process.kill)
                alarm.start()
                try:
                    picture = receive(process.stdout, place, self._source.max_pixels)
                finally:
                    alarm.cancel()
                yield place, picture
            is_done = True
        finally:
            if not is_done:  # what it still sends would be taken for the next stretch
                self.close()

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass

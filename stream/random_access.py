"""Pictures of a file at chosen times: by seeking with PyAV, or through decord in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import subprocess
import sys
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .clock import StreamClock
from .frame import Frame
from .video_file import Instant, clock_of

if TYPE_CHECKING:
    import av

    from .video_file import FileSource

_log = logging.getLogger(__name__)

# Shapes: H rows, W columns, 3 colours.

READERS = ("auto", "av", "decord")

# decord 0.6 knows nothing newer (AV1 above all), and reads these right where the times are in order.
_DECORD_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg"})

# -P: the folder that the program was started in must not shadow a module.
WORKER_COMMAND = (sys.executable, "-P", "-m", f"{__package__}.decord_worker")

# Below this many pictures starting a process costs more than reading them.
_WORTH_A_PROCESS = 32


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """When every picture of a file is shown, from its packets alone. Made by `index_packets`, read by
    `read_at`.

    ticks: the time of every picture, in order, in the stream's time base.
    key_ticks: those from which decoding can start, in order.
    is_sound: whether the times are the container's own and in order, so that seeking by them finds the same
        pictures as reading all of it does.
    """

    ticks: tuple[int, ...]
    key_ticks: tuple[int, ...]
    is_sound: bool

    def place_of(self, tick: int) -> int:
        """The index of the picture shown at a tick."""
        return max(0, bisect_right(self.ticks, tick) - 1)


def read_at(source: FileSource, times_s: Sequence[float], *, reader: str, deadline_s: float) -> list[Frame]:
    """See `FileSource.read_at`."""
    if reader not in READERS:
        raise ValueError(f"no reader named {reader!r}; there are: {', '.join(READERS)}")
    for time_s in times_s:
        if not (math.isfinite(time_s) and time_s >= 0):
            raise ValueError(f"a time to read at must be finite and not negative; got {time_s} s")
    if not times_s:
        return []
    with source.opened() as video:
        index = index_packets(video)
        if index.is_sound:
            clock = _clock_from(video, index)
    if not index.is_sound:
        return _read_in_order(source, times_s)
    places = [index.place_of(clock.ticks(time_s)) for time_s in times_s]
    wanted = sorted(set(places))
    frames = None
    if reader == "decord" or (reader == "auto" and len(wanted) >= _WORTH_A_PROCESS):
        frames = _read_with_decord(source, index, clock, wanted, deadline_s)
    if frames is None:
        frames = read_by_seeking(source, index, wanted)
    return _read_in_order(source, times_s) if frames is None else [frames[place] for place in places]


def index_packets(video: av.VideoStream) -> PacketIndex:
    """Walks over a file's packets without decoding them."""
    import av

    container: Any = video.container
    ticks: list[int] = []
    keys: list[int] = []
    is_sound = True
    try:
        for packet in container.demux(video):
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.pts is None or packet.is_corrupt:
                is_sound = False
                break
            ticks.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
    except av.FFmpegError:
        is_sound = False
    if is_sound:
        highest = -math.inf
        restart_ticks = clock_of(video).restart_ticks
        is_sorted = True
        for tick in ticks:
            is_sound &= tick >= highest - restart_ticks
            is_sorted &= tick > highest
            highest = max(highest, tick)
        # B-pictures whose packets are in order of time: the times are those of decoding. AVI keeps no others.
        if video.codec_context.has_b_frames and (is_sorted or container.format.name == "avi"):
            is_sound = False
    is_sound = is_sound and bool(ticks) and bool(keys) and len(set(ticks)) == len(ticks)
    return PacketIndex(tuple(sorted(ticks)), tuple(sorted(keys)), is_sound)


def _read_in_order(source: FileSource, times_s: Sequence[float]) -> list[Frame]:
    """The reference: reads the file from its start, and keeps what is shown at each time."""
    order = sorted(range(len(times_s)), key=times_s.__getitem__)
    frames: dict[int, Frame] = {}
    shown: Instant | None = None
    frame: Frame | None = None

    def show() -> Frame:
        nonlocal frame
        if frame is None:
            frame = source.to_frame(shown)  # type: ignore[arg-type]
        return frame

    for instant in source.instants():
        # A nanosecond forgives the rounding of a time that was itself given in seconds.
        while order and shown is not None and times_s[order[0]] < instant.pts_s - 1e-9:
            frames[order.pop(0)] = show()
        if not order:
            break
        shown, frame = instant, None
    for position in order:
        frames[position] = show()
    return [frames[position] for position in range(len(times_s))]


def read_by_seeking(source: FileSource, index: PacketIndex, wanted: list[int]) -> dict[int, Frame] | None:
    """The pictures at these places of the index; None where the file turns out not to be what its packets
    say."""
    frames: dict[int, Frame] = {}
    with source.opened() as video:
        clock = _clock_from(video, index)
        run: Iterator[Instant] = iter(())
        run_from = math.inf  # the key picture from which the run under way was started
        shown: Instant | None = None
        ahead: Instant | None = None
        for place in wanted:
            tick = index.ticks[place]
            if index.key_ticks[0] > tick:
                return None
            key = index.key_ticks[bisect_right(index.key_ticks, tick) - 1]
            here = ahead or shown
            if here is None or run_from > tick or (key > run_from and clock.seconds(key) > here.pts_s):
                if not _seek(video, key):
                    return None
                run, run_from, shown, ahead = (
                    source.instants_from_here(video, _clock_from(video, index)),
                    key,
                    None,
                    None,
                )
            target_s = clock.seconds(tick)
            while ahead is None or ahead.pts_s <= target_s:
                if ahead is not None:
                    shown = ahead
                ahead = next(run, None)
                if ahead is None:
                    break
            if shown is None:
                return None
            # A picture that did not decode leaves the one before it on the screen.
            own_place = index.place_of(clock.ticks(shown.pts_s))
            frames[place] = source.to_frame(shown._replace(index=own_place))
            source.check_open()  # closed meanwhile: the others will not be read
    return frames


def _clock_from(video: av.VideoStream, index: PacketIndex) -> StreamClock:
    """A clock with the origin that reading from the start would give, wherever reading starts."""
    clock = clock_of(video)
    clock.start_no_later_than(index.ticks[0])
    return clock


def _seek(video: av.VideoStream, key: int) -> bool:
    """Puts the container at a key picture; False if it lands anywhere else."""
    import av

    container: Any = video.container
    target = key
    # Some containers seek by decoding time, which is earlier: then the next key picture is hit, so aim lower.
    for back_s in (0.0, 0.5, 2.0, 8.0):
        try:
            container.seek(target - round(back_s / video.time_base), stream=video)  # type: ignore[operator]
            packet = next((p for p in container.demux(video) if p.size), None)
            if packet is not None and packet.pts is not None and packet.pts <= key:
                container.seek(target - round(back_s / video.time_base), stream=video)  # type: ignore[operator]
                return True
        except av.FFmpegError:
            return False
    return False


def _read_with_decord(
    source: FileSource, index: PacketIndex, clock: StreamClock, wanted: list[int], deadline_s: float
) -> dict[int, Frame] | None:
    """The pictures at these places of the index; None, with a log line, where decord cannot be trusted with
    them."""
    why_not = why_not_decord(source)
    if why_not is None:
        request = {"path": str(source.path.absolute()), "num_frames": len(index.ticks), "places": wanted}
        try:
            pictures = _ask_worker(request, deadline_s, source.max_pixels)
            time_base = clock.time_base
            for place, picture in pictures.items():
                own_s = float(index.ticks[place] * time_base)
                # decord's times are float32.
                if abs(picture.begin_s - own_s) > 1e-4 + 2.5e-7 * abs(own_s):
                    raise WorkerFailed(f"it takes picture {place} to be shown at {picture.begin_s} s, not {own_s} s")
            return {
                place: Frame(p.rgb_HW3, clock.seconds(index.ticks[place]), source.stream_id, place)
                for place, p in pictures.items()
            }
        except WorkerFailed as error:
            why_not = str(error)
    _log.info("reading %s with PyAV instead of decord: %s", source.uri, why_not)
    return None


def why_not_decord(source: FileSource) -> str | None:
    """What keeps decord from this file, known beforehand; None if nothing does."""
    if importlib.util.find_spec("decord") is None:
        return "decord is not installed"
    if source.facts.codec not in _DECORD_CODECS:
        return f"it is not known to read {source.facts.codec}"
    first = next(source.instants(), None)
    if first is not None and first.picture.rotation:
        return "the pictures are to be turned"
    return None


class WorkerFailed(Exception):
    """decord, or its process, did not do what was asked; the message says how."""


@dataclass(frozen=True, slots=True)
class Picture:
    rgb_HW3: np.ndarray
    begin_s: float


def _ask_worker(request: dict[str, Any], deadline_s: float, max_pixels: int) -> dict[int, Picture]:
    """Starts a worker, hands it the request, and takes what it sends until the deadline, when it is killed.

    A process, because decord 0.6 can loop for ever holding the interpreter, or crash; and a plain one with
    bytes on its pipes, because multiprocessing would import the caller's main module again and speak pickle.
    """
    process = subprocess.Popen(
        WORKER_COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    alarm = threading.Timer(deadline_s, process.kill)
    alarm.start()
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.close()
        return {place: receive(process.stdout, place, max_pixels) for place in request["places"]}
    except BrokenPipeError:
        raise WorkerFailed("its process died before it was asked") from None
    finally:
        was_late = not alarm.is_alive()
        alarm.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        if was_late:
            _log.warning("decord was stopped after its %.1f s", deadline_s)


def receive(pipe: IO[bytes], place: int, max_pixels: int) -> Picture:
    """One picture off the wire: a line of JSON, then height * width * 3 bytes."""
    line = pipe.readline(4096)
    if not line:
        raise WorkerFailed(f"it gave up, died or ran late at picture {place}")
    try:
        header = json.loads(line)
        if "error" in header:
            raise WorkerFailed(header["error"])
        height, width, begin_s = int(header["height"]), int(header["width"]), float(header["begin_s"])
    except (ValueError, KeyError, TypeError):
        raise WorkerFailed("it sent something that is not a picture") from None
    if not 0 < height * width <= max_pixels:
        raise WorkerFailed(f"it sent a picture of {width}x{height}")
    data = pipe.read(height * width * 3)
    if len(data) != height * width * 3:
        raise WorkerFailed(f"it died or ran late in the middle of picture {place}")
    return Picture(np.frombuffer(data, np.uint8).reshape(height, width, 3), begin_s)

"""Packets to pictures with PyAV, packet by packet: a damaged one costs itself and not what follows."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .stats import SourceStats

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

# Twice the pixels of an 8K picture is what no camera sends and what no machine should try by accident.
MAX_PIXELS = 2 * 7680 * 4320

# Shapes: H rows, W columns, 3 colours.

_MAX_FAILED_READS = 64  # in a row; after each the demuxer is asked to go on behind the damage


class TimedPicture(NamedTuple):
    """A decoded picture and its time in ticks of its stream, None where the stream has none."""

    picture: av.VideoFrame
    ticks: int | None


def first_video(container: InputContainer) -> av.VideoStream | None:
    """The video stream to watch: the first that is not the cover picture of a song."""
    from av.stream import Disposition

    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


def decode_packet(packet: av.Packet, stats: SourceStats) -> list[av.VideoFrame]:
    """What the decoder gives for one more packet; a packet that it refuses is counted and gives nothing."""
    import av

    try:
        pictures = packet.decode()
    except av.FFmpegError:
        stats.num_damaged += 1
        return []
    stats.num_damaged += sum(picture.is_corrupt for picture in pictures)
    return pictures  # type: ignore[return-value]


def decode_all(container: InputContainer, stream: av.VideoStream, stats: SourceStats) -> Iterator[av.VideoFrame]:
    """Every picture from here to the end of a recording, in the decoder's order; survives damage in the
    container."""
    import av

    packets = container.demux(stream)
    num_failed = 0
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:
            stats.num_damaged += 1
            num_failed += 1
            if num_failed < _MAX_FAILED_READS:
                packets = container.demux(stream)  # the generator died with its error; a new one reads on
                continue
            break
        num_failed = 0
        yield from decode_packet(packet, stats)
    # The demuxer gave up before its end, so nobody has asked the decoder for what it still holds.
    try:
        yield from stream.codec_context.decode(None)
    except av.FFmpegError:
        stats.num_damaged += 1


_LOOK_AHEAD = 8  # pictures; the files that need it have had them displaced by 3 at most


def in_display_order(
    pictures: Iterable[av.VideoFrame], stream: av.VideoStream, restart_ticks: int
) -> Iterator[TimedPicture]:
    """Gives the pictures, which a decoder puts out in the order of display, their times in that order too.

    Where B-pictures are stored in a container without presentation times of its own (AVI, some cameras' MP4),
    the decoder's pictures are in order but their times are those of decoding:

        I0 B3 B2 P4 P1  ->  I0 B1 B2 P3 P4

    So times are sorted over a short look-ahead; in any other file they are sorted already and stay as they
    are. `restart_ticks`: a step back by more is a new beginning, and is not sorted across.
    """
    held: deque[av.VideoFrame] = deque()
    times: list[int] = []  # a heap

    def release() -> TimedPicture:
        picture = held.popleft()
        return TimedPicture(picture, None if picture.pts is None else heapq.heappop(times))

    for picture in pictures:
        if picture.pts is not None:
            if times and picture.pts < max(times) - restart_ticks:
                while held:
                    yield release()
            heapq.heappush(times, picture.pts)
        held.append(picture)
        if len(held) > _LOOK_AHEAD or not stream.codec_context.has_b_frames:
            yield release()
    while held:
        yield release()


def to_rgb(picture: av.VideoFrame) -> np.ndarray:
    """uint8 (height, width, 3), turned upright where the stream says how."""
    rgb_HW3 = picture.to_ndarray(format="rgb24")
    quarter_turns = round(picture.rotation / 90) % 4
    if quarter_turns:
        rgb_HW3 = np.ascontiguousarray(np.rot90(rgb_HW3, quarter_turns))
    return rgb_HW3

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

# FFmpeg also opens playlists, scripts and text as if they were video; those name other files and hosts, and a
# text file is a user's mistake to be told about. Sound-only formats are here so that they can be told apart
# from no media at all.
MEDIA_FORMATS = tuple(
    """
    mov,mp4,m4a,3gp,3g2,mj2 matroska,webm avi mpegts mpeg mpegvideo m4v h264 hevc av1 obu ivf flv live_flv asf
    asf_o ogg rm mxf nut dv wtv gif apng mjpeg mpjpeg yuv4mpegpipe vc1 h263 h261 cavsvideo dirac dnxhd vvc nsv
    nuv swf gxf bink smk roq flic film_cpk webp avif avs
    wav w64 mp3 aac flac ac3 eac3 dts aiff au caf amr ape wv tta
""".split()
)

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


class DamageGuard:
    """Decodes a live stream, and holds back what the decoder makes up after damage until the next key frame.

    Not thread-safe: one per connection.

    stats: where damage is counted, and what is held back for it.
    max_skip_s: for so long at most, and after that not again before there is a key frame: a stream with intra refresh
        has none to wait for. 0: nothing is held back.
    believes_marks: whether a packet that the demuxer marks as torn is; between two segments of HLS it is not.
    """

    def __init__(self, stats: SourceStats, max_skip_s: float, *, believes_marks: bool = True) -> None:
        self._stats, self._max_skip_s, self._believes_marks = stats, max_skip_s, believes_marks
        self._may_hold = max_skip_s > 0
        self._damaged_at_s: float | None = None

    def decode(self, packet: av.Packet, now_s: float, *, is_after_loss: bool = False) -> list[av.VideoFrame]:
        """The pictures of one more packet that can be handed out; it was read at `now_s`, seconds that only grow.

        is_after_loss: whether pictures before it were lost whole.
        """
        if is_after_loss:
            self._stats.num_damaged += 1
            self._damage(now_s)
        num_damaged = self._stats.num_damaged
        pictures = decode_packet(packet, self._stats)
        is_refused = not pictures and self._stats.num_damaged > num_damaged
        is_torn = self._believes_marks and packet.is_corrupt
        if is_torn and not is_refused:
            self._stats.num_damaged += 1
        shown = [picture for picture in pictures if self._shows(picture, now_s)]
        if is_refused or is_torn:
            self._damage(now_s)
        return shown

    def _damage(self, now_s: float) -> None:
        if self._damaged_at_s is None and self._may_hold:
            self._damaged_at_s = now_s

    def _shows(self, picture: av.VideoFrame, now_s: float) -> bool:
        """Whether it can be handed out. Moves on: a whole key frame ends the wait, and so does its limit."""
        if picture.is_corrupt:
            self._damage(now_s)
        elif picture.key_frame:
            self._damaged_at_s, self._may_hold = None, self._max_skip_s > 0
        if self._damaged_at_s is None:
            return True
        if now_s - self._damaged_at_s >= self._max_skip_s:
            self._damaged_at_s, self._may_hold = None, False
            return True
        self._stats.num_skipped += 1
        return False


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

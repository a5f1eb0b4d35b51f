"""McapSource: the pictures of one camera topic of an MCAP recording, with the joints' rows of their times."""

from __future__ import annotations

import heapq
import logging
import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from .decoding import MAX_PIXELS
from .mcap_file import MAX_CHUNK_BYTES, DamagedPiece, McapFile, Piece
from .mcap_messages import DamagedMessage, MessageReader, is_joints, shows_pictures, tells_rows
from .require import require
from .robot_log import RobotFrame, RobotLogSource, RobotRow, log_address
from .sampling import EveryFrame, Sampler
from .source import SourceError

if TYPE_CHECKING:
    from mcap.records import Channel, Message, Schema

_log = logging.getLogger(__name__)

_SETTINGS = {
    "topic": "the camera's topic",
    "state": "the topic of joint states; none: without",
    "action": "the topic of commands",
}
_NONE = "none"
_USUAL_STATE = "/joint_states"
DAMAGE = ("gap", "error")
_MAX_HELD_CHUNKS = 16  # of the largest size there may be: what may wait for its turn where chunks overlap in time
_MAX_STAMP_OFF_S = 86_400.0
_MESSAGE_BYTES = 256  # that a message takes beside its data


class _Due(NamedTuple):
    """A message in its turn: by time, and of one time the rows before the pictures that they belong to."""

    log_ticks: int
    is_picture: bool
    order: int
    message: Message


class _Damage(NamedTuple):
    """A piece that cannot be read, or the end that is missing, in its turn.

    until_ticks: what was up to then may be missing; what other pieces have of that time is flagged too.
    """

    words: str
    until_ticks: int


class McapSource(RobotLogSource):
    """A camera topic of an MCAP file: run.mcap, mcap://run.mcap?topic=/cam/image&state=/joint_states&action=/command.

    Pictures are sensor_msgs/msg/CompressedImage (JPEG, PNG), sensor_msgs/msg/Image (rgb8, bgr8, rgba8, bgra8, mono8)
    and foxglove.CompressedImage as JSON; rows are sensor_msgs/msg/JointState and Float64MultiArray. No ROS is needed.

    Times are those of logging, in seconds from the first message of the file, so two topics of one file share a clock;
    `wall_s` is what the camera's own clock said, where it is within a day of these. A chunk that is damaged costs
    itself: the frame after it has `gap_s` above 0, and no row from before it. So does a damaged picture; after a
    damaged row there is none of its topic until the next.

    topic: the camera's; may be left out where there is one.
    state, action: topics of rows. By default the state is the one topic of joint states, or /joint_states of several;
        "none": without.
    damage: "gap": goes on after what is damaged, and flags it; "error": a SourceError that names it.
    max_pixels: a larger picture is damaged.
    max_chunk_bytes: a chunk that says it unpacks to more is damaged.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        stream_id: str | None = None,
        topic: str | None = None,
        state: str | None = None,
        action: str | None = None,
        damage: str = "gap",
        max_pixels: int = MAX_PIXELS,
        max_chunk_bytes: int = MAX_CHUNK_BYTES,
    ) -> None:
        if damage not in DAMAGE:
            raise ValueError(f"no way with damage named {damage!r}; there are: {', '.join(DAMAGE)}")
        if max_chunk_bytes < 1 or max_pixels < 1:
            raise ValueError(f"limits are 1 or more; got max_pixels={max_pixels}, max_chunk_bytes={max_chunk_bytes}")
        address = log_address(os.fspath(uri), "mcap", _SETTINGS)
        self.path = address.path
        _check_file(self)
        for module in ("mcap", "mcap_ros2"):
            require(module, who="robot logs", extra="robot")
        self.damage, self.max_pixels = damage, max_pixels
        self._file = McapFile(self.path, max_chunk_bytes=max_chunk_bytes)
        wanted = topic or address.settings.get("topic")
        self._check_there_is_something()
        self._file.look_for(wanted)
        self.topic = self._choose_camera(wanted)
        self.state_topic = self._choose_state(state or address.settings.get("state"))
        self.action_topic = self._choose_rows("action", action or address.settings.get("action"))
        super().__init__(str(self.path), stream_id=stream_id or f"{self.path.stem}{self.topic}")
        self._origin_ticks, self._end_ticks = self._file.times_ticks
        self.duration_s = self._seconds(self._end_ticks)

    def __iter__(self) -> Iterator[RobotFrame]:
        return self.sampled(EveryFrame())

    def sampled(self, sampler: Sampler) -> Iterator[RobotFrame]:
        """The frames that are due; the pictures of others are not decoded."""
        self.check_open()
        return self._frames(sampler)

    def _frames(self, sampler: Sampler) -> Iterator[RobotFrame]:
        run, reader = sampler.start(), MessageReader(self.max_pixels)
        rows: dict[str, RobotRow] = {}
        broken: set[str] = set()  # topics with damaged messages, each told once
        last_s, gap_s, damage, num_given = 0.0, 0.0, "", 0
        index, hole_until_ticks = -1, 0
        for due in self._in_turn():
            if self.is_closed:
                return
            if isinstance(due, _Damage):
                self._count_damage(due.words, bool(damage))
                damage = damage or due.words
                hole_until_ticks = max(hole_until_ticks, due.until_ticks)
                rows.clear()
                continue
            message = due.message
            pts_s = self._seconds(message.log_time)
            channel = self._file.channels[message.channel_id]
            schema = self._file.schemas[channel.schema_id]
            try:
                if not due.is_picture:
                    told = reader.row(channel, schema, message.data)
                    rows[channel.topic] = RobotRow(told.values_D, told.names, pts_s)
                    continue
                index += 1
                self.stats.num_frames += 1
                picture = reader.picture(channel, schema, message.data) if run.take(pts_s) else None
            except DamagedMessage as error:
                self._count_damage(f"a message of {channel.topic} at {pts_s:.3f} s: {error}", channel.topic in broken)
                broken.add(channel.topic)
                rows.pop(channel.topic, None)
                damage = damage or (f"a message at {pts_s:.3f} s: {error}" if due.is_picture else "")
                continue
            if damage:
                gap_s += self._count_gap(pts_s - last_s)
            last_s, damage = pts_s, damage if message.log_time < hole_until_ticks else ""
            if picture is None:
                continue
            wall_s = picture.stamp_s
            if wall_s is not None and not abs(wall_s - message.log_time / 1e9) <= _MAX_STAMP_OFF_S:
                wall_s = None  # a clock that counts from the robot's start, or no number at all
            yield RobotFrame(
                picture.rgb_HW3, pts_s, self.stream_id, index, wall_s, None, gap_s,
                state=rows.get(self.state_topic or ""), action=rows.get(self.action_topic or ""),
            )  # fmt: skip
            gap_s, num_given = 0.0, num_given + 1
        self._tell_the_end(damage, last_s, index + 1, num_given)

    def _count_damage(self, words: str, was_told: bool) -> None:
        self.stats.num_damaged += 1
        if self.damage == "error":
            raise SourceError(f"{self.uri}: {words}; open it with damage='gap' to go on after it")
        if not was_told:
            _log.warning("%s: %s; what follows it is flagged", self.uri, words)

    def _count_gap(self, gap_s: float) -> float:
        """Counts a stretch in which nothing could be seen; a moment at least, or it would not show as one."""
        gap_s = max(gap_s, 1e-9)
        self.stats.num_gaps += 1
        self.stats.gap_s += gap_s
        return gap_s

    def _tell_the_end(self, damage: str, last_s: float, num_pictures: int, num_given: int) -> None:
        """Called once all has been read."""
        if not num_given and damage:
            raise SourceError(f"{self.uri}: no picture of {self.topic} can be read: {damage}")
        if not num_pictures:
            raise SourceError(f"{self.uri}: topic {self.topic} has no pictures in it")
        if damage:
            # No frame follows that could carry the gap, so it is told here.
            assert self.duration_s is not None
            self._count_gap(self.duration_s - last_s)
            _log.warning("%s ends with damage, %.3f s after its last picture", self.uri, self.duration_s - last_s)

    def _in_turn(self) -> Iterator[_Due | _Damage]:
        """The messages of the chosen topics in order of time, whatever order the chunks are in.

        pieces, by their first time  ->  [heap of messages]  ->  those before the next piece's first time
        """
        waiting: list[_Due] = []
        num_held = order = 0
        topics = {self.topic, self.state_topic, self.action_topic} - {None}
        with self.path.open("rb") as file:
            for piece in self._file.pieces:
                while waiting and waiting[0].log_ticks < piece.start_ticks:
                    due = heapq.heappop(waiting)
                    num_held -= _held_bytes(due.message)
                    yield due
                if self.is_closed:
                    return
                try:
                    found = self._read(file, piece, topics)
                except DamagedPiece as error:
                    yield _Damage(self._words(piece, error), piece.end_ticks)
                    continue
                for message in found:
                    is_picture = self._file.channels[message.channel_id].topic == self.topic
                    heapq.heappush(waiting, _Due(message.log_time, is_picture, order, message))
                    num_held += _held_bytes(message)
                    order += 1
                if num_held > _MAX_HELD_CHUNKS * self._file.max_chunk_bytes:
                    raise SourceError(
                        f"{self.uri}: its chunks overlap in time so much that {num_held} bytes wait for their turn; "
                        "sort the file first, or raise max_chunk_bytes"
                    )
        while waiting:
            yield heapq.heappop(waiting)
        if self._file.cut_off is not None:
            yield _Damage(f"after {self._seconds(self._end_ticks):.3f} s {self._file.cut_off}", self._end_ticks)

    def _read(self, file: object, piece: Piece, topics: set[str | None]) -> list[Message]:
        """The messages of these topics; their channels may be described in this piece first, so again if they are."""
        wanted = self._channels_of(topics)
        found = self._file.read(file, piece, wanted)  # type: ignore[arg-type]
        again = self._channels_of(topics)
        return found if again == wanted else self._file.read(file, piece, again)  # type: ignore[arg-type]

    def _channels_of(self, topics: set[str | None]) -> set[int]:
        return {
            number
            for number, channel in self._file.channels.items()
            if channel.topic in topics and (shows_pictures(self._schema(channel)) or tells_rows(self._schema(channel)))
        }

    def _schema(self, channel: Channel) -> Schema | None:
        return self._file.schemas.get(channel.schema_id)

    def _words(self, piece: Piece, error: DamagedPiece) -> str:
        kind = "chunk" if piece.is_chunk else "stretch"
        when = f"from {self._seconds(piece.start_ticks):.3f} to {self._seconds(piece.end_ticks):.3f} s"
        if piece.start_ticks < self._origin_ticks:
            when = "of unknown time"
        return f"{kind} {piece.number} at byte {piece.offset}, {when}, is damaged: {error}"

    def _seconds(self, log_ticks: int) -> float:
        return (log_ticks - self._origin_ticks) / 1e9

    def _check_there_is_something(self) -> None:
        if not self._file.pieces:
            why = f": {self._file.cut_off}" if self._file.cut_off else ""
            raise SourceError(f"{self.path} has no messages in it{why}")

    def _topics(self, fits: Callable[[Schema | None], bool]) -> list[str]:
        return sorted({c.topic for c in self._file.channels.values() if fits(self._schema(c))})

    def _choose_camera(self, wanted: str | None) -> str:
        cameras = self._topics(shows_pictures)
        if wanted is None and len(cameras) > 1:
            raise SourceError(f"{self.path} has several cameras: {', '.join(cameras)}; choose one with topic=...")
        if wanted is None and not cameras:
            there = ", ".join(sorted({channel.topic for channel in self._file.channels.values()})) or "none"
            raise SourceError(f"{self.path} has no camera topic; its topics: {there[:300]}")
        topic = wanted or cameras[0]
        if topic not in cameras:
            raise SourceError(
                f"{self.path} has no camera topic {topic!r}; its camera topics: {', '.join(cameras) or 'none'}"
            )
        self._check_channels(topic)
        return topic

    def _choose_state(self, wanted: str | None) -> str | None:
        if wanted is not None:
            return self._choose_rows("state", wanted)
        joints = self._topics(is_joints)
        if len(joints) > 1 and _USUAL_STATE not in joints:
            raise SourceError(
                f"{self.path} has several topics of joint states: {', '.join(joints)}; choose one with "
                "state=..., or none"
            )
        return self._choose_rows("state", _USUAL_STATE if len(joints) > 1 else joints[0]) if joints else None

    def _choose_rows(self, kind: str, wanted: str | None) -> str | None:
        if wanted is None or wanted == _NONE:
            return None
        there = self._topics(tells_rows)
        if wanted not in there:
            raise SourceError(
                f"{self.path} has no topic {wanted!r} for {kind}; there are: {', '.join(there) or 'none'}"
            )
        self._check_channels(wanted)
        return wanted

    def _check_channels(self, topic: str) -> None:
        reader = MessageReader(self.max_pixels)
        for channel in self._file.channels.values():
            if channel.topic == topic:
                reader.check(channel, self._schema(channel))


def _held_bytes(message: Message) -> int:
    return _MESSAGE_BYTES + len(message.data)


def _check_file(source: McapSource) -> None:
    """One clear sentence for what can be wrong before a byte is read."""
    path = source.path
    try:
        facts = path.stat()
    except FileNotFoundError:
        raise SourceError(f"no file or folder at {path}; check the path") from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:  # a NUL byte
        raise SourceError(f"{str(path)!r} is no path") from None
    if not stat.S_ISREG(facts.st_mode):
        raise SourceError(f"{path} is no regular file; give an MCAP file")
    if facts.st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes)")
    if not os.access(path, os.R_OK):
        raise SourceError(f"cannot read {path}: permission denied")

"""Robot logs made on the spot: MCAP files as a ROS 2 recorder writes them, and LeRobot datasets of both layouts."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from .clips import HEIGHT, RATE_HZ, WIDTH, make_clip, numbered_picture

# Shapes: H rows, W columns, 3 colours.

START_NS = 1_700_000_000 * 10**9
STEP_NS = 10**9 // RATE_HZ
CAMERA, JOINTS, COMMANDS = "/cam/image/compressed", "/joint_states", "/commands"
STATE_NAMES = ("shoulder", "elbow")

_LINE = "\n" + "=" * 80 + "\n"
_HEADER = "std_msgs/Header header\n"
_HEADER_PARTS = (
    _LINE + "MSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
    + _LINE + "MSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
)  # fmt: skip
MESSAGES = {
    "sensor_msgs/msg/CompressedImage": _HEADER + "string format\nuint8[] data\n" + _HEADER_PARTS,
    "sensor_msgs/msg/Image": _HEADER
    + "uint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\nuint8[] data\n"
    + _HEADER_PARTS,
    "sensor_msgs/msg/JointState": _HEADER
    + "string[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n"
    + _HEADER_PARTS,
    "std_msgs/msg/Float64MultiArray": "std_msgs/MultiArrayLayout layout\nfloat64[] data\n"
    + _LINE
    + "MSG: std_msgs/MultiArrayLayout\nstd_msgs/MultiArrayDimension[] dim\nuint32 data_offset\n"
    + _LINE
    + "MSG: std_msgs/MultiArrayDimension\nstring label\nuint32 size\nuint32 stride\n",
}


def header(log_ns: int) -> SimpleNamespace:
    return SimpleNamespace(stamp=SimpleNamespace(sec=log_ns // 10**9, nanosec=log_ns % 10**9), frame_id="cam")


def coded(rgb_HW3: np.ndarray, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb_HW3).save(out, kind)
    return out.getvalue()


def compressed(rgb_HW3: np.ndarray, log_ns: int, kind: str = "JPEG", named: str = "jpeg") -> SimpleNamespace:
    return SimpleNamespace(header=header(log_ns), format=named, data=coded(rgb_HW3, kind))


def raw(rows: np.ndarray, encoding: str, log_ns: int, padding: int = 0, **told: Any) -> SimpleNamespace:
    """A sensor_msgs/Image of uint8 (height, width * channels), with so many bytes behind each row."""
    height, step = rows.shape
    padded = np.concatenate([rows, np.full((height, padding), 7, np.uint8)], axis=1)
    facts = {
        "height": height, "width": WIDTH, "encoding": encoding, "is_bigendian": 0, "step": step + padding,
        "data": padded.tobytes(), "header": header(log_ns),
    }  # fmt: skip
    return SimpleNamespace(**{**facts, **told})


def joints(log_ns: int, position: Sequence[float], name: Sequence[str] = STATE_NAMES) -> SimpleNamespace:
    return SimpleNamespace(header=header(log_ns), name=list(name), position=list(position), velocity=[], effort=[])


def numbers(values: Sequence[float]) -> SimpleNamespace:
    return SimpleNamespace(layout=SimpleNamespace(dim=[], data_offset=0), data=list(values))


class LogWriter:
    """Writes an MCAP file of ROS 2 messages.

    chunk_bytes: a chunk is closed when it is larger; 0: no chunks at all.
    """

    def __init__(self, path: Path, *, chunk_bytes: int = 6000, compression: str = "ZSTD") -> None:
        from mcap.writer import CompressionType, Writer

        self.path = path
        self._file = path.open("wb")
        self._writer = Writer(
            self._file,
            chunk_size=max(1, chunk_bytes),
            compression=CompressionType[compression],
            use_chunking=chunk_bytes > 0,
        )
        self._writer.start(profile="ros2", library="test")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._encoders: dict[str, Callable[[Any], bytes]] = {}

    def add(self, topic: str, kind: str, message: Any, log_ns: int) -> None:
        from mcap_ros2._dynamic import serialize_dynamic

        if kind not in self._schemas:
            self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", MESSAGES[kind].encode())
            self._encoders[kind] = serialize_dynamic(kind, MESSAGES[kind])[kind]
        if topic not in self._channels:
            self._channels[topic] = self._writer.register_channel(topic, "cdr", self._schemas[kind])
        self.add_bytes(topic, self._encoders[kind](message), log_ns)

    def add_bytes(self, topic: str, data: bytes, log_ns: int) -> None:
        self._writer.add_message(self._channels[topic], log_ns, data, log_ns)

    def describe(self, topic: str, kind: str, encoding: str, text: bytes, message_encoding: str) -> None:
        """Registers a topic of anything."""
        schema = self._writer.register_schema(kind, encoding, text)
        self._channels[topic] = self._writer.register_channel(topic, message_encoding, schema)

    def close(self) -> Path:
        self._writer.finish()
        self._file.close()
        return self.path


def picture_ns(number: int) -> int:
    return START_NS + number * STEP_NS


def write_log(path: Path, num_frames: int = 30, *, with_joints: bool = True, **settings: Any) -> Path:
    """Numbered pictures at RATE_HZ, and joints told 5 ms before each: [number, -number]; commands at every second."""
    log = LogWriter(path, **settings)
    for number in range(num_frames):
        log_ns = picture_ns(number)
        if with_joints and number:
            log.add(
                JOINTS, "sensor_msgs/msg/JointState", joints(log_ns - 5_000_000, [number, -number]), log_ns - 5_000_000
            )
        if with_joints and number % 2 == 0:
            log.add(COMMANDS, "std_msgs/msg/Float64MultiArray", numbers([10.0 * number]), log_ns)
        picture = compressed(numbered_picture(number), log_ns)
        log.add(CAMERA, "sensor_msgs/msg/CompressedImage", picture, log_ns)
    return log.close()


def chunk_places(path: Path) -> list[tuple[int, int]]:
    """Where the chunks of a file begin, and how long they are, as its own summary says."""
    from mcap.reader import make_reader

    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    return [(index.chunk_start_offset, index.chunk_length) for index in summary.chunk_indexes]


def spoil(path: Path, begin: int, end: int) -> Path:
    """The file with these bytes turned over."""
    data = bytearray(path.read_bytes())
    data[begin:end] = bytes(value ^ 0xFF for value in data[begin:end])
    bad = path.with_name(f"bad-{path.name}")
    bad.write_bytes(data)
    return bad


CAMERA_KEY = "observation.images.top"


def _features(cameras: Sequence[str], dtype: str) -> dict[str, Any]:
    feature = {"dtype": dtype, "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]}
    return {
        **dict.fromkeys(cameras, feature),
        "observation.state": {"dtype": "float32", "shape": [2], "names": list(STATE_NAMES)},
        "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["a", "b"]}},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    }


def rows_of(episode: int, num_frames: int) -> dict[str, list[Any]]:
    """State [episode, number], action [number, -number]; times as LeRobot has them, in float32."""
    return {
        "observation.state": [[float(episode), float(n)] for n in range(num_frames)],
        "action": [[float(n), float(-n)] for n in range(num_frames)],
        "timestamp": [float(np.float32(n / RATE_HZ)) for n in range(num_frames)],
        "frame_index": list(range(num_frames)),
        "episode_index": [episode] * num_frames,
    }


def _write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    types = {
        "observation.state": pa.list_(pa.float32(), 2),
        "action": pa.list_(pa.float32()),
        "timestamp": pa.float32(),
    }
    pq.write_table(pa.table({name: pa.array(values, types.get(name)) for name, values in columns.items()}), path)


def _write_info(folder: Path, version: str, cameras: Sequence[str], dtype: str, **told: Any) -> None:
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    info = {"codebase_version": version, "fps": RATE_HZ, "chunks_size": 1000, "features": _features(cameras, dtype)}
    (folder / "meta" / "info.json").write_text(json.dumps({**info, **told}))


def write_v2(
    folder: Path, lengths: Sequence[int] = (20, 30), cameras: Sequence[str] = (CAMERA_KEY,), dtype: str = "video"
) -> Path:
    """A dataset as v2.1 has it: a table and a video for each episode."""
    _write_info(
        folder, "v2.1", cameras, dtype,
        data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    )  # fmt: skip
    lines = []
    for episode, length in enumerate(lengths):
        _write_table(folder / f"data/chunk-000/episode_{episode:06d}.parquet", rows_of(episode, length))
        for camera in cameras:
            (folder / f"videos/chunk-000/{camera}").mkdir(parents=True, exist_ok=True)
            make_clip(folder / f"videos/chunk-000/{camera}/episode_{episode:06d}.mp4", length)
        lines.append(json.dumps({"episode_index": episode, "tasks": [f"task {episode}"], "length": length}))
    (folder / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_v3(folder: Path, lengths: Sequence[int] = (20, 30), cameras: Sequence[str] = (CAMERA_KEY,)) -> Path:
    """A dataset as v3.0 has it: all episodes in one table and one video, pictures numbered throughout."""
    _write_info(
        folder, "v3.0", cameras, "video",
        data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    )  # fmt: skip
    rows: dict[str, list[Any]] = {}
    episodes: dict[str, list[Any]] = {}
    begin = 0
    for episode, length in enumerate(lengths):
        for name, values in rows_of(episode, length).items():
            rows.setdefault(name, []).extend(values)
        told: dict[str, Any] = {
            "episode_index": episode, "length": length, "tasks": [f"task {episode}"],
            "data/chunk_index": 0, "data/file_index": 0,
        }  # fmt: skip
        for camera in cameras:
            told |= {
                f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": 0,
                f"videos/{camera}/from_timestamp": begin / RATE_HZ,
                f"videos/{camera}/to_timestamp": (begin + length) / RATE_HZ,
            }  # fmt: skip
        for name, value in told.items():
            episodes.setdefault(name, []).append(value)
        begin += length
    _write_table(folder / "data/chunk-000/file-000.parquet", rows)
    _write_table(folder / "meta/episodes/chunk-000/file-000.parquet", episodes)
    for camera in cameras:
        (folder / f"videos/{camera}/chunk-000").mkdir(parents=True, exist_ok=True)
        make_clip(folder / f"videos/{camera}/chunk-000/file-000.mp4", begin)
    return folder

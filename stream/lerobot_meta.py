"""What a LeRobot dataset on disk says of itself: its cameras, and where an episode is. Hostile until checked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from .require import require
from .robot_log import MAX_NUMBERS
from .source import SourceError

# Shapes: N rows, D numbers of a row.

STATE, ACTION = "observation.state", "action"

_MAX_INFO_BYTES = 16 * 2**20
_MAX_LINE_BYTES = 2**20
_MAX_ROWS = 5_000_000
_MAX_TABLE_BYTES = 2**30
_VERSION = re.compile(r"v([23])\.\d+")
_HOLE = re.compile(r"\{(\w+)(?::0?(\d{1,2})d)?\}")
_TIMESTAMP, _EPISODE = "timestamp", "episode_index"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a dataset is laid out. Made by `read_layout`, read by EpisodeSource.

    version: of the layout: 2 has a file for each episode, 3 several episodes in one.
    rate_hz: frames a second, of all cameras.
    cameras: those stored as video.
    stored_as_pictures: cameras that are pictures in tables instead.
    features: as meta/info.json has them.
    """

    folder: Path
    version: int
    rate_hz: float
    cameras: tuple[str, ...]
    stored_as_pictures: tuple[str, ...]
    data_path: str
    video_path: str | None
    episodes_per_chunk: int
    features: Mapping[str, Any]

    def names(self, feature: str, num: int) -> tuple[str, ...]:
        """What its numbers are called; by their place where the dataset does not say."""
        told = self.features.get(feature, {}).get("names")
        if isinstance(told, Mapping):
            told = [name for group in told.values() for name in (group if isinstance(group, list) else [group])]
        if isinstance(told, list) and len(told) == num:
            return tuple(str(name) for name in told)
        return tuple(str(number) for number in range(num))


class Episode(NamedTuple):
    """Where an episode is. from_s, until_s: its stretch of the video file; until_s None: to the end of it."""

    data: Path
    video: Path
    from_s: float
    until_s: float | None
    tasks: tuple[str, ...]


class Table(NamedTuple):
    """The rows of one episode in order of time; None where the dataset has no such feature."""

    times_s: list[float]
    state_ND: np.ndarray | None
    action_ND: np.ndarray | None


def read_layout(folder: Path) -> Layout:
    """Reads meta/info.json; SourceError for what is no LeRobot dataset that can be read."""
    path = folder / "meta" / "info.json"
    info = _load_json(path, folder)
    version = _VERSION.fullmatch(str(info.get("codebase_version")))
    if version is None:
        raise SourceError(
            f"{folder} is a dataset of version {info.get('codebase_version')!r}; wanted v2.0, v2.1 or v3.x"
        )
    features = info.get("features")
    if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
        raise SourceError(f"{path} tells no features; the dataset is damaged")
    rate_hz = info.get("fps")
    if not isinstance(rate_hz, int | float) or not (math.isfinite(rate_hz) and 0 < rate_hz <= 10_000):
        raise SourceError(f"{path} says fps={rate_hz!r}; wanted a number above 0")
    video_path = info.get("video_path")
    number = int(version[1])
    episodes_per_chunk = info.get("chunks_size", 1000)
    if not isinstance(episodes_per_chunk, int) or episodes_per_chunk < 1:
        raise SourceError(f"{path} says chunks_size={episodes_per_chunk!r}; wanted a whole number above 0")
    return Layout(
        folder=folder,
        version=number,
        rate_hz=float(rate_hz),
        cameras=tuple(name for name, feature in features.items() if feature.get("dtype") == "video"),
        stored_as_pictures=tuple(name for name, feature in features.items() if feature.get("dtype") == "image"),
        data_path=str(info.get("data_path")),
        video_path=None if video_path is None else str(video_path),
        episodes_per_chunk=episodes_per_chunk,
        features=features,
    )


def find_episode(layout: Layout, number: int, camera: str) -> Episode:
    """Where that episode is; SourceError where it is not, or has no video."""
    if layout.video_path is None:
        raise SourceError(f"{layout.folder} has no video: meta/info.json has no video_path; nothing can be shown of it")
    episode = _in_one_file(layout, number, camera) if layout.version == 2 else _among_others(layout, number, camera)
    if not episode.data.is_file():
        raise SourceError(f"episode {number} of {layout.folder} has no rows: {episode.data} is missing")
    if not episode.video.is_file():
        raise SourceError(
            f"episode {number} of {layout.folder} has no video of {camera}: {episode.video} is missing; "
            "fetch the dataset whole, or choose another episode"
        )
    return episode


def read_rows(layout: Layout, episode: Episode, number: int) -> Table:
    """The state and action rows of an episode."""
    wanted = [_TIMESTAMP, _EPISODE, *(name for name in (STATE, ACTION) if name in layout.features)]
    table = _read_table(episode.data, wanted, number)
    if table is None or not table.num_rows:
        raise SourceError(f"{episode.data} has no rows of episode {number}; the dataset is damaged")
    times_s = _numbers(table, _TIMESTAMP, episode.data)[:, 0]
    if not np.isfinite(times_s).all() or (np.diff(times_s) < 0).any():
        raise SourceError(f"the times of episode {number} in {episode.data} do not increase; the dataset is damaged")
    state, action = (_numbers(table, name, episode.data) if name in wanted else None for name in (STATE, ACTION))
    return Table(times_s.tolist(), state, action)


def _in_one_file(layout: Layout, number: int, camera: str) -> Episode:
    told = _legacy_episode(layout, number)
    holes = {"episode_chunk": number // layout.episodes_per_chunk, "episode_index": number, "video_key": camera}
    return Episode(
        data=_filled(layout.folder, layout.data_path, holes),
        video=_filled(layout.folder, str(layout.video_path), holes),
        from_s=0.0,
        until_s=None,
        tasks=_words(told.get("tasks")),
    )


def _legacy_episode(layout: Layout, number: int) -> dict[str, Any]:
    path = layout.folder / "meta" / "episodes.jsonl"
    num_episodes = 0
    try:
        with path.open(encoding="utf-8") as lines:
            while line := lines.readline(_MAX_LINE_BYTES):
                told = json.loads(line) if line.strip() else None
                if isinstance(told, dict):
                    num_episodes += 1
                    if told.get(_EPISODE) == number:
                        return told
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is damaged: {str(error)[:120]}") from None
    raise SourceError(f"{layout.folder} has no episode {number}; it has {num_episodes}, the first is 0")


def _among_others(layout: Layout, number: int, camera: str) -> Episode:
    """Version 3 keeps a table of episodes, that says in which files each is, and where in its video."""
    wanted = [
        _EPISODE, "tasks", "data/chunk_index", "data/file_index",
        *(f"videos/{camera}/{name}" for name in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")),
    ]  # fmt: skip
    paths = sorted((layout.folder / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise SourceError(f"{layout.folder} has no table of episodes (meta/episodes); fetch the dataset whole")
    for path in paths:
        table = _read_table(path, wanted, number)
        if table is not None and table.num_rows:
            return _of_row(layout, number, camera, table.slice(0, 1).to_pylist()[0], path)
    raise SourceError(f"{layout.folder} has no episode {number}; the first is 0")


def _of_row(layout: Layout, number: int, camera: str, row: dict[str, Any], where: Path) -> Episode:
    def place(kind: str) -> dict[str, Any]:
        holes = {"chunk_index": row.get(f"{kind}/chunk_index"), "file_index": row.get(f"{kind}/file_index")}
        if not all(isinstance(value, int) and value >= 0 for value in holes.values()):
            raise SourceError(
                f"episode {number} of {layout.folder} has no {kind}: {where} does not say where; choose another"
            )
        return {**holes, "video_key": camera, _EPISODE: number}

    data, video = place("data"), place(f"videos/{camera}")
    from_s, until_s = (row.get(f"videos/{camera}/{name}_timestamp") for name in ("from", "to"))
    is_time = all(isinstance(value, int | float) and math.isfinite(value) for value in (from_s, until_s))
    if not is_time or not 0 <= from_s < until_s:  # type: ignore[operator]
        raise SourceError(f"{where} says that episode {number} lasts from {from_s!r} to {until_s!r} s; it is damaged")
    return Episode(
        data=_filled(layout.folder, layout.data_path, data),
        video=_filled(layout.folder, str(layout.video_path), video),
        from_s=float(from_s),  # type: ignore[arg-type]
        until_s=float(until_s),  # type: ignore[arg-type]
        tasks=_words(row.get("tasks")),
    )


def _filled(folder: Path, template: str, holes: Mapping[str, Any]) -> Path:
    """The path that a template of the dataset means; it is filled by hand, and stays in the folder."""

    def fill(match: re.Match[str]) -> str:
        if match[1] not in holes:
            raise SourceError(f"a path of {folder} asks for {match[1]!r}; known are {', '.join(holes)}")
        value = holes[match[1]]
        return str(value) if match[2] is None else str(value).zfill(int(match[2]))

    place = PurePosixPath(_HOLE.sub(fill, template))
    if place.is_absolute() or ".." in place.parts or "\0" in str(place) or "{" in str(place):
        raise SourceError(f"meta/info.json of {folder} leads to {str(place)[:120]!r}, which is no path in it")
    return folder / place


def _load_json(path: Path, folder: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_INFO_BYTES:
            raise SourceError(f"{path} has more than {_MAX_INFO_BYTES} bytes; the dataset is damaged or hostile")
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{folder} is no LeRobot dataset: it has no meta/info.json; check the path") from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    except SourceError:
        raise
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is damaged: {str(error)[:120]}") from None
    if not isinstance(told, dict):
        raise SourceError(f"{path} is damaged: it holds no object")
    return told


def _read_table(path: Path, columns: list[str], episode: int) -> Any:
    """Those of the columns that are there, of the rows of one episode; None where the file says nothing of any."""
    parquet = require("pyarrow.parquet", who="robot logs", extra="robot")
    arrow = require("pyarrow", who="robot logs", extra="robot")
    try:
        with parquet.ParquetFile(path) as file:
            names = [name for name in columns if name in file.schema_arrow.names]
            _check_size(path, file.metadata, names)
        if _EPISODE not in names:
            return None
        return parquet.read_table(path, columns=names, filters=[(_EPISODE, "==", episode)], partitioning=None)
    except (arrow.ArrowException, OSError, ValueError, MemoryError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"the table {path} is damaged: {str(error)[:120]}") from None


def _check_size(path: Path, facts: Any, names: Iterable[str]) -> None:
    """Refuses a table too large to be one, by what it says of itself, before it is unpacked."""
    tops = set(names)
    num_bytes = sum(
        # Numbers that are all alike are packed to nothing even where nothing is compressed.
        max(group.column(place).total_uncompressed_size, 8 * group.column(place).num_values)
        for group in map(facts.row_group, range(facts.num_row_groups))
        for place in range(group.num_columns)
        if any(group.column(place).path_in_schema.startswith(top) for top in tops)
    )
    if facts.num_rows > _MAX_ROWS or num_bytes > _MAX_TABLE_BYTES:
        raise SourceError(f"the table {path} says {facts.num_rows} rows of {num_bytes} bytes; it is damaged or hostile")


def _numbers(table: Any, name: str, path: Path) -> np.ndarray:
    """A column as (rows, numbers) float64; SourceError where rows have different lengths, or are no numbers."""
    arrow = require("pyarrow", who="robot logs", extra="robot")
    if name not in table.column_names:
        raise SourceError(f"{path} has no column {name!r}; the dataset is damaged")
    try:
        column = table.column(name).combine_chunks()
        if isinstance(column, arrow.ChunkedArray):
            column = arrow.concat_arrays(column.chunks)
        kinds = arrow.types
        if kinds.is_list(column.type) or kinds.is_large_list(column.type) or kinds.is_fixed_size_list(column.type):
            values = column.flatten()
            numbers_ND = np.asarray(values.cast(arrow.float64()).to_numpy(zero_copy_only=False))
            lengths = {len(row) for row in column if row.is_valid}
            if len(lengths) != 1 or column.null_count or not 1 <= next(iter(lengths)) <= MAX_NUMBERS:
                raise SourceError(f"the rows of {name} in {path} have {sorted(lengths)[:5]} numbers; wanted one count")
            return numbers_ND.reshape(len(column), -1)
        return np.asarray(column.cast(arrow.float64()).to_numpy(zero_copy_only=False)).reshape(len(column), 1)
    except arrow.ArrowException as error:
        raise SourceError(f"the column {name} of {path} has no numbers in it: {str(error)[:120]}") from None


def _words(told: Any) -> tuple[str, ...]:
    return tuple(str(task) for task in told) if isinstance(told, list) else ()

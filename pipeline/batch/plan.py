"""The plan: which videos there are, which of them are the same, and the stretches that each is worked on in."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ...stream import SourceError, Span, redact
from ...stream.random_access import index_packets
from ...stream.source import local_path
from ...stream.video_file import FileSource, clock_of

_log = logging.getLogger(__name__)

LIST_SUFFIXES = frozenset({".txt", ".lst", ".list"})
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .m2ts .mts .flv .wmv .asf .ogv .3gp .vob .mxf".split()
)
MAX_CHUNKS = 10_000  # of one video: times that run further are those of a damaged file
_MAX_LIST_BYTES = 64 * 2**20
_HASH_BYTES = 2**22
_NUM_READERS = 4
_HASH = re.compile(r"[0-9a-f]{64}")


FileKey = tuple[str, int, float]
"""A file as it was when it was looked at: its path, size in bytes, and Unix time of change."""


@dataclass(frozen=True, slots=True)
class Video:
    """One video of a batch. Made by `plan`, read by whoever works on it.

    path: where it is; also: where the same content is too.
    content: SHA-256 of its bytes.
    changed_s: Unix time of the file's last change.
    length_s: until its last picture ends; 0 where only reading all of it tells.
    in_order: whether its pictures can be found only by reading it from the start: then it is one chunk.
    folder: name of the folder of its results.
    """

    path: str
    content: str
    num_bytes: int
    changed_s: float
    length_s: float
    in_order: bool
    folder: str
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_content(self.content):
            raise ValueError(f"a video's content is named by its SHA-256; got {str(self.content)[:80]!r}")
        if not 0 <= self.length_s < float("inf"):
            raise ValueError(f"a video's length is a finite number of seconds; got {self.length_s}")

    @property
    def name(self) -> str:
        return Path(self.path).name

    def stretches(self, chunk_s: int) -> tuple[Span, ...]:
        """What its chunks cover, cut at whole seconds. The last one is half to one and a half times as long."""
        num = 1 if self.in_order else max(1, round(self.length_s / chunk_s))
        starts_s = [float(chunk_s * number) for number in range(num)]
        return tuple(
            Span(a, b) for a, b in zip(starts_s, [*starts_s[1:], max(self.length_s, starts_s[-1])], strict=True)
        )

    def is_as_planned(self) -> bool:
        """Whether the file is still the one that was looked at."""
        try:
            facts = os.stat(self.path)
        except OSError:
            return False
        return (facts.st_size, facts.st_mtime) == (self.num_bytes, self.changed_s)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "also": list(self.also)}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Video:
        return cls(**{**given, "also": tuple(given["also"])})


def is_content(value: object) -> bool:
    """Whether it is how a video's content is named."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be worked on. Made by `plan`, read by the manifest. reason: one sentence."""

    path: str
    reason: str


class Plan(NamedTuple):
    videos: tuple[Video, ...]
    broken: tuple[Broken, ...]


def plan(
    given: Sequence[str | os.PathLike[str]],
    *,
    chunk_s: int,
    hashes: Mapping[FileKey, str] | None = None,
    folders: Mapping[str, str] | None = None,
    on_look: Callable[[int, int], None] | None = None,
) -> Plan:
    """Looks at all that was given, in order, each content once.

    hashes: SHA-256 by path, size and time of change, from an earlier run: these are not read again.
    folders: of results of an earlier run, by SHA-256: these are gone on with, under whatever name a video is given now.
    on_look: called with how many files were looked at, and of how many.
    """
    paths = find(given)

    def look_at(path: str) -> Video | Broken:
        try:
            return look(path, chunk_s=chunk_s, hashes=hashes or {})
        except (OSError, ValueError) as error:  # SourceError is one
            return Broken(path, _one_sentence(error))

    videos: dict[str, Video] = {}
    broken: list[Broken] = []
    with ThreadPoolExecutor(min(_NUM_READERS, len(paths)), thread_name_prefix="batch-plan") as readers:
        for number, looked in enumerate(readers.map(look_at, paths), 1):
            if isinstance(looked, Broken):
                broken.append(looked)
            elif looked.content in videos:
                first = videos[looked.content]
                videos[looked.content] = replace(first, also=(*first.also, looked.path))
                _log.info("%s is the same as %s and is done once", looked.path, first.path)
            else:
                videos[looked.content] = looked
            if on_look is not None:
                on_look(number, len(paths))
    return Plan(_apart(videos.values(), folders or {}), tuple(broken))


def find(given: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The files that are meant: files, folders, patterns, and lists (.txt, .lst) with any of these a line.

    Each path once, absolute, in the order given; those of a pattern or a folder in order of name. A file that is not
    there is among them, to be told about. ValueError where nothing is.
    """
    found: dict[str, None] = {}
    for one in given:
        text = os.fspath(one)
        if Path(text).suffix.lower() in LIST_SUFFIXES and Path(text).is_file():
            lines = _read_list(Path(text))
            if not lines:
                raise ValueError(f"the list {text!r} holds no path; write one a line")
            found |= dict.fromkeys(path for line in lines for path in _find_one(line))
        else:
            found |= dict.fromkeys(_find_one(text))
    if not found:
        raise ValueError(f"there is no video in what was given; got {', '.join(map(str, given)) or 'nothing'}")
    return list(found)


def look(path: str, *, chunk_s: int, hashes: Mapping[FileKey, str]) -> Video:
    """What one file is. SourceError or OSError, in one sentence, where it is no video that can be worked on."""
    source = FileSource(path)
    with source:
        facts = os.stat(path)
        with source.opened() as video:
            index = index_packets(video)
            length_s = source.duration_s or 0.0
            if index.is_sound:
                clock = clock_of(video)
                clock.start_no_later_than(index.ticks[0])
                rate_hz = float(video.average_rate or video.guessed_rate or 25)
                length_s = clock.seconds(index.ticks[-1]) + min(1.0, 1 / rate_hz)
    if length_s > MAX_CHUNKS * chunk_s:
        raise SourceError(
            f"{path} says that it is {length_s:.0f} s long, more than {MAX_CHUNKS} chunks of {chunk_s} s; the file is "
            "damaged, or raise chunk_s"
        )
    content = hashes.get((path, facts.st_size, facts.st_mtime)) or _hash(path)
    return Video(
        path=path,
        content=content,
        num_bytes=facts.st_size,
        changed_s=facts.st_mtime,
        length_s=length_s,
        in_order=not index.is_sound,
        folder=f"{_safe_name(path)}-{content[:8]}",
    )


def _find_one(text: str) -> list[str]:
    if "://" in text and not text.lower().startswith("file:/"):
        raise ValueError(f"a batch takes recordings in files; got {redact(text)}; watch or record it instead")
    path = local_path(text)
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
        if not inside:
            _log.warning("there is no video in the folder %s", path)
        return [os.path.abspath(p) for p in inside]
    if not os.path.lexists(path) and glob.has_magic(str(path)):
        matches = sorted(p for p in glob.glob(str(path), recursive=True) if not os.path.isdir(p))
        if not matches:
            _log.warning("nothing matches %s", path)
        return [os.path.abspath(p) for p in matches]
    return [os.path.abspath(path)]


def _read_list(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise ValueError(f"the list {str(path)!r} has {path.stat().st_size} bytes; give one of paths, a line each")
        lines = os.fsdecode(path.read_bytes()).splitlines()
    except OSError as error:
        raise ValueError(f"the list {str(path)!r} cannot be read; {error.strerror}") from error
    if any("\0" in line for line in lines):
        raise ValueError(f"the list {str(path)!r} is no text; got a zero byte in it")
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _hash(path: str) -> str:
    made = hashlib.sha256()
    with open(path, "rb") as file:
        while data := file.read(_HASH_BYTES):
            made.update(data)
    return made.hexdigest()


def _safe_name(path: str) -> str:
    """The file's name as far as it may stand in the name of a folder."""
    words = re.sub(r"[^\w.-]+", "_", Path(path).stem.encode("utf-8", "replace").decode()).strip("._-")
    return words[:60] or "video"


def _apart(videos: Iterable[Video], folders: Mapping[str, str]) -> tuple[Video, ...]:
    """The same, each with its folder of before, and no two with one."""
    taken: set[str] = set()
    apart: list[Video] = []
    for video in videos:
        folder = folders.get(video.content, video.folder)
        if folder.lower() in taken:
            folder = f"{folder[:-8]}{video.content}"
        taken.add(folder.lower())
        apart.append(replace(video, folder=folder))
    return tuple(apart)


def _one_sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot read {error.filename or 'it'}: {error.strerror}"
    return redact(" ".join(str(error).split())[:400]) or type(error).__name__

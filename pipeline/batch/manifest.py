"""Manifest: what a batch has done so far, in one file: every video, and what became of it."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .files import read_json, write_json
from .plan import FileKey, Plan, Video, is_content
from .results import Finished

_log = logging.getLogger(__name__)

VERSION = 1
_MAX_BYTES = 2**30
_WRITE_EVERY_S = 2.0
_FOLDER = re.compile(r"\w[\w.-]{0,140}-[0-9a-f]{8,64}")  # of results: no way to anywhere else


@dataclass(slots=True)
class Entry:
    """One file of the batch. Made from the plan, changed by the run. video: None where it could not be looked at."""

    path: str
    video: Video | None
    num_chunks: int = 0
    num_chunks_done: int = 0
    state: Literal["waiting", "done", "failed"] = "waiting"
    reason: str | None = None
    finished: Finished | None = None
    work_s: float = 0.0

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def content(self) -> str | None:
        return None if self.video is None else self.video.content

    def as_dict(self) -> dict[str, Any]:
        """As the manifest and `--json` say it."""
        video = self.video
        found: dict[str, Any] = {"path": self.path, "state": self.state, "reason": self.reason}
        if video is not None:
            found |= {
                "also": list(video.also),
                "folder": video.folder,
                "content": video.content,
                "num_bytes": video.num_bytes,
                "changed_s": video.changed_s,
                "length_s": round(video.length_s, 3),
                "num_chunks": self.num_chunks,
                "num_chunks_done": self.num_chunks_done,
                "work_s": round(self.work_s, 3),
            }
        if self.finished is not None:
            found |= self.finished._asdict()
        return found


@dataclass(slots=True)
class Before:
    """What an earlier run left.

    settings: None where there was none. hashes: content by path, size and time of change. folders: by content.
    videos: all that its manifest said of each.
    """

    settings: Mapping[str, Any] | None = None
    hashes: dict[FileKey, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    videos: list[dict[str, Any]] = field(default_factory=list)


class Manifest:
    """The entries, and their file. Not thread-safe: the run's. What earlier runs did of other videos stays in it."""

    def __init__(self, path: Path, plan: Plan, settings: Mapping[str, Any], before: Before, *, chunk_s: int) -> None:
        self._path, self._settings = path, settings
        self._began_s = time.time()
        self._written_at_s = float("-inf")
        self.entries = [Entry(video.path, video, len(video.stretches(chunk_s))) for video in plan.videos]
        self.entries += [Entry(one.path, None, state="failed", reason=one.reason) for one in plan.broken]
        paths = {path for entry in self.entries for path in (entry.path, *(entry.video.also if entry.video else ()))}
        self._of = {entry.video.content: entry for entry in self.entries if entry.video is not None}
        self._others = [
            one for one in before.videos if one.get("path") not in paths and one.get("content") not in self._of
        ]

    def of(self, content: str) -> Entry:
        return self._of[content]

    @property
    def counts(self) -> Counter[str]:
        """How many are in each state."""
        return Counter(entry.state for entry in self.entries)

    def write(self, *, is_last: bool = False) -> None:
        """Brings the file up to date, now and then; the last time in any case."""
        now_s = time.monotonic()
        if not is_last and now_s - self._written_at_s < _WRITE_EVERY_S:
            return
        self._written_at_s = now_s
        counts = self.counts
        value = {
            "version": VERSION,
            "settings": self._settings,
            "began_at": _clock(self._began_s),
            "written_at": _clock(time.time()),
            "is_complete": is_last and not counts["waiting"],
            "num_done": counts["done"],
            "num_failed": counts["failed"],
            "num_waiting": counts["waiting"],
            "videos": [*self._others, *(entry.as_dict() for entry in self.entries)],
        }
        write_json(self._path, value)


def read_before(path: Path) -> Before:
    """What an earlier run left here; nothing, with a word in the log, where it cannot be read."""
    if not path.exists():
        return Before()
    try:
        value = read_json(path, max_bytes=_MAX_BYTES)
        if value.get("version") != VERSION:
            raise ValueError(f"it is of version {value.get('version')!r}; this one writes {VERSION}")
        settings = value["settings"]
        if not isinstance(settings, dict):
            raise ValueError(f"its settings are no table; got {settings!r}")
        before = Before(settings)
        for entry in value["videos"]:
            before.videos.append(dict(entry))
            content, folder = entry.get("content"), entry.get("folder")
            if is_content(content) and isinstance(folder, str) and _FOLDER.fullmatch(folder):
                before.hashes[str(entry["path"]), int(entry["num_bytes"]), float(entry["changed_s"])] = content
                before.folders[content] = folder
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        _log.warning("%s cannot be used (%s); the videos are looked at anew", path, str(error)[:200])
        return Before()
    return before


def _clock(wall_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall_s))

"""Results: the files that a video is told in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .captions import as_srt, as_vtt
from .chapters import Chapter
from .files import read_json, write_json, write_whole
from .plan import Video
from .record import ChunkRecord, Said
from .telling import Told

VERSION = 1
_MAX_BYTES = 16 * 2**20
_OTHERS = ("summary.txt", "log.jsonl", "captions.srt", "captions.vtt")


class Finished(NamedTuple):
    """What was made of a video, in counts. Read from its chapters.json."""

    length_s: float
    num_chunks: int
    num_frames: int
    num_dropped: int
    num_damaged: int
    num_lines: int
    num_chapters: int


def write_results(
    folder: Path, video: Video, settings: str, records: Sequence[ChunkRecord], chapters: Sequence[Chapter], told: Told
) -> Finished:
    """Writes them all; chapters.json is the last: where it is, the others are."""
    said = [line for record in records for line in record.said]
    length_s = chapters[-1].span.end_s
    finished = Finished(
        length_s=round(length_s, 3),
        num_chunks=len(records),
        num_frames=sum(len(record.times_s) for record in records),
        num_dropped=sum(record.num_dropped for record in records),
        num_damaged=sum(record.num_damaged for record in records),
        num_lines=len(said),
        num_chapters=len(chapters),
    )
    write_whole(folder / "summary.txt", told.summary + "\n")
    write_whole(folder / "log.jsonl", "".join(json.dumps(_line(one), ensure_ascii=False) + "\n" for one in said))
    write_whole(folder / "captions.srt", as_srt(said, length_s))
    write_whole(folder / "captions.vtt", as_vtt(said, length_s))
    told_of = [
        {"start_s": round(c.span.start_s, 3), "end_s": round(c.span.end_s, 3), "title": title, "gist": gist}
        for c, title, gist in zip(chapters, told.titles, told.gists, strict=True)
    ]
    write_json(
        folder / "chapters.json",
        {
            "version": VERSION,
            "settings": settings,
            "content": video.content,
            **finished._asdict(),
            "summary": told.summary,
            "chapters": told_of,
        },
    )
    return finished


def read_finished(folder: Path, *, settings: str, content: str) -> Finished | None:
    """What was made of this video with these settings; None where that is not there, or not all of it."""
    if not all((folder / name).is_file() for name in _OTHERS):
        return None
    try:
        value = read_json(folder / "chapters.json", max_bytes=_MAX_BYTES)
        if (value["version"], value["settings"], value["content"]) != (VERSION, settings, content):
            return None
        finished = Finished(*(value[name] for name in Finished._fields))
    except (KeyError, ValueError):
        return None
    numbers_only = all(isinstance(one, int | float) and not isinstance(one, bool) and one >= 0 for one in finished)
    return finished if numbers_only and len(value.get("chapters") or ()) == finished.num_chapters else None


def _line(said: Said) -> dict[str, Any]:
    return {
        "start_s": round(said.span.start_s, 6),
        "end_s": round(said.span.end_s, 6),
        "kind": "narration",
        "text": said.text,
    }

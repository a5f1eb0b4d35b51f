"""Where an item's video is: below the video folder, or nowhere. What an annotation file says leads nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ...stream.redact import redact_uri

_MADE = "synthetic://"


class Located(NamedTuple):
    """An address that open_source takes, or why there is none."""

    uri: str | None
    reason: str = ""


def locate(video: str, videos: Path | None) -> Located:
    """Where `video`, as an item names it, is below the folder `videos`.

    Synthetic streams are made, and have no place. Any other address is refused: annotation files come from elsewhere,
    and opening what they name would let them reach cameras, servers and files that they have no business with.
    """
    if video.startswith(_MADE):
        return Located(video)
    path = Path(video)
    if "://" in video or ".." in path.parts:
        return Located(None, "is no path below the video folder")
    if videos is None and not path.is_absolute():
        return Located(None, "is looked for in no folder; give one with --videos")
    if videos is not None:
        whole = videos.absolute() / path  # an absolute path stays what it is
        if not whole.is_relative_to(videos.absolute()):
            return Located(None, "is no path below the video folder")
        path = whole
    return Located(str(path)) if path.exists() else Located(None, "is not there")


def name_of(video: str, videos: Path | None) -> str:
    """The video as results name it: the same wherever its folder is."""
    path = Path(video)
    if videos is not None and not video.startswith(_MADE) and path.is_relative_to(videos.absolute()):
        return path.relative_to(videos.absolute()).as_posix()
    return redact_uri(video)

"""Source: the contract of all that frames come from, the list of what there is, and `open_source`."""

from __future__ import annotations

import inspect
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from .frame import Frame
from .redact import redact, redact_uri
from .sampling import Sampler
from .stats import SourceStats
from .table import Table


class SourceError(ValueError):
    """The source cannot be read as it was given: one sentence, with no credentials in it."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class SourceLost(ConnectionError):
    """The peer of a live source is not there, or no longer: one sentence, with no credentials in it."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class SourceStalled(SourceLost):
    """The peer of a live source keeps its connection, and nothing comes."""


State = Literal["connecting", "live", "lost", "ended"]


class Source(ABC):
    """One stream of frames.

    Promises, checked for every row of SOURCES: iterating gives frames in order of `pts_s`, which never
    decreases, with the stream's id and increasing indices; `close()` may be called from any thread and again,
    and ends an iteration under way within 2 s; a closed source refuses to be iterated; no attribute, message
    or log line carries a password. A recorded source may be iterated again, and starts again from its
    beginning; a live one goes on from now. One iteration at a time.

    uri: where it comes from, credentials masked.
    stream_id: goes into every frame.
    is_live: whether time passes by itself here, so that frames not taken are lost.
    duration_s: length in seconds where it is known beforehand; may be wrong in a damaged file.
    stats: counts, kept up to date while iterating.
    """

    def __init__(
        self, uri: str, *, stream_id: str | None, is_live: bool = False, duration_s: float | None = None
    ) -> None:
        self.uri = redact_uri(uri)
        self.stream_id = stream_id or "stream"
        self.is_live = is_live
        self.duration_s = duration_s
        self.stats = SourceStats()
        self._closed = threading.Event()

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """The frames, in order of time."""

    def sampled(self, sampler: Sampler) -> Iterator[Frame]:
        """The frames that are due; a source that can tell before the work is done does it for those only."""
        return sampler.filter(self)

    def close(self) -> None:
        """Ends an iteration under way and gives back what is held; may be called again, and from any
        thread."""
        self._closed.set()

    @property
    def state(self) -> State:
        """Whether frames come. A recorded source is "live" until it is closed; a live one tells more."""
        return "ended" if self.is_closed else "live"

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    def check_open(self) -> None:
        """Raises ValueError for a source that was closed."""
        if self.is_closed:
            raise ValueError(f"{self.uri} was closed; open it again with open_source to read it again")

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        length = "live" if self.is_live else "?" if self.duration_s is None else f"{self.duration_s:.3f} s"
        return f"{type(self).__name__}({self.uri if len(self.uri) <= 70 else self.uri[:67] + '...'}, {length})"


SOURCES: Table[Source] = Table(
    "source",
    __package__ or "",
    {
        "file": "video_file:FileSource",
        "folder": "image_dir:ImageDirSource",
        "lerobot": "lerobot_dataset:EpisodeSource",
        "live": "live:LiveSource",
        "mcap": "mcap_source:McapSource",
        "synthetic": "synthetic:SyntheticSource",
    },
)

_SCHEMES = {
    "device": "live",
    "file": "file",
    "http": "live",
    "https": "live",
    "lerobot": "lerobot",
    "mcap": "mcap",
    "rtsp": "live",
    "rtsps": "live",
    "synthetic": "synthetic",
    "tcp": "live",
    "udp": "live",
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/+")
# Two letters or more, so that a Windows drive is no scheme.

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def open_source(uri: str | os.PathLike[str], *, stream_id: str | None = None, **options: Any) -> Source:
    """Opens what `uri` names: a path or file:// of a video or of a folder of pictures, rtsp(s)://,
    http(s)://, tcp:// and udp:// with MPEG-TS, device://0 or /dev/video0, synthetic://shapes?seed=1, and robot logs:
    run.mcap or mcap://run.mcap?topic=/camera, a LeRobot dataset's folder or lerobot://folder?episode=3.

    `options` go to the source's class; `millpond sources` lists the classes.

    Raises:
        SourceError: there is nothing readable at `uri`.
        SourceLost: the peer of a live source does not answer.
    """
    text = os.fspath(uri)
    name = source_kind(text)
    if name in ("file", "folder") or text.lower().startswith("file:/"):
        text = str(local_path(text))
    source_class = SOURCES[name]
    parameters = inspect.signature(source_class).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = sorted(p for p in parameters if p not in ("uri", "stream_id"))
        for option in options:
            if option not in known:
                raise ValueError(
                    f"{source_class.__name__} has no option {option!r}; it has: {', '.join(known) or 'none'}"
                )
    return source_class(text, stream_id=stream_id, **options)  # type: ignore[call-arg]


def local_path(uri: str) -> Path:
    """The path that a file:// uri or a plain path names."""
    if uri.lower().startswith("file:/"):
        return Path(unquote(urlsplit(uri).path))
    return Path(uri).expanduser()


def source_kind(uri: str) -> str:
    """The row of SOURCES that reads this uri; SourceError where none does."""
    if not uri.strip():
        raise SourceError("the source is empty; give a file, a folder of pictures, or a uri such as rtsp://host/path")
    scheme = _SCHEME.match(uri)
    if scheme:
        name = scheme[1].lower()
        if name not in _SCHEMES:
            schemes = ", ".join(f"{s}://" for s in sorted(_SCHEMES))
            raise SourceError(f"no source reads {name}:// ({redact_uri(uri)}); there are: {schemes}, and plain paths")
        if name != "file" and not uri[scheme.end(1) :].startswith("://"):
            raise SourceError(f"{redact_uri(uri)} is no uri; write two slashes, {name}://")
        if name != "file":
            return _SCHEMES[name]
    if uri.startswith("/dev/video"):
        return "live"
    path = local_path(uri)
    if path.suffix.lower() == ".mcap":
        return "mcap"
    if (path / "meta" / "info.json").is_file():
        return "lerobot"
    is_pictures = path.is_dir() or path.suffix.lower() in PICTURE_SUFFIXES
    return "folder" if is_pictures else "file"

"""ImageDirSource: a folder of pictures in natural order, timed by a rate, their names or a csv."""

from __future__ import annotations

import csv
import logging
import math
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .decoding import MAX_PIXELS
from .frame import Frame
from .sampling import EveryFrame, Sampler
from .source import PICTURE_SUFFIXES, Source, SourceError, local_path

_log = logging.getLogger(__name__)

# Shapes: H rows, W columns, 3 colours.

TIMES_FILE = "times.csv"
TIMES = ("auto", "csv", "names", "rate")

# Pillow's plugins raise whatever their parsing runs into.
_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, MemoryError)


class _Entry(NamedTuple):
    path: Path
    pts_s: float


class ImageDirSource(Source):
    """A folder of pictures in natural order, or one picture: pictures/, file:///pictures, photo.jpg.

    A picture that cannot be read is counted, named in a warning and left out; cameras' orientation marks are
    honoured.

    uri: a folder, or one picture.
    rate_hz: pictures per second, where the times come from the rate.
    times: where times come from. "rate": the n-th picture is at n / rate_hz. "names": the last number in a
        name is its time in seconds. "csv": a file times.csv in the folder, with lines `name,seconds`. "auto":
        csv where there is one, else rate.
    max_pixels: a larger picture is left out before it is decoded.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        stream_id: str | None = None,
        rate_hz: float = 1.0,
        times: str = "auto",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.path = local_path(os.fspath(uri))
        super().__init__(str(self.path), stream_id=stream_id or self.path.stem)
        if not (math.isfinite(rate_hz) and rate_hz > 0):
            raise ValueError(f"a picture rate must be finite and above 0 Hz; got rate_hz={rate_hz}")
        if times not in TIMES:
            raise ValueError(f"no way to get times named {times!r}; there are: {', '.join(TIMES)}")
        self.max_pixels = max_pixels
        self._entries = self._with_times(self._list(), times, rate_hz)
        self.duration_s = self._entries[-1].pts_s + 1 / rate_hz

    def __iter__(self) -> Iterator[Frame]:
        return self.sampled(EveryFrame())

    def sampled(self, sampler: Sampler) -> Iterator[Frame]:
        """The pictures that are due; the others are not even opened."""
        self.check_open()
        run = sampler.start()
        num_tried = num_read = 0
        for index, entry in enumerate(self._entries):
            if self.is_closed:
                return
            self.stats.num_frames += 1
            if not run.take(entry.pts_s):
                continue
            num_tried += 1
            rgb_HW3 = self._read(entry.path)
            if rgb_HW3 is not None:
                num_read += 1
                yield Frame(rgb_HW3, entry.pts_s, self.stream_id, index)
        if num_tried and not num_read:
            raise SourceError(f"none of the {num_tried} pictures of {self.uri} can be read")

    def _list(self) -> list[Path]:
        """The pictures, in natural order."""
        try:
            if self.path.is_file():
                return [self.path]
            found = [p for p in self.path.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and _is_shown(p)]
        except FileNotFoundError:
            raise SourceError(f"no file or folder at {self.uri}; check the path") from None
        except OSError as error:
            raise SourceError(f"cannot read {self.uri}: {error.strerror}") from None
        if not found:
            raise SourceError(
                f"the folder {self.uri} has no pictures in it; wanted {', '.join(sorted(PICTURE_SUFFIXES))}"
            )
        return sorted(found, key=natural_key)

    def _with_times(self, paths: list[Path], times: str, rate_hz: float) -> list[_Entry]:
        has_csv = (self.path / TIMES_FILE).is_file()
        if times == "csv" or (times == "auto" and has_csv):
            return self._times_from_csv(paths)
        if times == "names":
            return self._in_order([_Entry(path, self._time_in_name(path)) for path in paths])
        return [_Entry(path, index / rate_hz) for index, path in enumerate(paths)]

    def _times_from_csv(self, paths: list[Path]) -> list[_Entry]:
        where = self.path / TIMES_FILE
        by_name = {path.name: path for path in paths}
        entries = []
        try:
            with where.open(newline="", encoding="utf-8-sig") as file:
                rows = [row for row in csv.reader(file) if row]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"cannot read {where}: {error}") from None
        for number, row in enumerate(rows, 1):
            pts_s = _seconds(row[1]) if len(row) > 1 else None
            if number == 1 and pts_s is None and row[0] not in by_name:
                continue  # a heading
            if pts_s is None or row[0] not in by_name:
                raise SourceError(
                    f"{where}, row {number}: wanted the name of a picture here and its seconds; got {row}"
                )
            entries.append(_Entry(by_name[row[0]], pts_s))
        if not entries:
            raise SourceError(f"{where} names no pictures; wanted lines such as first.jpg,0.0")
        return self._in_order(entries)

    def _time_in_name(self, path: Path) -> float:
        numbers = re.findall(r"\d+(?:\.\d+)?", path.stem)
        if not numbers:
            raise SourceError(f"{path} has no number in its name to take a time from; use times='rate'")
        return float(numbers[-1])

    def _in_order(self, entries: list[_Entry]) -> list[_Entry]:
        for before, after in pairwise(entries):
            if after.pts_s < before.pts_s:
                raise SourceError(
                    f"the times of {self.uri} run backwards: {before.path.name} is at {before.pts_s} s and"
                    f" {after.path.name}, after it, at {after.pts_s} s"
                )
        return entries

    def _read(self, path: Path) -> np.ndarray | None:
        """The picture, upright; None, counted and told of, if there is none in the file."""
        from PIL import Image, ImageOps

        try:
            with Image.open(path) as image:
                if image.width * image.height > self.max_pixels:
                    raise ValueError(f"{image.width}x{image.height} is more than max_pixels={self.max_pixels}")
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (*_PILLOW_ERRORS, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            self.stats.num_damaged += 1
            _log.warning("left out %s: %s", path, error)
            return None


def natural_key(path: Path) -> list[tuple[bool, int, str]]:
    """Sorts img2 before img10."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _is_shown(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_file()


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None

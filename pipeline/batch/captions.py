"""Captions: the log as SubRip and WebVTT, as players take them: in order, none over another, nothing but words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .record import Said

_LEAST_MS = 1000  # a caption that is shorter cannot be read


class Cue(NamedTuple):
    start_millis: int
    end_millis: int
    text: str


def cues(said: Sequence[Said], length_s: float) -> list[Cue]:
    """When each line is shown: while its time passes, a second at least where the next one leaves it that.

    Lines of the same moment are shown together.
    """
    joined: list[Cue] = []
    for line in sorted(said, key=lambda one: one.span):
        start, end = _millis(line.span.start_s), _millis(line.span.end_s)
        if joined and start <= joined[-1].start_millis:
            last = joined[-1]
            joined[-1] = Cue(last.start_millis, max(last.end_millis, end), f"{last.text} {line.text}")
        else:
            joined.append(Cue(start, end, line.text))
    starts = [cue.start_millis for cue in joined]
    shown: list[Cue] = []
    for cue, following in zip(joined, [*starts[1:], None][: len(joined)], strict=True):
        end = max(cue.end_millis, cue.start_millis + _LEAST_MS)
        if following is None:
            end = max(min(end, max(_millis(length_s), cue.end_millis)), cue.start_millis + 1)
        else:
            end = min(end, following)
        shown.append(Cue(cue.start_millis, end, cue.text))
    return shown


def as_srt(said: Sequence[Said], length_s: float) -> str:
    """SubRip. It knows no escapes: what players take for tags is written with look-alikes."""
    table = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})
    blocks = [
        f"{number}\n{_clock(cue.start_millis, ',')} --> {_clock(cue.end_millis, ',')}\n{cue.text.translate(table)}\n"
        for number, cue in enumerate(cues(said, length_s), 1)
    ]
    return "\n".join(blocks)


def as_vtt(said: Sequence[Said], length_s: float) -> str:
    """WebVTT, with its escapes."""
    table = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    blocks = [
        f"{_clock(cue.start_millis, '.')} --> {_clock(cue.end_millis, '.')}\n{cue.text.translate(table)}\n"
        for cue in cues(said, length_s)
    ]
    return "\n".join(["WEBVTT\n", *blocks])


def _millis(time_s: float) -> int:
    return max(0, round(time_s * 1000))


def _clock(millis: int, point: str) -> str:
    seconds, millis = divmod(millis, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{millis:03d}"

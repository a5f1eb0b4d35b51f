"""A source watched into a McapLog: its pictures, which tokens were kept of them, what was narrated and answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...encoders import FrameTokens
from ...encoders.compressors import NoCompressor
from ...encoders.compressors.base import Compressor, CompressorRun
from ...encoders.sight import Need, Sight
from ...stream import Frame
from ..answer import Answer, Narration
from ..config import EngineConfig
from ..question import Question
from ..session import Session
from ..watch import Progress, Unanswered, watch
from .mcap_log import McapLog

# Shapes: T tokens, D channels of the language model.


@dataclass(frozen=True, kw_only=True)
class TellingCompressor(Compressor):
    """Another compressor, that also tells what it kept.

    Baseline: the other compressor's, token for token.
    Differs from the paper: None.

    at_most: the other's own; what is given here is not looked at.
    inner: the other.
    tell: called with what is left of every block, in the thread that compresses; it must not change it.
    """

    inner: Compressor
    tell: Callable[[FrameTokens], None]

    def __post_init__(self) -> None:
        object.__setattr__(self, "at_most", self.inner.at_most)

    @property
    def needs(self) -> frozenset[Need]:  # type: ignore[override]
        return self.inner.needs

    @property
    def uses(self) -> frozenset[Need]:  # type: ignore[override]
        return self.inner.uses

    @property
    def look_ahead_frames(self) -> int:  # type: ignore[override]
        return self.inner.look_ahead_frames

    def start(self) -> CompressorRun:
        return _TellingRun(self.inner.start(), self.tell)


class _TellingRun(CompressorRun):
    def __init__(self, inner: CompressorRun, tell: Callable[[FrameTokens], None]) -> None:
        self._inner, self._tell = inner, tell

    def compress(self, sight: Sight) -> FrameTokens:
        kept = self._inner.compress(sight)
        self._tell(kept)
        return kept

    def pick(self, sight: Sight, x_TD: Any, room: Any) -> Any:
        return self._inner.pick(sight, x_TD, room)

    def restart(self) -> None:
        self._inner.restart()

    @property
    def num_bytes(self) -> int:
        return self._inner.num_bytes


class KeptTokens:
    """What compressors keep, until it is written. `config` gives an engine whose compressor tells this.

    The newest blocks of a stream are whole, and nothing is told of them. Without a compressor all is kept, and nothing
    is told either.
    """

    def __init__(self) -> None:
        self._told: list[FrameTokens] = []

    def config(self, settings: EngineConfig) -> EngineConfig:
        """The settings, with a compressor that tells what it keeps."""
        compressor = settings.made_compressor()
        if isinstance(compressor, NoCompressor):
            return settings
        return replace(settings, compressor=TellingCompressor(inner=compressor, tell=self._told.append))

    def take(self) -> list[FrameTokens]:
        """What was told since this was last called."""
        told, self._told[:] = list(self._told), []
        return told


def watch_into(
    path: Path,
    session: Session,
    frames: Iterator[Frame],
    kept: KeptTokens,
    *,
    questions: Iterable[Question] = (),
    narrate: bool = True,
) -> Iterator[Progress | Narration | Answer | Unanswered]:
    """`watch`, and all that it yields written to an MCAP file, with the frames and what was kept of them.

    Times are the session's, of the day where the frames tell it. The file is made when there is something to write.
    """
    newest: Frame | None = None

    def noted() -> Iterator[Frame]:
        nonlocal newest
        for frame in frames:
            newest = frame
            yield frame

    log: McapLog | None = None
    with ExitStack() as closing:
        for event in watch(session, noted(), narrate=narrate, questions=questions):
            at_s = session.seen_until_s or 0.0
            if log is None:
                wall_s = None if newest is None else newest.wall_s
                begin_unix_s = 0.0 if wall_s is None else max(0.0, wall_s - at_s)
                log = closing.enter_context(McapLog(path, begin_unix_s=begin_unix_s))
            if isinstance(event, Progress) and newest is not None:
                # A session that goes on from an earlier run places frames after what it knows.
                log.frame(replace(newest, pts_s=at_s, stream_id=session.stream_id))
            elif isinstance(event, Narration):
                log.narration(session.stream_id, event)
            elif isinstance(event, Answer):
                log.answer(session.stream_id, event)
            for tokens in kept.take():
                picture_hw = (1, 1) if newest is None else (newest.height, newest.width)
                log.tokens(session.stream_id, tokens, picture_hw)
            yield event

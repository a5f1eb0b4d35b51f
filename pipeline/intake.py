"""Intake: what becomes of one stream's frames before the language half reads them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from ..encoders import FrameTokens
from ..encoders.compressors import Compressor, NoCompressor
from ..encoders.compressors.base import EVIDENCE, check_sight
from ..encoders.reuse import SeerRun
from ..encoders.sight import Need, Sight
from ..stream import Frame

# Shapes: M words of a question, D channels of the language model, T tokens.


class KeptTokens(NamedTuple):
    """Which visual tokens of a stream's newest block that left the window were kept. Made by Intake.

    pts_s: of its last frame. kept_T: raster indices; those past the grid are the family's own.
    """

    pts_s: float
    grid_hw: tuple[int, int]
    kept_T: Tensor

    @property
    def places(self) -> list[int]:
        """Raster indices of those that stand on the grid."""
        num_places = self.grid_hw[0] * self.grid_hw[1]
        return [place for place in self.kept_T.tolist() if place < num_places]


class Intake:
    """One stream's frames on their way to be read. Not thread-safe: its session's.

        push -> [pending] -> seer -> [fresh: newest blocks, whole] -> compressor -> [ready] -> read for good
                                      read whole for each question,
                                      and taken back

    The newest blocks are never compressed: they wait here, and whoever asks reads them whole. Without a compressor
    nothing is gained by waiting, and what was seen is ready at once.
    """

    def __init__(
        self,
        eyes: SeerRun,
        compressor: Compressor,
        *,
        num_fresh: int,
        frames_per_block: int,
        offered: frozenset[Need],
        text_MD: Tensor | None = None,
    ) -> None:
        """eyes: the stream's state in the seer. num_fresh: how many blocks wait. offered: what a compressor may look
        at; the seer is asked for what it does look at. text_MD: the question's words, where it looks at these."""
        self.eyes = eyes
        self.needs = frozenset(compressor.needs | (compressor.uses & offered))
        self._compressor = compressor
        self._run = compressor.start()
        self._num_fresh = 0 if isinstance(compressor, NoCompressor) else num_fresh
        self._frames_per_block = frames_per_block
        self._text_MD = text_MD
        self._pending: list[Frame] = []
        self._fresh: deque[Sight] = deque()
        self._ready: list[FrameTokens] = []
        self.num_seen_tokens = 0  # of blocks that left the window, before and after compression
        self.num_kept_tokens = 0
        self.kept: KeptTokens | None = None  # replaced and never changed: any thread may read it

    @property
    def num_waiting(self) -> int:
        """How many frames are here."""
        return len(self._pending) + (len(self._fresh) + len(self._ready)) * self._frames_per_block

    @property
    def num_bytes(self) -> int:
        """What is held: the seer's and the compressor's state, what was seen and waits, the question's words."""
        held_bytes = self.eyes.num_bytes + self._run.num_bytes + _bytes(self._text_MD)
        held_bytes += sum(_token_bytes(tokens) for tokens in self._ready)
        return held_bytes + sum(_sight_bytes(sight) for sight in self._fresh)

    def push(self, frame: Frame) -> None:
        self._pending.append(frame)

    @property
    def pending(self) -> tuple[Frame, ...]:
        """Frames that were not seen yet and fill blocks."""
        return tuple(self._pending[: len(self._pending) - self._num_odd])

    @property
    def odd(self) -> tuple[Frame, ...]:
        """Frames behind these, too few for a block so far."""
        return tuple(self._pending[len(self._pending) - self._num_odd :])

    @property
    def _num_odd(self) -> int:
        return len(self._pending) % self._frames_per_block

    @property
    def fresh(self) -> tuple[FrameTokens, ...]:
        """The newest blocks that were seen, whole."""
        return tuple(sight.tokens for sight in self._fresh)

    @property
    def ready(self) -> tuple[FrameTokens, ...]:
        """What is to be read for good."""
        return tuple(self._ready)

    def saw(self, sights: Sequence[Sight]) -> None:
        """The pending frames that fill blocks were seen; as many of the oldest blocks as are too many are compressed.

        Raises ValueError where a block cannot be compressed, as soon as it is seen; it is left out, and all others are
        taken.
        """
        refused: ValueError | None = None
        for sight in sights:
            del self._pending[: self._frames_per_block]
            if self._text_MD is not None:
                sight = replace(sight, text_MD=self._text_MD)
            try:
                check_sight(sight, self._compressor)  # now: until it is compressed, it is read whole
            except ValueError as error:
                refused = refused or error
            else:
                self._fresh.append(sight)
        while len(self._fresh) > self._num_fresh:
            sight = self._fresh[0]
            try:
                kept = self._run.compress(sight)
            except ValueError as error:
                refused = refused or error
            else:
                self._ready.append(kept)
                self.num_seen_tokens += sight.tokens.num_tokens
                self.num_kept_tokens += kept.num_tokens
                self.kept = KeptTokens(kept.span.end_s, kept.grid_hw, kept.kept_T)
            self._fresh.popleft()
        if refused is not None:
            raise refused

    def read(self, num_blocks: int) -> None:
        """So many blocks of those that were ready were read."""
        del self._ready[:num_blocks]

    def clear(self) -> None:
        """Lets everything go: the next frame is a stream's first."""
        self._pending.clear()
        self._fresh.clear()
        self._ready.clear()
        self.eyes.reset()
        self._run = self._compressor.start()


def _sight_bytes(sight: Sight) -> int:
    # The words are one tensor for all blocks.
    evidence = [getattr(sight, name) for need, name in EVIDENCE.items() if need is not Need.TEXT]
    return _token_bytes(sight.tokens) + _bytes(*evidence)


def _token_bytes(tokens: FrameTokens) -> int:
    return _bytes(tokens.x_TD, tokens.kept_T, tokens.pos_3T, tokens.deep_ETD)


def _bytes(*held: Tensor | None) -> int:
    return sum(t.numel() * t.element_size() for t in held if t is not None)

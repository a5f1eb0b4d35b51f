"""Intake: what becomes of one stream's frames before the language half reads them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ..encoders import FrameTokens
from ..encoders.compressors import Compressor, NoCompressor
from ..encoders.reuse import SeerRun
from ..encoders.sight import Need, Sight
from ..stream import Frame

# Shapes: M words of a question, D channels of the language model.


class Intake:
    """One stream's frames on their way to be read. Not thread-safe: its session's.

        push -> [pending] -> seer -> [fresh: newest blocks, whole] -> compressor -> [ready] -> read for good
                                      read whole for each question,
                                      and taken back

    The newest blocks are never compressed: they wait here, and whoever asks reads them whole. Without a compressor
    nothing is gained by waiting, and what was seen is ready at once.
    """

    def __init__(
        self, eyes: SeerRun, compressor: Compressor, *, num_fresh: int, frames_per_block: int, text_MD: Tensor | None
    ) -> None:
        """eyes: the stream's state in the seer. num_fresh: how many blocks wait. text_MD: the question's words."""
        self.eyes = eyes
        self.needs = frozenset(compressor.needs | compressor.uses)
        self._run = compressor.start()
        self._num_fresh = 0 if isinstance(compressor, NoCompressor) else num_fresh
        self._frames_per_block = frames_per_block
        self._text_MD = text_MD if Need.TEXT in self.needs else None
        self._pending: list[Frame] = []
        self._fresh: deque[Sight] = deque()
        self._ready: list[FrameTokens] = []
        self.num_seen_tokens = 0  # of blocks that left the window, before and after compression
        self.num_kept_tokens = 0

    @property
    def num_waiting(self) -> int:
        """How many frames are here."""
        return len(self._pending) + (len(self._fresh) + len(self._ready)) * self._frames_per_block

    @property
    def num_bytes(self) -> int:
        """What is held of them: the seer's and the compressor's state, and tokens that wait."""
        held = [*self._ready, *(sight.tokens for sight in self._fresh)]
        return self.eyes.num_bytes + self._run.num_bytes + sum(_token_bytes(tokens) for tokens in held)

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

        Raises ValueError where a block cannot be compressed; it is left out, and all others are taken.
        """
        del self._pending[: len(sights) * self._frames_per_block]
        self._fresh.extend(sights)
        refused: ValueError | None = None
        while len(self._fresh) > self._num_fresh:
            sight = self._fresh.popleft()
            if self._text_MD is not None:
                sight = replace(sight, text_MD=self._text_MD)
            try:
                kept = self._run.compress(sight)
            except ValueError as error:
                refused = error
                continue
            self._ready.append(kept)
            self.num_seen_tokens += sight.tokens.num_tokens
            self.num_kept_tokens += kept.num_tokens
        if refused is not None:
            raise refused

    def read(self, num_blocks: int) -> None:
        """So many blocks of those that were ready were read."""
        del self._ready[:num_blocks]

    def clear(self) -> None:
        """Lets everything go."""
        self._pending.clear()
        self._fresh.clear()
        self._ready.clear()
        self.eyes.reset()


def _token_bytes(tokens: FrameTokens) -> int:
    held = [tokens.x_TD, tokens.kept_T, tokens.pos_3T, tokens.deep_ETD]
    return sum(t.numel() * t.element_size() for t in held if t is not None)

"""StreamingLLM: sinks and the recent window, and nothing in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..block import KVBlock
from .base import BlockPruner


@dataclass(frozen=True, kw_only=True)
class StreamingLLM(BlockPruner):
    """Keeps nothing of a block that has left the recent window: the floor that every other row must beat.

    Paper: Efficient Streaming Language Models with Attention Sinks (arXiv 2309.17453)
    Differs from the paper: sinks are the prompt, all of it, where the paper's are the first four tokens; the window is
        counted in frames.

    keep_tokens: not looked at.
    """

    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> None:
        return None

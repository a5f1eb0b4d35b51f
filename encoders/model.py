"""VideoLLM: what every model family offers. Pictures become tokens, tokens become keys and values, words come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ..memory import KVBlock, KVSpec
from ..stream import Frame, Span
from .tokens import FrameTokens

if TYPE_CHECKING:
    from .context import Context
    from .towers import Tower

# Shapes: R rows (sessions) packed in one call, T tokens, V vocabulary.


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Made by a family when it loads, read by everybody above.

    name: hub id or folder that it was loaded from.
    family: its row in FAMILIES.
    kv: shape of a token's keys and values.
    frames_per_block: how many frames become one block (2 where the tower joins two frames in time).
    max_positions: the largest number of positions the language model was trained for.
    num_parameters: of all of it.
    """

    name: str
    family: str
    kv: KVSpec
    device: torch.device
    dtype: torch.dtype
    frames_per_block: int
    vocab_size: int
    max_positions: int
    num_parameters: int


@dataclass(frozen=True, slots=True)
class Text:
    """Words to be read, as token ids, with the time they belong to. Made by a family, read by `VideoLLM.read`."""

    ids: tuple[int, ...]
    span: Span = field(default_factory=lambda: Span(0.0, 0.0))

    def __post_init__(self) -> None:
        if not self.ids:
            raise ValueError("a text to read must have at least one token; got none")


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One session's share of a packed call: parts to append, in order, to its context.

    parts: texts and frames; a frame is read as its time in text, its visual tokens and what closes it.
    """

    context: Context
    parts: tuple[Text | FrameTokens, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a row must bring at least one part to read; got none")


class VisionHalf(Protocol):
    """What makes tokens of pictures, as reusers and a robot's feed take it: a VideoLLM, or the eyes of a policy."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def tower(self) -> Tower | None:
        """Taken apart, for those who compute some patches only; None where it cannot be."""

    def see(self, frames: Sequence[Frame]) -> list[FrameTokens]:
        """Visual tokens of the frames, one FrameTokens for every `frames_per_block` of them, in order."""


class VideoLLM(ABC):
    """One model: its vision half, its language half, its words. One family per file.

    Promises, checked for every family: `see` keeps no state, and its tokens equal transformers' own; reading in
    chunks equals reading at once; rows packed in one call give each what it would get alone; with nothing
    evicted, greedy decoding equals transformers' `generate` on the same frames and prompt.
    Not thread-safe: one caller at a time.
    """

    spec: ModelSpec

    @abstractmethod
    def see(self, frames: Sequence[Frame]) -> list[FrameTokens]:
        """Visual tokens of the frames, one FrameTokens for every `frames_per_block` of them, in order.

        A last group that is short is filled by repeating its last frame, as transformers does.
        """

    @property
    def tower(self) -> Tower | None:
        """The vision half taken apart, for those who compute some patches only; None where it cannot be."""
        return None

    @property
    def fingerprint(self) -> str:
        """Differs where the weights do: keys and values of one model mean nothing to another."""
        return f"{self.spec.family} {self.spec.name} {self.spec.kv}"

    @abstractmethod
    def new_context(self) -> Context:
        """An empty context of this model: what one session's language half can attend to."""

    @abstractmethod
    def fill(self, context: Context, blocks: Sequence[KVBlock]) -> None:
        """Makes `context` hold exactly these blocks, in this order, at positions that follow on one another."""

    @abstractmethod
    def read(self, rows: Sequence[Row], *, num_probes: int = 0) -> list[list[KVBlock]]:
        """Reads the parts of each row, all rows packed in one pass, appending them to the rows' contexts.

        num_probes: how many of a frame block's queries come with it, of evenly spaced tokens up to its last.

        Returns, for each row, a block for each part, keys un-rotated, positions relative to the block.
        """

    @abstractmethod
    def step(self, rows: Sequence[Row]) -> Tensor:
        """Reads like `read`, but returns the logits that follow each row's last token, and makes no blocks.

        Returns: float32 tensor of shape (R, V).
        """

    @abstractmethod
    def probe(self, row: Row) -> Tensor:
        """The row's mean query, un-rotated, per layer and key/value head, to search memory by.

        The context is left as it was. Returns: float32 tensor of shape (layers, kv heads, channels).
        """

    @abstractmethod
    def prefix(self) -> Text:
        """What stands before the first frame: system prompt and the opening of the user's turn."""

    @abstractmethod
    def question(self, question: str) -> Text:
        """What stands after the last frame: the question, the end of the user's turn, the opening of the answer."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece of text that stands inside a prompt: nothing is added around it."""
        raise ValueError(f"{self.spec.name} does not read notes; got {text[:80]!r}; leave `note` out of its prompts")

    def embed_words(self, text: str) -> Tensor:
        """The words as the language half embeds them, in the space of visual tokens: shape (words, channels)."""
        raise ValueError(f"{self.spec.name} does not embed words alone; got {text[:80]!r}; take a model that does")

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Token ids to words, special tokens left out."""

    @property
    @abstractmethod
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""

"""Retrievers: which older blocks a question needs. They are handed a query vector and never call a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..stream.table import Table
from .index import Index
from .key_index import KeyIndex
from .layer_index import LayerIndex
from .novelty_index import MixedIndex, NoveltyIndex
from .recent_index import RecentIndex


@dataclass(frozen=True)
class Retriever(ABC):
    """A frozen recipe; `start` gives the index that one memory fills.

    needs_query: whether `best` needs the question's query, or does without (None).
    by_layer: whether each layer is given blocks of its own choice (`best_by_layer`).
    """

    needs_query: ClassVar[bool]
    by_layer: ClassVar[bool] = False

    @abstractmethod
    def start(self) -> Index:
        """An empty index."""


@dataclass(frozen=True)
class ByKeyRetriever(Retriever):
    """The blocks whose mean key points where the question's mean query points, off from what all blocks share.

    1. A block's row is the mean over its visual tokens of the keys before rotation, per head of a few layers, each
       of length 1.
    2. The score is the cosine of the question's mean query before rotation with the row less the mean of all rows
       held, averaged over layers and heads. A row nearer to the mean than is usual scores less.
    3. The straight line that scores follow over the time of the stream is taken off.

    Paper: Streaming Video Question-Answering with In-context Video KV-Cache Retrieval (arXiv 2503.00540)
    Differs from the paper: one choice for all layers, from a few of them, where ReKV's each choose their own (see
    `per_layer`); a true cosine, centred and without its trend, where its code takes the dot product; keys as they are,
    where ReKV repeats them for every query head (7 times the bytes on a 7B model); the recent window is always in the
    context, where ReKV's must be retrieved; the index is bounded in bytes.

    max_layers: layers whose keys are kept, evenly spaced, at least 1; a model with fewer than twice as many keeps all.
    centred: whether the mean of all rows held is taken off, yes or no.
    detrend: whether the trend over time is taken off, yes or no; never with fewer than 32 blocks.
    """

    needs_query: ClassVar[bool] = True
    max_layers: int = 4
    centred: bool = True
    detrend: bool = True

    def __post_init__(self) -> None:
        _check_layers(self.max_layers)

    def start(self) -> Index:
        return KeyIndex(self.max_layers, centred=self.centred, detrend=self.detrend)


@dataclass(frozen=True)
class PerLayerRetriever(Retriever):
    """For each layer its own blocks: those whose mean key there fits the question's mean query there.

    Paper: Streaming Video Question-Answering with In-context Video KV-Cache Retrieval (arXiv 2503.00540)
    Differs from the paper: keys as they are, where ReKV repeats them for every query head, which gives the same order;
    the recent window is always in the context, where ReKV's must be retrieved; the index, one key for each layer and
    head (28 KiB a block on a 7B model), is bounded in bytes.

    similarity: "dot", as ReKV's code has it, or "cosine", as its paper says.
    """

    needs_query: ClassVar[bool] = True
    by_layer: ClassVar[bool] = True
    similarity: Literal["dot", "cosine"] = "dot"

    def __post_init__(self) -> None:
        if self.similarity not in ("dot", "cosine"):
            raise ValueError(f"similarity must be 'dot' or 'cosine'; got {self.similarity!r}")

    def start(self) -> Index:
        return LayerIndex(self.similarity)


@dataclass(frozen=True)
class RecentRetriever(Retriever):
    """The newest of the older blocks, whatever is asked.

    Baseline: a longer window.
    Differs from the paper: None.
    """

    needs_query: ClassVar[bool] = False

    def start(self) -> Index:
        return RecentIndex()


@dataclass(frozen=True)
class ByNoveltyRetriever(Retriever):
    """The blocks in which something is most novel, whatever is asked.

    A token is as novel as it is unlike all tokens of the block before, wherever they are: 1 less the largest cosine of
    its keys with theirs. A block is as novel as its most novel token, so what comes is found however small it is.

    Paper: Human-inspired Episodic Memory for Infinite Context LLMs (arXiv 2407.09450)
    Differs from the paper: where a stretch of its own begins is told by keys of visual tokens, where EM-LLM takes the
    model's surprise at each word and moves the borders by the graph of all keys; the first block of a stretch stands
    for it, where EM-LLM recalls whole stretches by their fit to the question, and their neighbours.

    max_layers: layers whose keys are compared, evenly spaced, at least 1; of a model with fewer than twice as many all.
    """

    needs_query: ClassVar[bool] = False
    max_layers: int = 8

    def __post_init__(self) -> None:
        _check_layers(self.max_layers)

    def start(self) -> Index:
        return NoveltyIndex(self.max_layers)


@dataclass(frozen=True)
class ByKeyAndNoveltyRetriever(Retriever):
    """Half of what `by_novelty` finds and half of what `by_key` finds, best first, in turns.

    Paper: Human-inspired Episodic Memory for Infinite Context LLMs (arXiv 2407.09450)
    Differs from the paper: it has what is similar and what is near in time take turns; here it is what is similar and
    what is novel, each found as its own row says.

    max_layers: of `by_key`, see there; of `by_novelty` as it comes.
    """

    needs_query: ClassVar[bool] = True
    max_layers: int = 4

    def __post_init__(self) -> None:
        _check_layers(self.max_layers)

    def start(self) -> Index:
        by_key = KeyIndex(self.max_layers, centred=True, detrend=True)
        return MixedIndex(NoveltyIndex(ByNoveltyRetriever.max_layers), by_key)


def _check_layers(max_layers: int) -> None:
    if max_layers < 1:
        raise ValueError(f"max_layers must be at least 1; got {max_layers}")


RETRIEVERS: Table[Retriever] = Table(
    "retriever",
    __package__ or "",
    {
        "by_key": "retrievers:ByKeyRetriever",
        "by_key_and_novelty": "retrievers:ByKeyAndNoveltyRetriever",
        "by_novelty": "retrievers:ByNoveltyRetriever",
        "per_layer": "retrievers:PerLayerRetriever",
        "recent": "retrievers:RecentRetriever",
    },
)

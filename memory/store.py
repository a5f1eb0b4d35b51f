"""Memory: what one session still knows. Newest frames as they are, older ones packed, never over budget."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from torch import Tensor

from ..stream import Span
from ..stream.table import Table
from .block import BlockId, KVBlock, KVSpec
from .codecs import CODECS, Codec
from .evictors import EVICTORS, Evictor
from .owned import owned_block, storage_bytes
from .retrievers import RETRIEVERS, Retriever
from .stats import MemoryStats
from .tiers import TIERS, Tier

# Shapes: L layers, K key/value heads, D channels per head.

T = TypeVar("T")


class BudgetError(ValueError):
    """A limit that no memory could keep to."""


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """How much one session remembers, and how. Parts are named by their row, or given as they are."""

    recent_frames: int = 8
    """How many of the newest frame blocks stay exact and in every context."""

    budget_bytes: int = 512 * 2**20
    """Cap on everything older, its share of the index included; 0 keeps no history."""

    recall_blocks: int = 8
    """How many older blocks a question brings back at most."""

    codec: str | Codec = "plain"
    """What older blocks cost at rest: a row of CODECS."""

    tier: str | Callable[[], Tier] = "host"
    """Where older blocks are kept: a row of TIERS, or what makes one."""

    evictor: str | Evictor = "oldest"
    """Which block leaves when the budget is full: a row of EVICTORS."""

    retriever: str | Retriever = "by_key"
    """Which older blocks a question needs: a row of RETRIEVERS."""

    def __post_init__(self) -> None:
        for name, least in (("recent_frames", 1), ("budget_bytes", 0), ("recall_blocks", 0)):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < least:
                raise BudgetError(f"{name} must be a whole number, at least {least}; got {given!r}")
        for part, table in (
            (self.codec, CODECS),
            (self.tier, TIERS),
            (self.evictor, EVICTORS),
            (self.retriever, RETRIEVERS),
        ):
            if isinstance(part, str):
                table[part]  # an unknown name raises, and lists the known ones


class AppendResult(NamedTuple):
    """What one append moved: blocks that left the recent window, and blocks that are remembered no more."""

    left_recent: tuple[BlockId, ...]
    evicted: tuple[BlockId, ...]


@dataclass(frozen=True, slots=True)
class Recall:
    """Made by Memory, read by `Memory.context` and sessions, written by nobody: what a question brings back.

    blocks: in order of time, all older than the recent window.
    scores: one for each block, as the retriever gave it.
    num_missed: how many were chosen but had been lost by their tier.
    """

    blocks: tuple[KVBlock, ...] = ()
    scores: tuple[float, ...] = ()
    num_missed: int = 0

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.scores):
            raise ValueError(
                f"a recall has one score for each block; got {len(self.scores)} for {len(self.blocks)} blocks"
            )
        starts_s = [block.span.start_s for block in self.blocks]
        if starts_s != sorted(starts_s):
            raise ValueError(f"recalled blocks must be in order of time; got starts {starts_s[:20]}")

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(block.span for block in self.blocks)

    def __repr__(self) -> str:
        return f"Recall({len(self.blocks)} blocks, {self.num_missed} missed)"


class Memory:
    """One session's memory.

        add_sink -> [sinks]                                      exact, never leave
        append ---> [recent: newest N] -> codec -> [tier] -> evicted
                     exact                  under budget_bytes, with the index

    Promises: between calls it is never over budget; `append` says what it let go; `recall` and `context`
    change nothing; `check` recounts everything. Not thread-safe: one per session.
    """

    def __init__(self, config: MemoryConfig | None = None) -> None:
        self.config = config or MemoryConfig()
        self._codec = _part(CODECS, self.config.codec)
        self._evictor = _part(EVICTORS, self.config.evictor)
        self._retriever = _part(RETRIEVERS, self.config.retriever)
        tier = self.config.tier
        self._tier = TIERS[tier]() if isinstance(tier, str) else tier()
        self._index = self._retriever.start()
        self._sinks: dict[BlockId, KVBlock] = {}
        # Ordered, because in a plain dict finding the first row costs all that were popped before it.
        self._recent: OrderedDict[BlockId, KVBlock] = OrderedDict()
        self._older: OrderedDict[BlockId, Span] = OrderedDict()
        self._spec: KVSpec | None = None
        self._newest_start_s = float("-inf")
        self._sink_bytes = self._recent_bytes = 0
        self._num_appended = self._num_evicted = self._num_forgotten = 0

    @property
    def sinks(self) -> tuple[KVBlock, ...]:
        return tuple(self._sinks.values())

    @property
    def recent(self) -> tuple[KVBlock, ...]:
        """The newest frame blocks, exact, oldest first."""
        return tuple(self._recent.values())

    @property
    def older(self) -> Mapping[BlockId, Span]:
        """What can be recalled, in order of time; a live view."""
        return MappingProxyType(self._older)

    @property
    def needs_query(self) -> bool:
        """Whether `recall` needs the question's query."""
        return self._retriever.needs_query

    @property
    def num_bytes(self) -> int:
        """All that is held: sinks, recent window, older blocks and index."""
        return self._sink_bytes + self._recent_bytes + self._older_bytes

    @property
    def _older_bytes(self) -> int:
        return self._tier.num_bytes + self._index.num_bytes

    @property
    def stats(self) -> MemoryStats:
        return MemoryStats(
            num_sinks=len(self._sinks),
            num_recent=len(self._recent),
            num_older=len(self._older),
            sink_bytes=self._sink_bytes,
            recent_bytes=self._recent_bytes,
            older_bytes=self._tier.num_bytes,
            index_bytes=self._index.num_bytes,
            budget_bytes=self.config.budget_bytes,
            num_appended=self._num_appended,
            num_evicted=self._num_evicted,
            num_forgotten=self._num_forgotten,
        )

    def add_sink(self, block: KVBlock) -> None:
        """Keeps a text block (a prompt) for as long as this memory lives, in front of every context."""
        if block.kind != "text":
            raise ValueError(f"a sink is a text block; got {block!r}, append it instead")
        self._admit(block)
        block = owned_block(block)
        self._sinks[block.id] = block
        self._sink_bytes += block.num_bytes

    def append(self, block: KVBlock) -> AppendResult:
        """Takes the newest frame block in; the oldest recent one becomes older, and others may go for it.

        A block that alone exceeds the budget is let go as it leaves the recent window; nothing goes for it.
        """
        if block.kind != "frame":
            raise ValueError(f"only frame blocks are appended; got {block!r}, make it a sink instead")
        if block.span.start_s < self._newest_start_s:
            raise ValueError(
                f"blocks must come in order of time; got {block!r} after one that starts at "
                f"{self._newest_start_s:.3f} s"
            )
        self._admit(block)
        block = owned_block(block)
        self._newest_start_s = block.span.start_s
        self._num_appended += 1
        self._recent[block.id] = block
        self._recent_bytes += block.num_bytes
        if len(self._recent) <= self.config.recent_frames:
            return AppendResult((), ())
        _, leaving = self._recent.popitem(last=False)
        self._recent_bytes -= leaving.num_bytes
        evicted = self._keep(leaving)
        self._num_evicted += len(evicted)
        return AppendResult((leaving.id,), evicted)

    def recall(
        self, query_LKD: Tensor | None = None, *, num_blocks: int | None = None, span: Span | None = None
    ) -> Recall:
        """The older blocks that fit the question best, unpacked, in order of time. Changes nothing.

        Args:
            query_LKD: what `VideoLLM.probe` made of the question; None where the retriever needs none.
            num_blocks: how many at most; the config's `recall_blocks` by default.
            span: only blocks that overlap it.
        """
        num_blocks = self.config.recall_blocks if num_blocks is None else num_blocks
        if num_blocks < 0:
            raise ValueError(f"num_blocks must not be negative; got {num_blocks}")
        among = None if span is None else [i for i, held in self._older.items() if held.overlaps(span)]
        found: list[tuple[KVBlock, float]] = []
        best = self._index.best(query_LKD, num_blocks, among)
        for block_id, score in best:
            packed = self._tier.get(block_id)
            if packed is not None:
                found.append((self._codec.unpack(packed), score))
        found.sort(key=lambda pair: (pair[0].span, pair[0].id))
        return Recall(tuple(block for block, _ in found), tuple(score for _, score in found), len(best) - len(found))

    def context(self, recall: Recall | None = None, *, span: Span | None = None) -> list[KVBlock]:
        """Blocks to attend to: sinks, what was recalled, the recent window (with a span: what overlaps it).

        Recalled blocks are where their tier keeps them; `VideoLLM.fill` brings them to the model's device.
        """
        recalled = () if recall is None else recall.blocks
        recent = [block for block in self._recent.values() if span is None or block.span.overlaps(span)]
        return [*self._sinks.values(), *recalled, *recent]

    def forget(self) -> None:
        """Lets every frame go, recent and older; the sinks stay, and time may start anew."""
        self._num_forgotten += len(self._recent) + len(self._older)
        for block_id in list(self._older):
            self._drop(block_id)
        self._recent.clear()
        self._recent_bytes = 0
        self._newest_start_s = float("-inf")

    def check(self) -> None:
        """Recounts everything from scratch; RuntimeError with the numbers where the books do not balance."""
        self._tier.check()
        self._index.check()
        if self._older_bytes > self.config.budget_bytes:
            raise RuntimeError(
                f"older blocks take {self._tier.num_bytes} bytes and their index {self._index.num_bytes}, "
                f"more than the budget of {self.config.budget_bytes}"
            )
        for name, blocks, num_bytes in (
            ("sinks", self.sinks, self._sink_bytes),
            ("recent window", self.recent, self._recent_bytes),
        ):
            counted_bytes = sum(storage_bytes(b.tensors) for b in blocks)
            if counted_bytes != num_bytes:
                raise RuntimeError(f"the books of the {name} say {num_bytes} bytes, it holds {counted_bytes}")
        if len(self._recent) > self.config.recent_frames:
            raise RuntimeError(f"{len(self._recent)} blocks are recent, of {self.config.recent_frames} at most")
        if not self._tier.ids <= self._older.keys() or self._index.ids != self._older.keys():
            raise RuntimeError(
                f"{len(self._older)} blocks are older, but the tier holds {len(self._tier.ids)} "
                f"and the index knows {len(self._index.ids)}, or others"
            )
        num_held = len(self._recent) + len(self._older)
        if self._num_appended != num_held + self._num_evicted + self._num_forgotten:
            raise RuntimeError(
                f"{self._num_appended} blocks came, but {num_held} are here, {self._num_evicted} evicted, "
                f"{self._num_forgotten} forgotten"
            )

    def __repr__(self) -> str:
        return (
            f"Memory({len(self._sinks)} sinks, {len(self._recent)} recent, {len(self._older)} older in "
            f"{self._older_bytes} of {self.config.budget_bytes} bytes)"
        )

    def _admit(self, block: KVBlock) -> None:
        """ValueError for a block of another model, or one that is held already; changes nothing else."""
        if any(block.id in held for held in (self._sinks, self._recent, self._older)):
            raise ValueError(f"block {block.id} is in this memory already; every block is appended once")
        if self._spec is None:
            self._spec = block.spec
        elif block.spec != self._spec:
            raise ValueError(f"this memory holds blocks of {self._spec}; got {block!r} of {block.spec}")

    def _keep(self, block: KVBlock) -> tuple[BlockId, ...]:
        """Packs the block and keeps it, after letting go what is in its way; returns what is kept no more."""
        packed = self._codec.pack(block)
        budget_bytes = self.config.budget_bytes
        if packed.num_bytes + self._retriever.start().num_bytes_with(block.spec) > budget_bytes:
            return (block.id,)
        evicted: list[BlockId] = []
        while self._tier.num_bytes + packed.num_bytes + self._index.num_bytes_with(block.spec) > budget_bytes:
            # An empty index holds nothing, so an empty memory has room: this ends there at the latest.
            evicted.append(self._evictor.choose(self.older))
            self._drop(evicted[-1])
        self._tier.put(packed)
        self._index.add(block)
        self._older[block.id] = block.span
        return tuple(evicted)

    def _drop(self, block_id: BlockId) -> None:
        del self._older[block_id]
        self._tier.drop(block_id)
        self._index.drop(block_id)


def _part(table: Table[T], given: str | T) -> T:
    return table[given]() if isinstance(given, str) else given

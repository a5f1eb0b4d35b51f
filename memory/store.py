"""Memory: what one session still knows. Newest frames as they are, older ones packed, never over budget."""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..stream import Span
from ..stream.table import Table
from .block import BlockId, KVBlock, KVSpec, PackedBlock, skip_block_ids
from .by_layer import compose
from .codecs import CODECS
from .config import MemoryConfig
from .evictors import EVICTORS
from .index import Scored
from .keeper import AtRest, Keeper, NoKeeper
from .owned import owned_block, storage_bytes
from .pruners import PRUNERS
from .recall import Recall
from .retrievers import RETRIEVERS
from .stats import MemoryStats
from .tiers import TIERS, Tier

# Shapes: L layers, K key/value heads, D channels per head.

T = TypeVar("T")

_log = logging.getLogger(__name__)


class AppendResult(NamedTuple):
    """What one append moved: blocks that left the recent window, and blocks that are remembered no more."""

    left_recent: tuple[BlockId, ...]
    evicted: tuple[BlockId, ...]


class Memory:
    """One session's memory.

        add_sink -> [sinks]                                                exact, never leave
        append ---> [recent: newest N] -> pruner -> codec -> [tier] -> evicted
                     exact                            under budget_bytes, with the index

    Promises: between calls it is never over budget; `append` says what it let go; `rank`, `fetch`, `recall` and
    `context` change nothing; `check` recounts everything. Not thread-safe: one per session.

    keeper: who is told what becomes of blocks.
    """

    def __init__(self, config: MemoryConfig | None = None, keeper: Keeper | None = None) -> None:
        self.config = config or MemoryConfig()
        self._keeper = keeper or NoKeeper()
        self._pruner = _part(PRUNERS, self.config.pruner)
        self._pruning = self._pruner.start()
        self._codec = _part(CODECS, self.config.codec)
        self._evictor = _part(EVICTORS, self.config.evictor)
        self._retriever = _part(RETRIEVERS, self.config.retriever)
        self._tier = _made_tier(self.config)
        self._index = self._retriever.start()
        self._sinks: dict[BlockId, KVBlock] = {}
        # Ordered, because in a plain dict finding the first row costs all that were popped before it.
        self._recent: OrderedDict[BlockId, KVBlock] = OrderedDict()
        self._older: dict[BlockId, Span] = {}  # in order of time
        self._older_ids: list[BlockId] = []  # the same, to be searched by time without being listed first
        self._last_row: Tensor | None = None  # of the newest that left the recent window
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

    def older_at(self, time_s: float) -> BlockId | None:
        """The newest of what can be recalled that had begun by then."""
        place = bisect_right(self._older_ids, time_s, key=lambda block_id: self._older[block_id].start_s)
        return self._older_ids[place - 1] if place else None

    @property
    def needs_query(self) -> bool:
        """Whether `recall` needs the question's query."""
        return self._retriever.needs_query or self._pruner.at_question

    @property
    def is_by_layer(self) -> bool:
        """Whether each layer recalls blocks of its own choice."""
        return self._retriever.by_layer

    @property
    def needs_probes(self) -> bool:
        """Whether blocks should come with some of their queries."""
        return self._pruner.needs_queries

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
        self._keeper.arrived(block)
        if len(self._recent) <= self.config.recent_frames:
            return AppendResult((), ())
        _, leaving = self._recent.popitem(last=False)
        self._recent_bytes -= leaving.num_bytes
        evicted = self._retire(leaving, next(iter(self._recent.values())))
        self._count_out(evicted)
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
        if self._retriever.by_layer and query_LKD is not None:
            return self._recall_by_layer(query_LKD, num_blocks, span)
        return self.fetch(self.rank(query_LKD, num_blocks, span=span), query_LKD)

    def rank(self, query_LKD: Tensor | None, num_blocks: int, *, span: Span | None = None) -> list[Scored]:
        """The older blocks that fit the question best, best first, as the retriever finds them."""
        return self._index.best(query_LKD, num_blocks, self._among(span))

    def fetch(self, chosen: Iterable[Scored], query_LKD: Tensor | None = None) -> Recall:
        """These blocks, unpacked, in order of time; those that their tier lost are counted."""
        found: list[tuple[KVBlock, float]] = []
        num_missed = 0
        for block_id, score in chosen:
            block = self._unpacked(block_id, query_LKD)
            if block is None:
                num_missed += 1
            else:
                found.append((block, score))
        found.sort(key=lambda pair: (pair[0].span, pair[0].id))
        return Recall(tuple(block for block, _ in found), tuple(score for _, score in found), num_missed)

    def _recall_by_layer(self, query_LKD: Tensor, num_blocks: int, span: Span | None) -> Recall:
        """What each layer chose for itself, put together to blocks."""
        chosen = self._index.best_by_layer(query_LKD, num_blocks, self._among(span))
        ids = {scored.id for layer in chosen for scored in layer}
        blocks = {i: block for i in ids if (block := self._unpacked(i, query_LKD)) is not None}
        composed = compose(chosen, blocks, num_blocks)
        return Recall(composed.blocks, composed.scores, composed.num_missed, composed.spans)

    def _among(self, span: Span | None) -> list[BlockId] | None:
        return None if span is None else [i for i, held in self._older.items() if held.overlaps(span)]

    def _unpacked(self, block_id: BlockId, query_LKD: Tensor | None) -> KVBlock | None:
        packed = self._tier.get(block_id)
        if packed is None or packed.spec != self._spec:
            return None
        try:
            block = self._codec.unpack(packed)
        except ValueError as error:  # what was restored from elsewhere may be anything
            _log.warning("%r is lost: %s", packed, error)
            return None
        return self._pruner.prune_for(block, query_LKD) if query_LKD is not None else block

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
        self._keeper.let_go([*self._recent, *self._older])
        for block_id in list(self._older):
            self._drop(block_id)
        self._recent.clear()
        self._recent_bytes = 0
        self._newest_start_s = float("-inf")
        self._last_row = None
        self._pruning = self._pruner.start()

    def restore(self, came: Iterable[AtRest], gone: Iterable[BlockId] = ()) -> None:
        """Takes back what a keeper kept, newer than what is older here; `gone` are let go.

        The newest exact blocks become the recent window, in place of what is there; those that are exact but not among
        the newest are pruned and packed as when they leave it. What is over the budget goes as ever.
        Raises ValueError for blocks of another codec, retriever or model, before anything is taken.
        """
        blocks = sorted(came, key=lambda at_rest: (at_rest.block.span, at_rest.block.id))
        for block, row in blocks:
            self._check_spec(block.spec, repr(block))
            if isinstance(block, PackedBlock):
                self._codec.check_packed_here(block)
                if not self._index.accepts(row, block.spec):
                    raise ValueError(f"{block!r} was kept for another retriever; got a row that is none of this one's")
        num_packed = len(blocks)
        while num_packed and len(blocks) - num_packed < self.config.recent_frames:
            if isinstance(blocks[num_packed - 1].block, PackedBlock):
                break
            num_packed -= 1
        self._num_forgotten += len(self._recent)
        self._recent.clear()
        self._recent_bytes = 0
        evicted: list[BlockId] = []
        for block_id in gone:
            if block_id in self._older:
                self._drop(block_id)
                self._num_evicted += 1
        for block, _ in blocks:
            skip_block_ids(block.id)
            self._num_appended += 1
            self._newest_start_s = max(self._newest_start_s, block.span.start_s)
        for block, _ in blocks[num_packed:]:
            assert isinstance(block, KVBlock)
            self._recent[block.id] = owned_block(block)
            self._recent_bytes += block.num_bytes
        for (left, row), (after, its_row) in pairwise([*blocks, (None, None)][: num_packed + 1]):
            if isinstance(left, PackedBlock):
                evicted += self._keep(left, row)
            elif left is not None:
                evicted += self._retire(left, after if isinstance(after, KVBlock) else its_row)
        self._count_out(tuple(evicted))

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
        if self._older_ids != list(self._older):
            raise RuntimeError(f"{len(self._older)} blocks are older, and {len(self._older_ids)}, or others, in order")
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
        self._check_spec(block.spec, repr(block))
        # Sums are finite where all is: one pass over the block, and one wait for a device.
        sums = torch.stack([x.sum(dtype=torch.float32) for x in (block.k_LKTD, block.v_LKTD)])
        if not bool(sums.isfinite().all()):
            raise ValueError(
                f"keys and values must be finite; got NaN or infinity in {block!r}; look at the model's dtype"
            )

    def _check_spec(self, spec: KVSpec, what: str) -> None:
        if self._spec is None:
            self._spec = spec
        elif spec != self._spec:
            raise ValueError(f"this memory holds blocks of {self._spec}; got {what} of {spec}")

    def _count_out(self, evicted: tuple[BlockId, ...]) -> None:
        self._num_evicted += len(evicted)
        if evicted:
            self._keeper.let_go(evicted)

    def _retire(self, block: KVBlock, after: KVBlock | Tensor | None) -> tuple[BlockId, ...]:
        """Prunes, packs and keeps a block that left the recent window, before `after`; returns what is kept no more."""
        pruned = self._pruning.prune(block, self.recent)
        if pruned is None:
            self._last_row = None
            return (block.id,)
        packed, row = self._codec.pack(pruned), self._index.describe(block, self._last_row, after)
        evicted = self._keep(packed, row)
        if packed.id in self._older:
            self._keeper.kept(packed, row)
        return evicted

    def _keep(self, packed: PackedBlock, row: Tensor | None) -> tuple[BlockId, ...]:
        """Keeps a packed block, after letting go what is in its way; returns what is kept no more."""
        budget_bytes, spec, self._last_row = self.config.budget_bytes, packed.spec, row
        if self._tier.num_bytes_alone(packed) + self._retriever.start().num_bytes_with(spec) > budget_bytes:
            return (packed.id,)
        evicted: list[BlockId] = []
        while self._tier.num_bytes_with(packed) + self._index.num_bytes_with(spec) > budget_bytes:
            # An emptied tier and index hold nothing, so an empty memory has room: this ends there at the latest.
            evicted.append(self._evictor.choose(self.older, self._index.novelty))
            self._drop(evicted[-1])
        self._tier.put(packed)
        self._index.add(packed.id, row, packed.span.start_s)
        self._older[packed.id] = packed.span
        self._older_ids.append(packed.id)
        return tuple(evicted)

    def _drop(self, block_id: BlockId) -> None:
        start_s = self._older[block_id].start_s
        place = bisect_left(self._older_ids, start_s, key=lambda other: self._older[other].start_s)
        del self._older_ids[self._older_ids.index(block_id, place)]
        del self._older[block_id]
        self._tier.drop(block_id)
        self._index.drop(block_id)


def _made_tier(config: MemoryConfig) -> Tier:
    if not isinstance(config.tier, str):
        return config.tier()
    device_bytes = {"device_bytes": config.device_bytes} if config.tier == "cascade" else {}
    return TIERS[config.tier](**device_bytes)


def _part(table: Table[T], given: str | T) -> T:
    return table[given]() if isinstance(given, str) else given

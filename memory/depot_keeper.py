"""DepotKeeper: a memory's blocks written to a depot as they come, and read back when a session resumes."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Container, Iterable
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from .block import BlockId, KVBlock, PackedBlock
from .codecs.plain import PlainCodec
from .depots import Depot
from .depots.writer import DepotWriter
from .keeper import AtRest, Keeper
from .wire import decode_block, encode_block

# Shapes: L layers, K key/value heads, P probing tokens, D channels per head.

_log = logging.getLogger(__name__)

_EXACT = PlainCodec()
_MARK_BYTES = 16
_MAX_LATE = 2**16
_QUERY_DIMS = 4  # layers, heads, tokens, channels; rows of an index have fewer


class DepotKeeper(Keeper):
    """Writes every block as it arrives, exact, and over that as it is kept; takes back what is let go.

        arrived: put kv N, exact       kept: put kv N, packed       let_go: drop kv N

    One record a block, so that from its arrival to its end it is at rest once, in one form or the other, and all
    before it are too: a record that replaces one that still waits takes its place in the queue. It begins with a mark
    of the model: keys and values mean nothing to another. Nothing is encoded in the caller's thread, and nothing waits
    for the depot.
    """

    def __init__(self, writer: DepotWriter, fingerprint: str) -> None:
        """fingerprint: of the model that makes the blocks."""
        self._writer = writer
        self._mark = _mark_of(fingerprint)
        self._late: deque[BlockId] = deque(maxlen=_MAX_LATE)  # drops that found no room yet

    def arrived(self, block: KVBlock) -> None:
        while self._late and self._writer.drop("kv", self._late[0]):
            self._late.popleft()
        self._writer.submit("kv", block.id, lambda: [self._mark, *_encode_recent(block)], num_bytes=block.num_bytes)

    def kept(self, block: PackedBlock, row: Tensor | None) -> None:
        self._writer.submit("kv", block.id, lambda: [self._mark, *encode_block(block, row)], num_bytes=block.num_bytes)

    def let_go(self, ids: Iterable[BlockId]) -> None:
        self._late += (block_id for block_id in ids if not self._writer.drop("kv", block_id))


class Found(NamedTuple):
    """Made by `read_blocks`: what a depot holds that is not known yet.

    ids: of all blocks at rest, known or not. foreign: those that another model made. damaged: those that are none.
    """

    blocks: list[AtRest]
    ids: set[BlockId]
    foreign: list[BlockId]
    damaged: list[BlockId]


def read_blocks(depot: Depot, fingerprint: str, known: Container[BlockId] = ()) -> Found:
    """Blocks of this model that are not known. What is gone when it is asked for, because a server let it go or a
    writer did, is left out."""
    mark = _mark_of(fingerprint)
    found = Found([], {BlockId(number) for number in depot.numbers("kv")}, [], [])
    for block_id in sorted(found.ids):
        data = None if block_id in known else depot.get("kv", block_id)
        if data is None:
            continue
        if len(data) >= _MARK_BYTES and data[:_MARK_BYTES] != mark:
            found.foreign.append(block_id)
            continue
        try:
            found.blocks.append(_read(memoryview(data)[_MARK_BYTES:], block_id))
        except ValueError as error:  # WireError is one
            _log.debug("block %d: %s", block_id, error)
            found.damaged.append(block_id)
    return found


def _mark_of(fingerprint: str) -> bytes:
    return hashlib.sha256(fingerprint.encode()).digest()[:_MARK_BYTES]


def _encode_recent(block: KVBlock) -> list[bytes | memoryview]:
    # In place of an index's row, which only older blocks have, stand the queries that a pruner will ask for.
    return encode_block(_EXACT.pack(block), block.q_LKPD)


def _read(data: memoryview, number: int) -> AtRest:
    packed, row = decode_block(data)
    if packed.id != number:
        raise ValueError(f"record {number} holds block {packed.id}; it is left out")
    if packed.codec != _EXACT.name or (row is not None and row.ndim != _QUERY_DIMS):
        return AtRest(packed, row)
    return AtRest(replace(_EXACT.unpack(packed), q_LKPD=row), None)

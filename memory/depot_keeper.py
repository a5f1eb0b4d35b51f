"""DepotKeeper: a memory's blocks written to a depot as they come, and read back when a session resumes."""

from __future__ import annotations

import logging
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
_QUERY_DIMS = 4  # layers, heads, tokens, channels; rows of an index have fewer


class DepotKeeper(Keeper):
    """Writes every block as it arrives, exact, and over that as it is kept; takes back what is let go.

        arrived: put kv N, exact       kept: put kv N, packed       let_go: drop kv N

    One record a block, so that from its arrival to its end it is at rest once, in one form or the other, and all
    before it are too: a record that replaces one that still waits takes its place in the queue. Nothing is encoded in
    the caller's thread, and nothing waits for the depot.
    """

    def __init__(self, writer: DepotWriter) -> None:
        self._writer = writer

    def arrived(self, block: KVBlock) -> None:
        self._writer.submit("kv", block.id, lambda: _encode_recent(block), num_bytes=block.num_bytes)

    def kept(self, block: PackedBlock, row: Tensor | None) -> None:
        self._writer.submit("kv", block.id, lambda: encode_block(block, row), num_bytes=block.num_bytes)

    def let_go(self, ids: Iterable[BlockId]) -> None:
        for block_id in ids:
            self._writer.drop("kv", block_id)


class Found(NamedTuple):
    """Made by `read_blocks`: what a depot holds that is not known yet.

    ids: of all blocks at rest, known or not. num_lost: how many records were no blocks.
    """

    blocks: list[AtRest]
    ids: set[BlockId]
    num_lost: int


def read_blocks(depot: Depot, known: Container[BlockId] = ()) -> Found:
    """Blocks that are not known. What is no block is left out and counted."""
    ids = {BlockId(number) for number in depot.numbers("kv")}
    read = [_read(depot, block_id) for block_id in sorted(ids) if block_id not in known]
    blocks = [at_rest for at_rest in read if at_rest is not None]
    return Found(blocks, ids, len(read) - len(blocks))


def _encode_recent(block: KVBlock) -> list[bytes | memoryview]:
    # In place of an index's row, which only older blocks have, stand the queries that a pruner will ask for.
    return encode_block(_EXACT.pack(block), block.q_LKPD)


def _read(depot: Depot, number: int) -> AtRest | None:
    data = depot.get("kv", number)
    if data is None:
        return None
    try:
        packed, row = decode_block(data)
        if packed.id != number:
            raise ValueError(f"record {number} holds block {packed.id}; it is left out")
        if packed.codec != _EXACT.name or (row is not None and row.ndim != _QUERY_DIMS):
            return AtRest(packed, row)
        return AtRest(replace(_EXACT.unpack(packed), q_LKPD=row), None)
    except ValueError as error:  # WireError is one
        _log.debug("block %d: %s", number, error)
        return None

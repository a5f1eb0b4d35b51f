"""Where records outlive the process: nowhere (RAM), a directory, or a Redis server."""

from __future__ import annotations

from pathlib import Path

from ...stream.table import Table
from .base import Depot, DepotError, DepotFull, DepotStats, DepotTaken, Kind, Payload
from .writer import DepotWriter

DEPOTS: Table[Depot] = Table(
    "depot",
    __name__,
    {
        "ram": "ram:RamDepot",
        "directory": "directory:DirectoryDepot",
        "redis": "redis:RedisDepot",
    },
)
_REDIS = ("redis://", "rediss://", "unix://")


def open_depot(
    where: str | Path | None, *, session: str = "stream", read_only: bool = False, segment_bytes: int = 32 * 2**20
) -> Depot:
    """The depot at `where`: None is RAM, a redis://, rediss:// or unix:// address a server, all else a directory.

    session: what keeps several streams on one server apart; a directory holds one and does not ask.
    segment_bytes: length of a directory's files.
    """
    if where is None:
        return DEPOTS["ram"](read_only=read_only)  # type: ignore[call-arg]
    if isinstance(where, str) and where.startswith(_REDIS):
        return DEPOTS["redis"](where, session, read_only=read_only)  # type: ignore[call-arg]
    return DEPOTS["directory"](where, read_only=read_only, segment_bytes=segment_bytes)  # type: ignore[call-arg]


__all__ = [
    "DEPOTS",
    "Depot",
    "DepotError",
    "DepotFull",
    "DepotStats",
    "DepotTaken",
    "DepotWriter",
    "Kind",
    "Payload",
    "open_depot",
]

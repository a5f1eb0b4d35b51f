"""What a supervisor does next, as a pure function: from what is wanted and what is seen to the steps between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .placement import place


@dataclass(frozen=True, slots=True)
class WorkerSight:
    """Made by a supervisor, read by `next_steps`: a worker that runs, as it was last seen.

    streams: those that are open there; None: it has not said yet.
    adding: those that it was told to open, and has not said anything about.
    """

    streams: frozenset[str] | None
    adding: frozenset[str] = frozenset()


class Steps(NamedTuple):
    """What to do next. Streams are ids; pairs are of a stream and a worker.

    homes: where streams are to be; a step towards it may have to wait for another. Those that have none wait.
    """

    start_sources: tuple[str, ...]
    stop_sources: tuple[str, ...]
    add: tuple[tuple[str, str], ...]
    remove: tuple[tuple[str, str], ...]
    homes: dict[str, str]


def next_steps(wanted: Mapping[str, bool], sources: frozenset[str], workers: Mapping[str, WorkerSight]) -> Steps:
    """The steps that are possible now.

    A stream is opened on one worker only after every other one has let it go, and after each that runs has said what
    it carries: two sessions would fight over its memory. One that forgets with its worker is never moved off a living
    one; the others move where that balances the load, closed there first.

    wanted: the streams, and whether what is known of each outlives its worker.
    sources: streams whose source is being read.
    workers: those that run, or may; one that has nothing and is being started need not be among them.
    """
    heard = {name: one for name, one in workers.items() if one.streams is not None}
    seen_at: dict[str, list[str]] = {}
    for name, one in sorted(heard.items()):
        for stream_id in sorted((one.streams or frozenset()) | one.adding):
            seen_at.setdefault(stream_id, []).append(name)
    now = {stream_id: names[0] for stream_id, names in seen_at.items() if stream_id in wanted}
    forgetful = {stream_id for stream_id in now if not wanted[stream_id]}
    homes = place(dict.fromkeys(sorted(wanted), 1.0), dict.fromkeys(heard, 1.0), now, pinned=forgetful)
    if len(heard) < len(workers):
        homes = now
    return Steps(
        start_sources=tuple(sorted(wanted.keys() - sources)),
        stop_sources=tuple(sorted(sources - wanted.keys())),
        add=tuple((s, name) for s, name in homes.items() if s not in seen_at),
        remove=tuple(
            (s, name)
            for s, names in sorted(seen_at.items())
            for name in names
            if name != homes.get(s) and s in (heard[name].streams or ())
        ),
        homes=homes,
    )

"""Placement: which worker carries which stream. Streams stay where they are unless something has to move."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf, isfinite
from typing import NamedTuple

# Loads that differ by less are alike: sums of the same weights in another order.
_SAME = 1e-9


def place(
    streams: Mapping[str, float],
    workers: Mapping[str, float],
    now: Mapping[str, str],
    *,
    pinned: Collection[str] = frozenset(),
) -> dict[str, str]:
    """A worker for each stream; pure, and the same for the same arguments in whatever order.

    A stream that has a living worker stays with it. The others go to whoever has most room, the heaviest first. Then
    streams move from busy workers to idle ones, as long as a move makes the busier of the two less busy than it was:
    with streams of one weight and workers of one capacity, no two workers differ by more than one stream, and no fewer
    moves would do. Empty where no worker lives.

    streams: what each costs, such as its frames a second; more than 0.
    workers: what each can carry, in the same unit or any other (True: 1); 0 or False: it is dead, or on its way out.
    now: where streams are; those that are not in `streams` or not on a living worker count as being nowhere.
    pinned: streams that must not leave a living worker; the balance is what the others can bring about.
    """
    for stream_id, weight in streams.items():
        if not (isfinite(weight) and weight > 0):
            raise ValueError(f"the weight of stream {stream_id!r} must be more than 0 and finite; got {weight}")
    for worker, capacity in workers.items():
        if not (isfinite(capacity) and capacity >= 0):
            raise ValueError(f"the capacity of worker {worker!r} must be 0 or more and finite; got {capacity}")
    alive = {worker: float(workers[worker]) for worker in sorted(workers) if workers[worker]}
    if not alive:
        return {}
    placed = _Placed(streams, alive, {stream_id for stream_id in pinned if now.get(stream_id) in alive})
    homeless = []
    for stream_id in sorted(streams, key=lambda stream_id: (-streams[stream_id], stream_id)):
        if now.get(stream_id) in alive:
            placed.add(stream_id, now[stream_id])
        else:
            homeless.append(stream_id)
    for stream_id in homeless:
        placed.add(stream_id, min(alive, key=lambda worker: (placed.load_with(stream_id, worker), worker)))
    while (move := placed.best_move()) is not None:
        placed.move(move)
    return {stream_id: placed.worker_of[stream_id] for stream_id in streams}


class _Move(NamedTuple):
    stream_id: str
    to: str


class _Placed:
    """Streams on workers, and how busy each worker is: the weight on it for each unit of what it can carry."""

    def __init__(self, weights: Mapping[str, float], capacities: Mapping[str, float], pinned: Collection[str]) -> None:
        self._weights, self._capacities, self._pinned = weights, capacities, frozenset(pinned)
        self.worker_of: dict[str, str] = {}
        self._streams_of: dict[str, set[str]] = {worker: set() for worker in capacities}
        self._weight_of = dict.fromkeys(capacities, 0.0)

    def load(self, worker: str) -> float:
        return self._weight_of[worker] / self._capacities[worker]

    def load_with(self, stream_id: str, worker: str) -> float:
        """How busy a worker would be that took one stream more."""
        return (self._weight_of[worker] + self._weights[stream_id]) / self._capacities[worker]

    def add(self, stream_id: str, worker: str) -> None:
        self.worker_of[stream_id] = worker
        self._streams_of[worker].add(stream_id)
        self._weigh(worker)

    def move(self, move: _Move) -> None:
        worker = self.worker_of[move.stream_id]
        self._streams_of[worker].remove(move.stream_id)
        self._weigh(worker)
        self.add(move.stream_id, move.to)

    def best_move(self) -> _Move | None:
        """From the busiest worker that can be helped: the stream and the worker that leave the busier of the two least
        busy. None where every move would only turn things round.

        Each makes the list of loads, in falling order, smaller: so moves come to an end.
        """
        for worker in sorted(self._capacities, key=lambda worker: (-self.load(worker), worker)):
            busy, best, found = self.load(worker) * (1 - _SAME), (inf, inf), None
            tried: set[float] = set()
            for stream_id in sorted(self._streams_of[worker] - self._pinned):
                weight = self._weights[stream_id]
                if weight in tried:  # streams of one weight are alike: the first of them moves
                    continue
                tried.add(weight)
                left = (self._weight_of[worker] - weight) / self._capacities[worker]
                for other in self._capacities:
                    then = self.load_with(stream_id, other)
                    # Of workers that would all be the less busy of the two, the idlest: a move elsewhere is undone.
                    if other != worker and max(left, then) < busy and (max(left, then), then) < best:
                        best, found = (max(left, then), then), _Move(stream_id, other)
            if found is not None:
                return found
        return None

    def _weigh(self, worker: str) -> None:
        # Summed anew each time, in one order: a running sum would drift, and depend on what came before.
        self._weight_of[worker] = sum(self._weights[stream_id] for stream_id in sorted(self._streams_of[worker]))

"""Streams of the command line on a cluster: the same to ask and to wait for as a hub of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from .answer import Answer
from .cluster.run import Cluster, ClusterError
from .config import EngineConfig
from .hub_events import HubEvent
from .question import Question
from .stream_spec import StreamSpec

LOCAL = "local"
_ASKED_AT_ONCE = 16
_EVENTS_EVERY_S = 0.5


class RayStreams:
    """A cluster, whose answers are futures and whose events are told as they come."""

    def __init__(self, cluster: Cluster, tell: Callable[[HubEvent], None]) -> None:
        self._cluster, self._tell = cluster, tell
        self._askers = ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="millpond asking")
        self._closing = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="millpond events", daemon=True)
        self._listener.start()

    def ask(self, stream_id: str, question: Question) -> Future[Answer]:
        return self._askers.submit(self._cluster.ask, stream_id, question)

    def wait_until_ended(self, timeout_s: float | None = None) -> bool:
        try:
            return self._cluster.wait_until_ended(timeout_s)
        except ClusterError as error:  # the model cannot be loaded as it was asked for
            raise ValueError(str(error)) from None

    def close(self) -> None:
        """Ends the cluster; what it still had to tell is told."""
        self._cluster.close()
        self._closing.set()
        self._listener.join()
        self._askers.shutdown(cancel_futures=True)

    def _listen(self) -> None:
        while not self._closing.is_set():
            for event in self._cluster.events(_EVENTS_EVERY_S):
                self._tell(event)
        for event in self._cluster.events():
            self._tell(event)


@contextmanager
def on_ray(
    specs: Sequence[StreamSpec],
    settings: EngineConfig,
    tell: Callable[[HubEvent], None],
    *,
    address: str,
    num_workers: int,
) -> Iterator[RayStreams]:
    """address: "local" starts a Ray of its own on this machine."""
    cluster = Cluster.start(specs, settings, num_workers=num_workers, address=None if address == LOCAL else address)
    streams = RayStreams(cluster, tell)
    try:
        yield streams
    finally:
        streams.close()

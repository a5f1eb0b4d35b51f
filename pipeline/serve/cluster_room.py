"""ClusterRoom: streams and models on Ray, in the place of an engine of this process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...memory.event_log import EventLog
from ...stream import Frame
from ...stream.redact import redact
from ..cluster.run import Cluster
from ..hub_events import HubEvent, Narrated
from ..shown import Overlay, Picture
from .cluster_hub import ClusterHub, FarFeed
from .engine_room import place_of
from .looking import row_of
from .views import EventRow
from .watched import Watched

if TYPE_CHECKING:
    from .config_file import ServeConfig

_log = logging.getLogger(__name__)

LOCAL = "local"
_LEAVE_S = 10.0


class ClusterRoom:
    """What `EngineRoom` is, over a cluster: it starts that in a thread of its own, and gives it the streams.

    Workers keep the sessions, and the logs that recall searches; what they tell is kept here once more, in RAM, to be
    read and searched. Frames and pictures are fetched from the worker that has the stream.

    ray: "local" for a Ray of its own on this machine, or a cluster's address. num_workers: processes with a model each.
    changed, tell, hub, is_open, problem: as there.
    """

    def __init__(
        self,
        config: ServeConfig,
        changed: threading.Condition,
        tell: Callable[[str, EventRow], None],
        *,
        ray: str,
        num_workers: int = 1,
    ) -> None:
        self._config, self._changed, self._told = config, changed, tell
        self._address = None if ray == LOCAL else ray
        self._num_workers = num_workers
        self._cluster: Cluster | None = None
        self.hub: ClusterHub | None = None
        self.is_open = self._is_closed = False
        self.problem: str | None = None
        self._opened: list[Watched] = []
        self._by_id: dict[str, Watched] = {}
        self._thread = threading.Thread(target=self._load, name="millpond loading", daemon=True)

    def start(self, declared: Sequence[Watched]) -> None:
        """Begins to start the cluster, and to give it these."""
        self._opened = list(declared)
        self._thread.start()

    def close(self) -> None:
        """Ends the cluster, and with it all streams; their sessions are flushed first."""
        with self._changed:
            self._is_closed, self.is_open = True, False
            hub = self.hub
        if hub is not None:
            hub.close()
        if self._thread.ident is not None:
            self._thread.join(_LEAVE_S)

    def newest(self, stream_id: str) -> Frame | None:
        """Frames are elsewhere."""
        return None

    def snapshot(self, watched: Watched) -> Picture | None:
        """A stream's newest frame."""
        return None if self._cluster is None else self._cluster.look(watched.entry.id, "snapshot")

    def frame(self, watched: Watched, time_s: float) -> Picture | None:
        """The picture kept nearest to a moment, or the newest where that is nearer."""
        return None if self._cluster is None else self._cluster.look(watched.entry.id, "frame", time_s)

    def overlay(self, stream_id: str) -> Overlay | None:
        """What was done for a stream's newest frame that was encoded."""
        return None if self._cluster is None else self._cluster.look(stream_id, "overlay")

    def admit(self, watched: Watched) -> None:
        """Opens a stream, and has it begin; where there is no hub yet, that comes with it. Raises what is wrong."""
        hub = self.open(watched)
        if hub is not None:
            self.begin(watched, hub)

    def open(self, watched: Watched) -> ClusterHub | None:
        """Gives the hub; None where that comes later, and begins it then. ValueError for a stream that clients may not
        send workers to."""
        if watched.way is not None:
            raise ValueError(
                f"got {watched.entry!r}: on Ray, streams on the network are declared in the config file, where nobody "
                "but the operator names them"
            )
        with self._changed:
            if self.hub is None:
                self._opened.append(watched)
            return self.hub

    def begin(self, watched: Watched, hub: ClusterHub) -> None:
        """Has a worker watch it."""
        spec = watched.entry.spec(place_of(watched, self._config))
        with self._changed:
            watched.feed = FarFeed(spec.stream_id, hub)
            watched.log = EventLog(None, budget_bytes=self._config.engine.history.log_bytes)
            watched.has_begun = True
            self._by_id[spec.stream_id] = watched
        hub.add(spec)

    def _load(self) -> None:
        try:
            self._cluster = Cluster.start((), self._config.engine, num_workers=self._num_workers, address=self._address)
        except Exception as error:  # noqa: BLE001 - whoever waits has to learn of whatever it is
            _log.exception("the cluster cannot be started")
            with self._changed:
                self.problem = redact(str(error)) or type(error).__name__
                self._changed.notify_all()
            return
        hub = ClusterHub(self._cluster, self._heard, num_questions=self._config.limits.num_questions)
        with self._changed:
            self.hub = hub
            waiting = [one for one in self._opened if not one.is_leaving]
        for watched in waiting:
            try:
                self.begin(watched, hub)
            except ValueError as error:
                watched.problem = redact(str(error), watched.entry.source)
                _log.warning("stream %r cannot be watched: %s", watched.entry.id, watched.problem)
        with self._changed:
            self.is_open = not self._is_closed
            self._changed.notify_all()
        if not self.is_open:
            hub.close()

    def _heard(self, event: HubEvent) -> None:
        """In the hub's thread: a worker has told something."""
        if not isinstance(event, Narrated):
            return
        with self._changed:
            watched = self._by_id.get(event.stream_id)
            if watched is None or watched.is_leaving or watched.log is None:
                return
            number = watched.log.add(event.narration.span, event.narration.text)
            (line,) = watched.log.after(number - 1, 1)
            watched.put(line)
            self._changed.notify_all()
        self._told(event.stream_id, row_of(line, None))

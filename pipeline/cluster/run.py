"""Cluster: streams and models on Ray, as the program that wants them sees it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple, Self

from ..answer import Answer
from ..config import EngineConfig
from ..hub_events import Ended, HubEvent
from ..hub_stream import StreamStats
from ..question import Question
from ..stream_spec import StreamSpec
from .along import Told, heard
from .child import last_line
from .connect import Connection, connect
from .names import SUPERVISOR, actor_names, end_all, find_actor, new_namespace
from .settings import ClusterSettings
from .supervisor import Overview, start_supervisor
from .worker_host import Heard, NotHere

_log = logging.getLogger(__name__)

_RENEW_S = 0.5
_WAIT_S = 2.0  # how long a worker may wait for something to happen before it answers that nothing did
_LOOK_S = 0.1
_MAX_EVENTS = 10_000
_NOTHING_KNOWN = Overview("", -1, {}, {}, {}, {}, (), 0)


class ClusterError(RuntimeError):
    """The cluster could not do this: one sentence, with no credentials in it."""


class _Ear(NamedTuple):
    """What was heard of a worker so far, and the call that is open."""

    handle: Any
    call: Any
    incarnation: str = ""
    last: int = 0


class Cluster:
    """Runs streams on model workers, each source in a process of its own, and keeps all of them running.

    >>> with Cluster.start([StreamSpec("door", "rtsp://camera/1")], EngineConfig(), num_workers=2) as cluster:
    ...     print(cluster.ask("door", Question("Who is there?")).text)

    While this program lives, it says so to the supervisor; when it does not, everything is ended after `lease_s`, and
    started again where it comes back. Any thread may call anything.
    """

    def __init__(self, connection: Connection, config: EngineConfig, settings: ClusterSettings) -> None:
        """Use `Cluster.start`."""
        self.namespace = new_namespace()
        self._connection, self._settings = connection, settings
        self._lock = threading.Condition()
        self._specs: dict[str, StreamSpec] = {}
        self._version = 0
        self._overview = _NOTHING_KNOWN
        self._events: deque[HubEvent] = deque(maxlen=_MAX_EVENTS)
        self._ended: dict[str, str | None] = {}
        self._ears: dict[str, _Ear] = {}
        self._num_notices = 0
        self._closing = threading.Event()
        self._config = config
        self._supervisor: Any = start_supervisor(self.namespace, config, settings)
        self._thread = threading.Thread(target=self._run, name="millpond cluster", daemon=True)

    @classmethod
    def start(
        cls,
        specs: Iterable[StreamSpec],
        config: EngineConfig | None = None,
        *,
        num_workers: int | None = None,
        address: str | None = None,
        settings: ClusterSettings | None = None,
    ) -> Cluster:
        """Starts it all; returns before the models are loaded.

        num_workers: in place of the settings' own. address: of a Ray cluster, see `connect`.
        """
        settings = settings or ClusterSettings()
        if num_workers is not None:
            settings = replace(settings, num_workers=num_workers)
        connection = connect(address, settings)
        try:
            cluster = cls(connection, config or EngineConfig(), settings)
        except BaseException:
            connection.close()
            raise
        try:
            cluster._thread.start()
            for spec in specs:
                cluster.add(spec)
        except BaseException:
            cluster.close()
            raise
        return cluster

    def add(self, spec: StreamSpec) -> None:
        """Takes a stream in; it runs as soon as there is a worker for it."""
        with self._lock:
            if spec.stream_id in self._specs:
                raise ValueError(f"there is a stream {spec.stream_id!r} already; remove it, or take another stream_id")
            self._specs[spec.stream_id] = spec.anywhere()
            self._version += 1
            self._lock.notify_all()

    def remove(self, stream_id: str) -> None:
        """Lets a stream go; what it knows is brought to rest where that outlives its worker."""
        with self._lock:
            self._check_known(stream_id)
            del self._specs[stream_id]
            self._ended.pop(stream_id, None)
            self._version += 1
            self._lock.notify_all()

    def ask(
        self,
        stream_id: str,
        question: Question,
        *,
        timeout_s: float = 60.0,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Asks a stream, wherever it is. Where its worker dies meanwhile, the one that takes the stream is asked.

        on_text: called with the text so far, as it grows, from the caller's thread. What the next worker says begins
        as what was told before, or there is no answer.
        Raises ValueError as `Session.ask` does, and ClusterError with the reason where no answer came in time.
        """
        import ray

        until_s = time.monotonic() + timeout_s
        why = ""
        told = Told(on_text)
        while True:
            with self._lock:
                self._check_known(stream_id)
                overview = self._overview
            worker = overview.homes.get(stream_id)
            left_s = until_s - time.monotonic()
            if left_s <= 0 or self._closing.is_set() or _is_hopeless(overview):
                said = [overview.problems.get(stream_id), *overview.problems.values()]
                why = next((one for one in (*said, why) if one), f"no worker has it yet ({_states(overview)})")
                raise ClusterError(f"stream {stream_id!r} gave no answer within {timeout_s:g} s: {why}")
            if worker is not None:
                try:
                    actor = find_actor(worker, self.namespace)
                    answer = heard(actor, stream_id, question, left_s, None if on_text is None else told.grow)
                    if not answer.text.startswith(told.text):
                        raise ClusterError(f"stream {stream_id!r} went to {worker}, which answers otherwise; ask again")
                    return answer
                except ray.exceptions.GetTimeoutError:
                    why = f"{worker} did not answer"
                    continue
                except ray.exceptions.RayTaskError as error:
                    cause = error.cause
                    if not isinstance(cause, NotHere):
                        raise cause if isinstance(cause, ValueError) else ClusterError(last_line(error)) from None
                    why = str(cause)
                except (LookupError, ray.exceptions.RayError) as error:
                    why = f"{worker} died ({type(error).__name__})"
            with self._lock:  # until there is something new, or a while has passed
                if self._overview is overview:
                    self._lock.wait(_RENEW_S)

    def look(self, stream_id: str, what: str, *given: Any, timeout_s: float = 10.0) -> Any:
        """What the worker that has the stream says of it: `snapshot`, `frame` or `overlay`. None where none has it, or
        it does not say in time."""
        import ray

        worker = self.overview.homes.get(stream_id)
        if worker is None:
            return None
        try:
            actor = find_actor(worker, self.namespace)
            return ray.get(getattr(actor, what).remote(stream_id, *given), timeout=timeout_s)
        except (LookupError, ray.exceptions.RayError) as error:
            _log.debug("%s does not say: %s", worker, type(error).__name__)
            return None

    def events(self, wait_s: float = 0.0) -> list[HubEvent]:
        """What happened since this was last called, waiting up to `wait_s` for something to. None is told twice."""
        with self._lock:
            self._lock.wait_for(lambda: bool(self._events) or self._closing.is_set(), wait_s)
            events = list(self._events)
            self._events.clear()
            return events

    def stats(self) -> dict[str, StreamStats]:
        """How the streams are doing, as far as their workers answer within some seconds."""
        import ray

        calls = []
        for name in sorted(set(self.overview.homes.values())):
            try:
                calls.append(find_actor(name, self.namespace).stats.remote())
            except LookupError:
                continue
        found: dict[str, StreamStats] = {}
        for call in ray.wait(calls, num_returns=len(calls), timeout=5.0)[0] if calls else ():
            try:
                found |= ray.get(call)
            except ray.exceptions.RayError:
                continue
        return found

    @property
    def overview(self) -> Overview:
        """How everything stood when the supervisor last answered, a second or so ago."""
        return self._overview

    def wait_until_ended(self, timeout_s: float | None = None) -> bool:
        """Waits until all streams have ended; whether they did. Raises ClusterError where they never will."""
        with self._lock:
            self._lock.wait_for(
                lambda: self._specs.keys() <= self._ended.keys() or _is_hopeless(self._overview), timeout_s
            )
            if _is_hopeless(self._overview):
                raise ClusterError("no worker can work: " + next(iter(self._overview.problems.values()), ""))
            return self._specs.keys() <= self._ended.keys()

    @property
    def ended(self) -> Mapping[str, str | None]:
        """The streams that ended, and why, where they did not just come to their end."""
        with self._lock:
            return dict(self._ended)

    def close(self) -> None:
        """Ends everything: sessions are flushed, no process is left. May be called again."""
        import ray

        if self._closing.is_set():
            return
        self._closing.set()
        with self._lock:
            self._lock.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        try:
            ray.get(self._supervisor.close.remote(), timeout=self._settings.close_s + 5)
        except ray.exceptions.RayError as error:  # it died just now; what it would have ended is ended here
            _log.info("the supervisor could not end its processes itself: %s", type(error).__name__)
        try:
            end_all(self.namespace)
        finally:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Cluster({self.namespace}, {len(self._specs)} streams)"

    def _check_known(self, stream_id: str) -> None:
        if stream_id not in self._specs:
            raise ValueError(f"there is no stream {stream_id!r}; there are: {', '.join(self._specs) or 'none'}")

    # The thread, from here on: it keeps the lease, and hears what happens.

    def _run(self) -> None:
        import ray

        renewing: Any = None
        renew_at_s = 0.0
        while not self._closing.is_set():
            now_s = time.monotonic()
            try:
                if renewing is None and now_s >= renew_at_s:
                    renewing, renew_at_s = self._renew(), now_s + _RENEW_S
                self._listen()
                calls = [call for call in (renewing, *(ear.call for ear in self._ears.values())) if call is not None]
                ready = ray.wait(calls, num_returns=1, timeout=_LOOK_S)[0] if calls else []
                if not calls:
                    self._closing.wait(_LOOK_S)
                if renewing in ready:
                    known, renewing = renewing, None
                    self._take_in(ray.get(known))
                self._hear(set(ready))
            except ray.exceptions.RayError as error:  # the supervisor, which comes back
                _log.debug("the supervisor does not answer: %s", type(error).__name__)
                renewing = None
                self._closing.wait(_LOOK_S)
                self._begin_again()
            if renewing is None and self._overview.version != self._version:
                renew_at_s = 0.0

    def _begin_again(self) -> None:
        """Where the supervisor has ended itself: this program was stopped for longer than the lease."""
        import ray

        try:
            if self._closing.is_set() or SUPERVISOR in actor_names(self.namespace):
                return
            self._supervisor = start_supervisor(self.namespace, self._config, self._settings)
        except (ValueError, ray.exceptions.RayError) as error:  # the name is not free yet
            _log.debug("no other supervisor yet: %s", type(error).__name__)
        else:
            _log.warning("nobody had asked for %s in too long, and all was ended; it is started again", self.namespace)

    def _renew(self) -> Any:
        with self._lock:
            specs = tuple(self._specs.values()) if self._overview.version != self._version else None
            return self._supervisor.renew.remote(self._version, specs, self._num_notices)

    def _take_in(self, overview: Overview) -> None:
        with self._lock:
            if overview.incarnation != self._overview.incarnation:
                self._num_notices = 0
            for number, sentence in overview.notices:
                if number > self._num_notices:
                    self._num_notices = number
                    _log.info("%s", sentence)
            self._overview = overview
            self._lock.notify_all()

    def _listen(self) -> None:
        """One call for events is open at each worker that runs."""
        for name, state in self._overview.workers.items():
            ear = self._ears.get(name, _Ear(None, None))
            if state != "running" or ear.call is not None:
                continue
            try:
                handle = find_actor(name, self.namespace) if ear.handle is None else ear.handle
            except LookupError:
                continue
            self._ears[name] = ear._replace(
                handle=handle, call=handle.events.remote(ear.incarnation, ear.last, _WAIT_S)
            )

    def _hear(self, ready: set[Any]) -> None:
        import ray

        for name, ear in tuple(self._ears.items()):
            if ear.call is None or ear.call not in ready:
                continue
            try:
                heard: Heard = ray.get(ear.call)
            except ray.exceptions.RayError:
                # What it had told nobody is lost as an event; what was flushed is in the stream's memory.
                self._ears[name] = ear._replace(handle=None, call=None)
                continue
            self._ears[name] = ear._replace(call=None, incarnation=heard.incarnation, last=heard.last)
            if heard.num_lost:
                _log.warning("%s: %d events were overtaken before they were told", name, heard.num_lost)
            with self._lock:
                self._events.extend(event for event in heard.events if self._is_new(event))
                self._lock.notify_all()

    def _is_new(self, event: HubEvent) -> bool:
        """A stream that moved after its end ends once more; that is not told again."""
        if event.stream_id not in self._specs:
            return False
        if isinstance(event, Ended):
            is_new = event.stream_id not in self._ended
            self._ended[event.stream_id] = event.problem
            return is_new
        return True


def _is_hopeless(overview: Overview) -> bool:
    """Whether no worker can ever work: the model cannot be loaded as it was asked for."""
    return bool(overview.workers) and all(state == "hopeless" for state in overview.workers.values())


def _states(overview: Overview) -> str:
    return ", ".join(f"{name} is {state}" for name, state in overview.workers.items()) or "none is started"

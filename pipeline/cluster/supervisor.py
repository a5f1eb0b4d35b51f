"""Supervisor: one actor that sees to it that all the others run, and that every stream is somewhere."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter, deque
from typing import Any, NamedTuple

from ..config import EngineConfig
from ..stream_spec import StreamSpec
from .actors import fair_share, idlest_node, near, start_source, start_worker
from .child import Child, last_line
from .lease import Lease
from .names import (
    SUPERVISOR,
    actor_names,
    end_actor,
    end_all,
    find_actor,
    is_worker,
    source_name,
    stream_of,
    worker_name,
)
from .reconcile import Steps, next_steps
from .restarts import RestartLimit
from .settings import ClusterSettings

_log = logging.getLogger(__name__)

_MAX_NOTICES = 200
# Starting takes Ray a few milliseconds each; between them the supervisor answers.
_MAX_STARTS_PER_LOOK = 32
_REPORTS_PER_S = 100
_LONGEST_RETRY_S = 10.0
# Streams wait so long for the last workers to start, once one runs: who comes late would get none, or move some.
_GATHER_S = 30.0


class Overview(NamedTuple):
    """Made by the supervisor, read by `Cluster`: how everything stands.

    version: of the list of streams that it knows; -1: it knows none, and has to be told.
    homes: the worker of each stream that is open somewhere.
    workers, sources: states of the processes: starting, running, dead, or hopeless: it can never work as it was asked.
    problems: of streams and processes, in sentences.
    notices: what changed, numbered from 1, in sentences without credentials.
    num_restarts: processes that were started again.
    """

    incarnation: str
    version: int
    homes: dict[str, str]
    workers: dict[str, str]
    sources: dict[str, str]
    problems: dict[str, str]
    notices: tuple[tuple[int, str], ...]
    num_restarts: int


def start_supervisor(namespace: str, config: EngineConfig, settings: ClusterSettings) -> Any:
    """Starts the actor that keeps everything running, on this very machine. ValueError where there is one."""
    import ray

    actor = ray.remote(Supervisor).options(
        name=SUPERVISOR,
        namespace=namespace,
        lifetime="detached",
        max_restarts=-1,  # Ray starts this one again itself: there is nobody else
        max_concurrency=16,  # it answers while it starts and ends others
        num_cpus=settings.source_cpus,  # it waits most of the time, and must have room always
        # It dies with the machine that this program is on, and not with any other.
        scheduling_strategy=near(ray.get_runtime_context().get_node_id()),
    )
    return actor.remote(namespace, config, settings)


class Supervisor:
    """Starts workers and sources, looks after them, starts again what dies, and gives every stream a worker.

        Cluster --renew: which streams--> [supervisor] --start, look, kill--> sources, workers
                                                       --add, remove-------> workers

    What is wanted comes from the program that started it all, with every `renew`; what there is, from the actors
    themselves. So one that died and was started again knows all that matters. When nobody has renewed for `lease_s`,
    everything is ended, this actor too; who comes late then starts another. Any thread may call anything.
    """

    def __init__(self, namespace: str, config: EngineConfig, settings: ClusterSettings) -> None:
        self._namespace, self._config, self._settings = namespace, config, settings
        self._incarnation = uuid.uuid4().hex[:12]
        self._lock = threading.RLock()
        self._version = -1
        self._wanted: dict[str, StreamSpec] = {}
        self._children: dict[str, Child] = {}
        self._problems: dict[str, str] = {}
        self._retry_at_s: dict[str, tuple[float, float]] = {}  # streams that could not be opened: when again, and wait
        self._notices: deque[tuple[int, str]] = deque(maxlen=_MAX_NOTICES)
        self._num_notices = self._num_restarts = 0
        self._lease = Lease(settings.lease_s, 2 * settings.check_s)
        self._gathers_until_s: float | None = None  # known once a worker runs
        self._is_closing = False
        self._share = fair_share(config, settings)
        self._find_children()
        self._thread = threading.Thread(target=self._run, name="millpond supervisor", daemon=True)
        self._thread.start()

    def renew(self, version: int, specs: tuple[StreamSpec, ...] | None, notices_after: int) -> Overview:
        """Says that whoever wants the streams is there, and which they are, where that changed; how all stands."""
        with self._lock:
            self._lease.renew()
            if specs is not None and version > self._version:
                self._version, self._wanted = version, {spec.stream_id: spec for spec in specs}
                self._problems = {name: said for name, said in self._problems.items() if name in self._wanted}
                self._retry_at_s.clear()
            children = self._children.values()
            return Overview(
                self._incarnation,
                self._version,
                {stream_id: child.name for child in children for stream_id in child.streams},
                {child.name: child.state for child in children if is_worker(child.name)},
                {stream_id: child.state for child in children if (stream_id := stream_of(child.name)) is not None},
                self._problems | {child.name: child.problem for child in children if child.problem},
                tuple(notice for notice in self._notices if notice[0] > notices_after),
                self._num_restarts,
            )

    def close(self) -> None:
        """Ends everything but this actor; workers bring to rest what they know first."""
        import ray

        with self._lock:
            self._is_closing = True
            running = [child.handle for child in self._children.values() if child.state == "running"]
            calls = [handle.close.remote() for handle in running]
            if calls:
                ray.wait(calls, num_returns=len(calls), timeout=self._settings.close_s)
            self._children.clear()
            for name in actor_names(self._namespace):
                if name != SUPERVISOR:
                    end_actor(name, self._namespace)

    def _find_children(self) -> None:
        """Takes over what a supervisor that died has left."""
        for name in actor_names(self._namespace):
            if name != SUPERVISOR:
                try:
                    handle = find_actor(name, self._namespace)
                except LookupError:  # it died just now
                    continue
                child = self._child(name)
                child.handle, child.was_found, child.num_starts = handle, True, 1
        if self._children:
            self._note(f"the supervisor is back, and found {len(self._children)} processes")

    # The thread, from here on.

    def _run(self) -> None:
        while True:
            time.sleep(self._settings.check_s)
            try:
                with self._lock:
                    if not self._is_closing:
                        self._look()
                        if self._version >= 0:
                            self._act()
                    is_forgotten = self._lease.is_over()
                if is_forgotten:
                    _log.warning("nobody asked for %s in %g s; all is ended", self._namespace, self._settings.lease_s)
                    self.close()
                    end_all(self._namespace)
            except Exception:  # noqa: BLE001 - one look that fails must not be the last
                _log.exception("the supervisor failed to look after %s", self._namespace)

    def _look(self) -> None:
        """Takes in what the processes have said since, and which of them are gone."""
        import ray

        children = [child for child in self._children.values() if child.handle is not None]
        now_s, apart_s = time.monotonic(), max(self._settings.check_s, len(children) / _REPORTS_PER_S)
        for child in children:
            if child.asked is None and now_s - child.asked_at_s >= apart_s:
                child.asked, child.asked_at_s = child.handle.report.remote(), now_s
        calls = [call for one in children for call in (one.asked, *one.adding.values(), *one.removing.values())]
        calls = [call for call in calls if call is not None]
        if not calls:
            return
        ready = set(ray.wait(calls, num_returns=len(calls), timeout=0)[0])
        for child in children:
            # What was opened and let go comes first: the report may be older, and is not heard then.
            for stream_id in [name for name, call in child.adding.items() if call in ready]:
                self._hear_added(child, stream_id)
            for stream_id in [name for name, call in child.removing.items() if call in ready]:
                self._hear_removed(child, stream_id)
            if child.asked is None:
                continue
            if child.asked in ready:
                self._hear(child)
            else:
                self._await(child, now_s)

    def _hear(self, child: Child) -> None:
        import ray

        asked, child.asked = child.asked, None
        try:
            report = ray.get(asked)
        except ray.exceptions.ActorUnavailableError:
            return  # the network, perhaps; if it is dead, the next call says so
        except ray.exceptions.RayError as error:
            self._died(child, last_line(error))
            return
        if child.report is None:
            self._note(f"{child.name} runs")
            if self._gathers_until_s is None and is_worker(child.name):
                self._gathers_until_s = time.monotonic() + _GATHER_S
        child.report = report
        child.problem = report.problem or ""

    def _await(self, child: Child, now_s: float) -> None:
        import ray

        is_starting = child.report is None and not child.was_found
        waited_s = now_s - child.asked_at_s
        if waited_s > (self._settings.start_s if is_starting else self._settings.hang_s):
            ray.kill(child.handle)
            self._died(child, f"it did not answer for {waited_s:.0f} s, and was killed")

    def _hear_added(self, child: Child, stream_id: str) -> None:
        import ray

        try:
            ray.get(child.adding.pop(stream_id))
        except ray.exceptions.RayTaskError as error:
            why = last_line(error)
            wait_s = min(2 * self._retry_at_s.get(stream_id, (0.0, 0.25))[1], _LONGEST_RETRY_S)
            self._retry_at_s[stream_id] = (time.monotonic() + wait_s, wait_s)
            if self._problems.get(stream_id) != why:
                self._problems[stream_id] = why
                self._note(f"stream {stream_id!r} cannot be opened on {child.name} yet: {why}")
        except ray.exceptions.RayError:
            return  # its worker, which is found out when it is to report
        else:
            child.carries(stream_id, carries=True)
            self._problems.pop(stream_id, None)
            self._retry_at_s.pop(stream_id, None)
            self._note(f"stream {stream_id!r} is open on {child.name}")

    def _hear_removed(self, child: Child, stream_id: str) -> None:
        import ray

        try:
            ray.get(child.removing.pop(stream_id))
        except ray.exceptions.RayTaskError as error:
            self._note(f"stream {stream_id!r} was closed on {child.name} with trouble: {last_line(error)}")
        except ray.exceptions.RayError:
            return
        child.carries(stream_id, carries=False)

    def _died(self, child: Child, why: str) -> None:
        streams = ", ".join(repr(name) for name in sorted(child.streams)[:10])
        child.problem = "" if child.report is not None else f"{child.name} could not be started: {why}"
        self._note(f"{child.name} died{f' with {streams}' if streams else ''}: {why}")
        child.is_gone()

    def _act(self) -> None:
        """Takes the next steps towards what is wanted."""
        num_starts = sum(self._start(self._child(worker_name(number))) for number in range(self._settings.num_workers))
        is_gathering = self._gathers_until_s is None or time.monotonic() < self._gathers_until_s
        reading = {stream_of(name) for name, child in self._children.items() if child.handle is not None}
        steps = next_steps(
            {name: spec.memory is not None for name, spec in self._wanted.items()},
            frozenset(name for name in reading if name is not None),
            {name: sight for name, one in self._children.items() if (sight := one.sight(is_gathering)) is not None},
        )
        for stream_id in steps.start_sources:
            # Beside its worker: one that has no worker yet has nobody to read for.
            if stream_id in steps.homes and num_starts < _MAX_STARTS_PER_LOOK:
                node_id = self._children[steps.homes[stream_id]].node_id
                num_starts += self._start(self._child(source_name(stream_id)), node_id)
        for stream_id in steps.stop_sources:
            self._children.pop(source_name(stream_id), None)
            end_actor(source_name(stream_id), self._namespace)
        self._move(steps)

    def _move(self, steps: Steps) -> None:
        now_s = time.monotonic()
        for stream_id, name in steps.add:
            if now_s >= self._retry_at_s.get(stream_id, (0.0, 0.0))[0]:
                child = self._children[name]
                child.adding[stream_id] = child.handle.add.remote(self._wanted[stream_id])
        for stream_id, name in steps.remove:
            child = self._children[name]
            if stream_id not in child.removing:
                child.removing[stream_id] = child.handle.remove.remote(stream_id)

    def _start(self, child: Child, node_id: str | None = None) -> int:
        """Starts it, where it does not run and may be started; how many were."""
        now_s = time.monotonic()
        if child.handle is not None or child.limit.wait_s(now_s) > 0:
            return 0
        stream_id = stream_of(child.name)
        try:
            if stream_id is None:
                on = Counter(one.node_id for one in self._children.values() if is_worker(one.name) and one.node_id)
                node_id = idlest_node(on)  # Ray by itself may put all of them on one
                child.handle = start_worker(
                    child.name, self._config, self._namespace, self._settings, self._share, node_id
                )
            else:
                spec = self._wanted[stream_id]
                child.handle = start_source(spec, self._config.fps, self._namespace, self._settings, node_id)
        except ValueError as error:  # its name is not free yet: Ray has not let go of the one that died
            child.problem = last_line(error)
            return 0
        child.near = node_id
        child.num_starts += 1
        child.asked_at_s = 0.0
        self._num_restarts += child.num_starts > 1
        if child.limit.started(now_s):
            self._note(f"{child.name} keeps dying; it may start again in {child.limit.wait_s(now_s):.0f} s")
        return 1

    def _child(self, name: str) -> Child:
        if name not in self._children:
            self._children[name] = Child(name, RestartLimit(self._settings.restarts_per_minute))
        return self._children[name]

    def _note(self, sentence: str) -> None:
        self._num_notices += 1
        self._notices.append((self._num_notices, sentence))
        _log.info("%s", sentence)

"""A real Ray for tests: in a short folder of its own, on ports of its own, and gone without a trace afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from millpond.pipeline import EngineConfig
from millpond.pipeline.cluster.connect import connect
from millpond.pipeline.cluster.names import find_actor
from millpond.pipeline.cluster.run import Cluster
from millpond.pipeline.cluster.settings import ClusterSettings
from millpond.pipeline.stream_spec import StreamSpec

T = TypeVar("T")

STORE_BYTES = 150 * 2**20
# Quick to notice and to restart, so that tests are quick: what is proved does not depend on it.
SETTINGS = ClusterSettings(check_s=0.1, lease_s=60.0, close_s=10.0, object_store_bytes=STORE_BYTES)
CONFIG = EngineConfig(device="cpu", fps=5.0, max_new_tokens=16)
SHAPES = "synthetic://shapes?seed={seed}&duration_s=3600&rate_hz=5&width=160&height=120"


def live(stream_id: str, seed: int = 1, **more: Any) -> StreamSpec:
    """A stream of shapes that plays as a camera does."""
    return StreamSpec(stream_id, SHAPES.format(seed=seed), as_live=True, **{"narrate": False, **more})


@contextmanager
def running_ray() -> Iterator[None]:
    """A Ray of this process alone; every process that it started is seen to be gone at the end."""
    folder = tempfile.mkdtemp(prefix="mp", dir="/tmp")  # short: sockets lie in it
    before = descendants()
    try:
        with connect(None, SETTINGS, temp_dir=folder):
            yield
            started = descendants() - before
        wait_until(lambda: not (started & everybody()), "Ray's processes are gone")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(*specs: StreamSpec, num_workers: int = 1, config: EngineConfig = CONFIG, **more: Any) -> Iterator[Cluster]:
    """A cluster with these streams, on the Ray that runs; its actors are seen to be gone at the end."""
    from dataclasses import replace

    from millpond.pipeline.cluster.names import actor_names

    with Cluster.start(specs, config, settings=replace(SETTINGS, num_workers=num_workers, **more)) as cluster:
        yield cluster
    wait_until(lambda: not actor_names(cluster.namespace), "its actors are gone")


def wait_until(is_so: Callable[[], T], what: str, limit_s: float = 120.0) -> T:
    """What it gave that is true; fails after a generous while."""
    until_s = time.monotonic() + limit_s
    while not (found := is_so()):
        assert time.monotonic() < until_s, f"not so after {limit_s} s: {what}"
        time.sleep(0.05)
    return found


def until_open(cluster: Cluster, *stream_ids: str) -> None:
    """Waits until these streams are open on workers; processes that load models take their time."""
    until_s = time.monotonic() + 180
    while not set(stream_ids) <= cluster.overview.homes.keys():
        assert time.monotonic() < until_s, f"not all of {stream_ids} are open: {cluster.overview}"
        time.sleep(0.05)


def report_of(cluster: Cluster, name: str) -> Any:
    """What an actor of the cluster says of itself."""
    import ray

    return ray.get(find_actor(name, cluster.namespace).report.remote(), timeout=60)


def kill(cluster: Cluster, name: str) -> int:
    """Kills the process of an actor as the system would; its pid."""
    pid = int(report_of(cluster, name).pid)
    os.kill(pid, signal.SIGKILL)
    return pid


def everybody() -> set[int]:
    """All processes there are, those that have ended and wait for their parents left out."""
    return {pid for pid, (_, state) in _processes().items() if state != "Z"}


def descendants(of: int | None = None) -> set[int]:
    """The processes that this one has started, and those that these have."""
    parents = {pid: parent for pid, (parent, state) in _processes().items() if state != "Z"}
    found: set[int] = set()
    new = {of or os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def command(pid: int) -> str:
    """What a process calls itself; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _processes() -> dict[int, tuple[int, str]]:
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended just now
            continue
        found[int(path.parent.name)] = (int(fields[1]), fields[0])
    return found

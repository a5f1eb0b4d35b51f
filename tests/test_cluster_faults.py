"""What a cluster lives through: a machine that dies, memory that is full, and the end of the program itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millpond.pipeline import Question
from millpond.pipeline.cluster.names import actor_names
from millpond.pipeline.cluster.run import Cluster

from .ray_cluster import (
    CONFIG,
    SETTINGS,
    STORE_BYTES,
    command,
    descendants,
    everybody,
    live,
    report_of,
    running,
    running_ray,
    until_open,
    wait_until,
)

WHAT = Question("What shapes are there?")


def test_frames_cross_while_the_object_store_is_full() -> None:
    with running_ray():
        import ray

        with running(live("a"), live("b", 2)) as cluster:
            until_open(cluster, "a", "b")
            assert cluster.ask("a", WHAT).text
            # More than it holds, and none of it may go: Ray puts what comes now on disk, or makes it wait.
            piece = np.zeros(STORE_BYTES // 10, np.uint8)
            held = [ray.put(piece) for _ in range(12)]
            pinned = [ray.get(one) for one in held[:8]]
            before = {name: one.num_processed for name, one in cluster.stats().items()}
            wait_until(
                lambda: all(one.num_processed > before[name] + 5 for name, one in cluster.stats().items()), "they go on"
            )
            assert cluster.ask("b", WHAT).text and cluster.overview.num_restarts == 0
            assert len(pinned) == 8


OUTSIDER = """
import sys
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False)
except (ray.exceptions.RayError, ConnectionError, RuntimeError) as error:
    print("refused", type(error).__name__)
else:
    print("taken")
"""


@pytest.mark.slow
def test_a_ray_of_our_own_takes_nobody_without_the_token() -> None:
    with running_ray():
        import ray

        address = ray.get_runtime_context().gcs_address
        with tempfile.TemporaryDirectory() as home:  # who has a token has it there
            strangers = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
            knock = [sys.executable, "-c", OUTSIDER, address]
            told = subprocess.run(
                knock, env=strangers | {"HOME": home, "RAY_AUTH_MODE": "disabled"}, capture_output=True, text=True
            )
            assert told.stdout.startswith("refused"), told.stdout + told.stderr
        friend = subprocess.run(knock, env=strangers | {"RAY_AUTH_MODE": "token"}, capture_output=True, text=True)
        assert friend.stdout.startswith("taken"), friend.stdout + friend.stderr


@contextmanager
def two_machines() -> Iterator[Any]:
    """A Ray of a head and one more raylet, as two machines would have."""
    import ray
    from ray.cluster_utils import Cluster as RayCluster

    folder = tempfile.mkdtemp(prefix="mp", dir="/tmp")
    before = descendants()
    size = {"num_cpus": 2, "object_store_memory": STORE_BYTES}
    machines = RayCluster(
        initialize_head=True,
        head_node_args={
            "temp_dir": folder,
            "include_dashboard": False,
            "_system_config": {"worker_niceness": 0},
            **size,
        },
        shutdown_at_exit=False,
    )
    try:
        other = machines.add_node(**size)
        yield machines, other
        started = descendants() - before
    finally:
        ray.shutdown()
        machines.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    wait_until(lambda: not (started & everybody()), "Ray's processes are gone")


@pytest.mark.slow
def test_a_machine_that_dies_costs_its_streams_a_move_and_the_code_came_as_a_wheel() -> None:
    import ray

    with two_machines() as (machines, other):
        specs = [live(name, seed) for seed, name in enumerate("abcd")]
        with Cluster.start(specs, CONFIG, num_workers=2, address=machines.address, settings=SETTINGS) as cluster:
            until_open(cluster, *"abcd")

            def where_the_code_is() -> str:
                import millpond.pipeline.cluster.source_host

                return str(millpond.pipeline.cluster.source_host.__file__)

            where = ray.remote(where_the_code_is).options(num_cpus=0).remote()
            assert "py_modules_files" in ray.get(where)  # not the checkout

            nodes = {name: report_of(cluster, name).node_id for name in cluster.overview.workers}
            assert len(set(nodes.values())) == 2, "one worker on each machine"
            died = next(name for name, node_id in nodes.items() if node_id == other.node_id)
            moved = [name for name, home in cluster.overview.homes.items() if home == died]
            assert len(moved) == 2
            machines.remove_node(other, allow_graceful=False)
            wait_until(lambda: all(cluster.overview.homes.get(name, died) != died for name in moved), "they moved", 120)
            for name in "abcd":
                assert cluster.ask(name, WHAT).text


PROGRAM = """
import sys, time
sys.path.insert(0, {tests!r})
from millpond.pipeline.cluster.run import Cluster
from millpond.pipeline.cluster.connect import connect
from millpond.pipeline.cluster.settings import ClusterSettings
from millpond.pipeline.config import EngineConfig
from millpond.pipeline.question import Question
from millpond.pipeline.stream_spec import StreamSpec

settings = ClusterSettings(check_s=0.1, lease_s=2.0, object_store_bytes=150 * 2**20)
spec = StreamSpec("a", "synthetic://shapes?duration_s=3600&rate_hz=5&width=64&height=48", as_live=True)
connection = None if {address!r} else connect(None, settings, temp_dir={folder!r})
cluster = Cluster.start([spec], EngineConfig(device="cpu"), address={address!r} or None, settings=settings)
cluster.ask("a", Question("What is there?"), timeout_s=120)
print(cluster.namespace, flush=True)
time.sleep(600)
"""


def _started(folder: str, address: str = "") -> tuple[subprocess.Popen[str], str]:
    """A program that runs a cluster, and the namespace of it."""
    text = PROGRAM.format(tests=str(Path(__file__).parent), folder=folder, address=address)
    program = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, cwd=folder)
    assert program.stdout is not None
    namespace = program.stdout.readline().strip()
    assert namespace, "the program did not come so far"
    return program, namespace


def _end(program: subprocess.Popen[str]) -> None:
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    if program.stdout is not None:
        program.stdout.close()


@pytest.mark.slow
def test_a_program_that_is_killed_leaves_nothing_of_its_own_ray() -> None:
    folder = tempfile.mkdtemp(prefix="mp", dir="/tmp")
    try:
        program, _ = _started(folder)
        started = descendants(program.pid)
        assert len(started) >= 5  # Ray's own processes, a supervisor, a worker, a source
        agents = {pid for pid in started if command(pid).startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))}
        _end(program)
        wait_until(lambda: not ((started - agents) & everybody()), "all of it is gone")
        # Two of Ray's own try for a minute to tell its control service, which is dead, before they end themselves.
        for pid in agents & everybody():
            os.kill(pid, signal.SIGKILL)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_program_that_is_killed_leaves_nothing_on_a_cluster_once_its_lease_is_over() -> None:
    import ray

    with two_machines() as (machines, _):
        folder = tempfile.mkdtemp(prefix="mp", dir="/tmp")
        try:
            program, namespace = _started(folder, machines.address)
            ray.init(address=machines.address, log_to_driver=False, logging_level="error")
            assert len(actor_names(namespace)) == 3
            time.sleep(3.0)
            assert len(actor_names(namespace)) == 3  # it lives, so its actors do, though the lease is short
            _end(program)
            wait_until(lambda: not actor_names(namespace), "all of it is ended")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

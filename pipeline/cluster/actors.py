"""SourceActor and ModelWorker: the hosts of sources and models, as Ray's actors, with what they may take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..config import EngineConfig
from ..stream_spec import StreamSpec
from .names import source_name
from .settings import ClusterSettings
from .source_host import SourceHost
from .worker_host import WorkerHost

# A worker answers questions, tells events and reports at once; each is a coroutine that waits.
_MANY = 1000
# A reader at work, the one before it whose process died in its call, and reports.
_FEW = 8


def start_source(
    spec: StreamSpec, fps: float, namespace: str, settings: ClusterSettings, node_id: str | None = None
) -> Any:
    """Starts the actor that reads this stream, if it can be on that machine: frames then cross by shared memory.

    Raises ValueError where there is one of its name.
    """
    import ray

    actor = ray.remote(SourceHost).options(
        name=source_name(spec.stream_id),
        namespace=namespace,
        lifetime="detached",  # it outlives a supervisor that is being restarted
        max_restarts=0,  # the supervisor starts it again, and not without end
        max_concurrency=_FEW,
        num_cpus=settings.source_cpus,
        enable_task_events=False,  # a record of every call at the head node, for a dashboard, costs a tenth of a call
        scheduling_strategy=near(node_id),
    )
    return actor.remote(spec, fps)


class Share(NamedTuple):
    """What one model worker gets of the cluster. num_threads: None: as many as the CPUs that Ray sets aside for it."""

    num_gpus: float
    num_threads: int | None


def start_worker(
    name: str,
    config: EngineConfig,
    namespace: str,
    settings: ClusterSettings,
    share: Share,
    node_id: str | None = None,
) -> Any:
    """Starts an actor that holds a model, on that machine where it has room. Raises ValueError where there is one of
    its name."""
    import ray

    actor = ray.remote(WorkerHost).options(
        name=name,
        namespace=namespace,
        lifetime="detached",
        max_restarts=0,
        max_concurrency=_MANY,
        num_cpus=settings.worker_cpus,
        num_gpus=share.num_gpus,
        scheduling_strategy=near(node_id),
    )
    return actor.remote(config, namespace, share.num_threads)


def fair_share(config: EngineConfig, settings: ClusterSettings) -> Share:
    """What each worker of this cluster gets, where all get the same."""
    import ray

    there_are = ray.cluster_resources()  # type: ignore[no-untyped-call]
    num_gpus = settings.worker_gpus
    if num_gpus is None:
        num_gpus = 0.0 if config.device == "cpu" else float(there_are.get("GPU", 0.0)) / settings.num_workers
        # Ray gives parts of a GPU in steps of 1/10000; rounded down, so that the last worker fits too.
        num_gpus = min(1.0, math.floor(num_gpus * 1000) / 1000)
    num_threads = None
    if settings.worker_cpus < 1:  # Ray would say one, which leaves most of a machine idle
        num_threads = max(1, int(there_are.get("CPU", 1.0)) // settings.num_workers)
    return Share(num_gpus, num_threads)


def idlest_node(num_workers_by_node: Mapping[str, int]) -> str | None:
    """The living machine with the fewest workers; Ray by itself may put all of them on one."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    alive = sorted(str(node["NodeID"]) for node in nodes if node["Alive"])
    return min(alive, key=lambda node_id: num_workers_by_node.get(node_id, 0), default=None)


def near(node_id: str | None) -> Any:
    """There if it can be, else anywhere."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return "SPREAD" if node_id is None else NodeAffinitySchedulingStrategy(node_id, soft=True)

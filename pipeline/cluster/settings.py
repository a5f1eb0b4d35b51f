"""ClusterSettings: how many actors of which kind, what they may take, and when one counts as dead."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Made by whoever starts a cluster, read by all that runs in it."""

    num_workers: int = 1
    """Processes that hold a model each, and share the streams."""

    worker_cpus: float = 0.001
    """CPUs that Ray sets aside for a model worker. Next to none: the supervisor says where each is to be, and Ray must
    never keep one waiting for a CPU that it thinks taken. None at all would be put anywhere. Where it is one or more,
    it is also the number of threads; else workers share the CPUs there are."""

    worker_gpus: float | None = None
    """GPUs that Ray sets aside for a model worker; None: one, or an equal share where there are fewer than workers, and
    none where there are none or the model runs on the CPU."""

    source_cpus: float = 0.001
    """CPUs that Ray sets aside for the process that reads a source; next to none, for the same reason."""

    object_store_bytes: int = 512 * 2**20
    """Shared memory of a Ray that is started here, for the frames that are on their way. One that is running already
    keeps its own."""

    lease_s: float = 60.0
    """Seconds without a word from the program that started it all, after which everything is ended."""

    check_s: float = 0.5
    """Seconds between looks at all processes."""

    hang_s: float = 60.0
    """Seconds without an answer, after which a process that runs counts as hung, and is killed."""

    start_s: float = 900.0
    """The same, for one that is starting: a model may be large, and have to be fetched."""

    restarts_per_minute: int = 5
    """How often a process is started again within a minute at once; from there on it waits, longer each time."""

    close_s: float = 10.0
    """Seconds that workers have at the end to bring to rest what they know."""

    def __post_init__(self) -> None:
        for name, least in (("num_workers", 1), ("object_store_bytes", 80 * 2**20), ("restarts_per_minute", 1)):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < least:
                raise ValueError(f"{name} must be a whole number, at least {least}; got {given!r}")
        for name in ("worker_cpus", "source_cpus", "worker_gpus"):
            given = getattr(self, name)
            if given is not None and not 0 <= given < math.inf:
                raise ValueError(f"{name} must be finite and 0 or more; got {given}")
        for name in ("lease_s", "check_s", "hang_s", "start_s", "close_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and above 0 s; got {getattr(self, name)}")
        if not self.check_s * 4 <= self.lease_s:
            raise ValueError(
                f"the lease must last at least four looks; got lease_s={self.lease_s}, check_s={self.check_s}"
            )

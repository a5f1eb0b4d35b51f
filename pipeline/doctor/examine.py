"""examine: all checks, one after another, whatever becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ..config import EngineConfig
from ..stream_spec import StreamSpec
from .finding import Finding
from .machine import (
    Needed,
    check_clock,
    check_cpu,
    check_disk,
    check_files,
    check_memory,
    check_packages,
    check_python,
)

# What a session may keep of pictures where nothing is said of it: as HistoryConfig.archive_bytes says.
_ARCHIVE_ON_DISK_BYTES, _ARCHIVE_IN_MEMORY_BYTES = 2**30, 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be looked at. Made from a config, or from the defaults.

    engine: the model and its memory. streams: those that are to be watched; `memory` of each says where it is kept.
    host, port: where the server is to listen; None: nowhere.
    patience_s: for each answer from elsewhere. model_patience_s: until the model has loaded and said a word.
    """

    engine: EngineConfig = field(default_factory=EngineConfig)
    streams: tuple[StreamSpec, ...] = ()
    host: str = "127.0.0.1"
    port: int | None = 8321
    patience_s: float = 10.0
    model_patience_s: float = 600.0

    def __post_init__(self) -> None:
        for name in ("patience_s", "model_patience_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is more than 0; got {getattr(self, name)}")

    @property
    def servers(self) -> tuple[str, ...]:
        """The Redis servers on which memories lie."""
        places = dict.fromkeys(spec.memory for spec in self.streams if spec.memory is not None)
        return tuple(place for place in places if "://" in place)

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders in which memories lie."""
        places = dict.fromkeys(spec.memory for spec in self.streams if spec.memory is not None)
        return tuple(place for place in places if "://" not in place)

    @property
    def needed(self) -> Needed:
        """What all caps together allow."""
        history, memory = self.engine.history, self.engine.memory
        keys_bytes = 0 if memory is None else memory.budget_bytes
        memory_bytes = disk_bytes = 0
        for spec in self.streams:
            is_kept = spec.memory is not None and "://" not in spec.memory
            default_bytes = _ARCHIVE_ON_DISK_BYTES if is_kept else _ARCHIVE_IN_MEMORY_BYTES
            archive_bytes = default_bytes if history.archive_bytes is None else history.archive_bytes
            memory_bytes += keys_bytes + history.queue_bytes + (0 if is_kept else archive_bytes + history.log_bytes)
            disk_bytes += keys_bytes + archive_bytes + history.log_bytes if is_kept else 0
        return Needed(memory_bytes, disk_bytes)


def examine(plan: Plan) -> Iterator[Finding]:
    """What is found, check by check, as it is found. A check that breaks is a finding too, and stops no other."""
    # Imported here, since each of these needs something that may be what is broken.
    from .decoders import check_decoders
    from .model import check_model, check_torch
    from .servers import check_port, check_ray, check_redis
    from .sources import check_sources

    checks: list[tuple[str, Callable[[], Finding | Iterable[Finding]]]] = [
        ("python", check_python),
        ("packages", check_packages),
        ("cpu", check_cpu),
        ("memory", lambda: check_memory(plan.needed)),
        ("disk", lambda: check_disk(plan.folders, plan.needed)),
        ("open files", check_files),
        ("clock", check_clock),
        ("torch", check_torch),
        ("model", lambda: check_model(plan.engine, patience_s=plan.model_patience_s)),
        ("decoders", check_decoders),
        ("redis", lambda: [check_redis(server) for server in plan.servers]),
        ("ray", check_ray),
        ("port", lambda: [] if plan.port is None else check_port(plan.host, plan.port)),
        ("streams", lambda: check_sources(plan.streams, patience_s=plan.patience_s)),
    ]
    for name, check in checks:
        yield from _checked(name, check)


def _checked(name: str, check: Callable[[], Finding | Iterable[Finding]]) -> Iterator[Finding]:
    try:
        found = check()
        yield from [found] if isinstance(found, Finding) else found
    except Exception as error:  # noqa: BLE001 - the others are to be heard of all the same
        said = f"this check itself failed: {type(error).__name__}: {error}"[:300]
        yield Finding(name, "fail", said, "reinstall Millpond's packages; if it stays, report it with this line")

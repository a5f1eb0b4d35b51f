"""How the actors of one run are called, found, and ended. Each run has a namespace of its own."""

from __future__ import annotations

import uuid
from typing import Any

SUPERVISOR = "supervisor"
_SOURCE, _WORKER = "source ", "worker "


def new_namespace() -> str:
    """A namespace that no other run has."""
    return f"millpond-{uuid.uuid4().hex[:12]}"


def source_name(stream_id: str) -> str:
    return _SOURCE + stream_id


def worker_name(number: int) -> str:
    return f"{_WORKER}{number}"


def is_worker(name: str) -> bool:
    return name.startswith(_WORKER)


def stream_of(name: str) -> str | None:
    """The stream whose source an actor of this name reads; None where it is no source."""
    return name.removeprefix(_SOURCE) if name.startswith(_SOURCE) else None


def find_actor(name: str, namespace: str) -> Any:
    """A handle of the actor that has this name now; LookupError where none has."""
    import ray

    try:
        return ray.get_actor(name, namespace=namespace)
    except (ValueError, ray.exceptions.RayError) as error:
        raise LookupError(f"no actor is called {name!r} in {namespace}; it is not started, or dead") from error


def actor_names(namespace: str) -> list[str]:
    """The names of all actors of the run that are alive or being started."""
    from ray.util import list_named_actors

    return sorted(str(one["name"]) for one in list_named_actors(all_namespaces=True) if one["namespace"] == namespace)


def end_actor(name: str, namespace: str) -> bool:
    """Kills the actor for good; whether there was one."""
    import ray

    try:
        ray.kill(find_actor(name, namespace), no_restart=True)
    except (LookupError, ray.exceptions.RayError):
        return False
    return True


def end_all(namespace: str) -> int:
    """Kills every actor of the run, the one that would start the others again first; how many there were."""
    names = actor_names(namespace)
    return sum(end_actor(name, namespace) for name in sorted(names, key=lambda name: name != SUPERVISOR))

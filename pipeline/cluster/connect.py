"""Connection: this process and a Ray cluster: one that is started here and ends with it, or one that is there."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from .settings import ClusterSettings
from .wheel import made_wheel

_log = logging.getLogger(__name__)

_AUTH = "RAY_AUTH_MODE"


class Connection:
    """Made by `connect`. `close` leaves the cluster, or ends it where it was started here; may be called again.

    address: of the cluster; "here" where it was started here, "this process's" where the process had one already.
    """

    def __init__(self, address: str, *, is_ours: bool) -> None:
        self.address = address
        self._is_ours = is_ours

    def close(self) -> None:
        import ray

        if self._is_ours:
            self._is_ours = False
            ray.shutdown()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Connection({self.address})"


def connect(address: str | None, settings: ClusterSettings, *, temp_dir: str | None = None) -> Connection:
    """Connects this process to Ray. A process has one connection: where there is one, it is used.

    address: of a cluster's head, host:port, or "auto"; this very code goes there as a wheel, and Python and what
        Millpond needs have to be on its machines. None: a Ray of its own for this machine, which takes only who has
        this user's token.
    temp_dir: where a Ray of its own keeps its files; short, as sockets are among them.

    Raises:
        ValueError: the address is none.
        ConnectionError: there is no such cluster, or it does not take us.
    """
    if address is not None:
        _check(address)
    elif "ray" not in sys.modules:
        # Ray listens on all interfaces, and whoever gets through runs code here. So it takes only who has this user's
        # token (~/.ray/auth_token). That is its own default from 2.60 on; older ones look here while being imported.
        os.environ.setdefault(_AUTH, "token")
    import ray

    if ray.is_initialized():
        return Connection("this process's", is_ours=False)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "object_store_memory": settings.object_store_bytes,
            # Ray's processes stand back behind all others of the machine; a camera waits for nobody.
            "_system_config": {"worker_niceness": 0},
        }
        if temp_dir is not None:
            options["_temp_dir"] = temp_dir
        ray.init(**options)
        _log.info("a Ray of its own is started")
        return Connection("here", is_ours=True)
    with tempfile.TemporaryDirectory(prefix="millpond-wheel-") as folder:
        wheel = made_wheel(Path(folder))
        try:
            ray.init(address=address, runtime_env={"py_modules": [str(wheel)]}, **options)
        except (ConnectionError, ray.exceptions.RayError, RuntimeError) as error:
            raise ConnectionError(f"no Ray cluster takes us at {address}: {_first_line(error)}") from error
    _log.info("joined the Ray cluster at %s with %s", address, wheel.name)
    if os.environ.get(_AUTH) != "token":
        _log.warning("the Ray cluster at %s asks for no token: whoever reaches it can run code on it", address)
    return Connection(address, is_ours=True)


def _check(address: str) -> None:
    host, colon, port = address.rpartition(":")
    is_place = bool(host and colon and port.isdecimal() and "/" not in address and "@" not in address)
    if address != "auto" and not is_place:
        raise ValueError(
            f"got {address!r} for a Ray cluster; give host:port of its head, or auto for one on this machine"
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]

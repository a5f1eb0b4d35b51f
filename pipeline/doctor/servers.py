"""Servers: Redis where memories lie on one, Ray, and the port that Millpond's own is to listen on."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import shutil
import socket
import time
from pathlib import Path

from ...memory.depots import DepotError
from ...memory.depots.redis_link import MAX_TIMEOUT_S, DepotRefused, RedisLink
from ...stream.redact import redact_uri
from .finding import Finding

_LEAST_SHARED_BYTES = 64 * 2**20
_ANSWER_S = 1.0


def check_redis(url: str) -> Finding:
    """Whether the server answers, takes us, and keeps what it is given."""
    name = f"redis {redact_uri(url)}"
    try:
        link = RedisLink(url, timeout_s=MAX_TIMEOUT_S)
    except ImportError as error:
        return Finding(name, "fail", f"redis-py cannot be imported: {error}", "pip install --upgrade redis")
    except ValueError as error:
        return Finding(name, "fail", str(error), "mend the address where the memory is declared")
    try:
        began_s = time.monotonic()
        link.call(lambda client: client.ping())
        took_s = time.monotonic() - began_s
        facts = link.call(lambda client: client.info())
    except DepotRefused as error:
        return Finding(name, "fail", str(error), "mend user and password in the address, or the server's ACL for them")
    except DepotError as error:
        to_do = "start it (redis-server, or its service), or mend host and port; then: redis-cli -u ADDRESS ping"
        return Finding(name, "fail", str(error), to_do)
    finally:
        link.close()
    facts = facts if isinstance(facts, dict) else {}
    found = f"version {facts.get('redis_version', '?')}, answers in {1000 * took_s:.1f} ms"
    policy = str(facts.get("maxmemory_policy", "noeviction"))
    if facts.get("maxmemory") and policy.startswith("allkeys"):
        found += f"; may evict anything (maxmemory-policy {policy})"
        to_do = "memories can go before their time: maxmemory-policy volatile-ttl or noeviction, or a server of its own"
        return Finding(name, "warn", found, to_do)
    return Finding(name, "ok", found)


def check_ray() -> Finding:
    """Whether it can be imported, and has room for what its processes share. Nothing is started."""
    try:
        import ray
    except ImportError as error:
        return Finding(
            "ray", "warn", f"cannot be imported: {error}", "pip install --upgrade 'ray[data]', for --ray and batches"
        )
    found = f"version {ray.__version__}"
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free < _LEAST_SHARED_BYTES:
        found += f", and {shutil.disk_usage(shared).free / 2**20:.0f} MiB free in /dev/shm"
        return Finding("ray", "warn", found, "give it shared memory: docker run --shm-size=1g")
    return Finding("ray", "ok", found)


def check_port(host: str, port: int) -> Finding:
    """Whether the server could listen there."""
    name = f"port {host}:{port}"
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError, OverflowError) as error:
        return Finding(
            name, "fail", f"there is no such address: {error}", "set [server] host to an address of this machine"
        )
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        if os.name == "posix":  # as the server does: what lingers from before is no hindrance, who listens is
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(place)
            listener.listen(1)
            return Finding(name, "ok", "free")
        except OSError as error:
            return _explain_port(name, host, port, error)


def _explain_port(name: str, host: str, port: int, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        if _is_ours(host, port):
            to_do = "nothing, if it is the one that is wanted; else stop it, or set another [server] port"
            return Finding(name, "warn", "a Millpond server listens there already", to_do)
        to_do = f"see who: ss -ltnp 'sport = :{port}'; stop it, or set another [server] port"
        return Finding(name, "fail", f"taken by {_listener(port) or 'another program'}", to_do)
    if error.errno == errno.EACCES:
        return Finding(name, "fail", "this user may not listen there", "set a [server] port of 1024 or above")
    if error.errno == errno.EADDRNOTAVAIL:
        found = f"{host} is no address of this machine"
        return Finding(name, "fail", found, "set [server] host to 127.0.0.1, or to an address that `ip addr` shows")
    return Finding(name, "fail", f"cannot be listened on: {error.strerror}", "set another [server] host or port")


def _is_ours(host: str, port: int) -> bool:
    """Whether what listens there answers as this server does."""
    there = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    link = http.client.HTTPConnection(there, port, timeout=_ANSWER_S)
    try:
        link.request("GET", "/healthz")
        told = json.loads(link.getresponse().read(2**16))
        return isinstance(told, dict) and told.get("service") == "millpond"
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        link.close()


def _listener(port: int) -> str | None:
    """The program that listens on the port, where this user may know: Linux tells its owner and root."""
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text(encoding="ascii", errors="replace").splitlines()[1:]
        except OSError:
            continue
        for cells in map(str.split, rows):
            if len(cells) > 9 and cells[3] == "0A" and cells[1].endswith(f":{port:04X}"):
                inodes.add(f"socket:[{cells[9]}]")
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if any(os.readlink(handle) in inodes for handle in (process / "fd").iterdir()):
                name = re.sub(
                    r"[^\x20-\x7e]", "?", (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                )
                return f"{name} (process {process.name})"
        except OSError:  # it is another user's, or gone
            continue
    return None

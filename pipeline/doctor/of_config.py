"""From a server's config file to what the doctor looks at; the file itself is looked at first."""

from __future__ import annotations

import stat
import tomllib
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...stream.redact import redact_uri
from .examine import Plan
from .finding import Finding

if TYPE_CHECKING:
    from ..serve.config_file import ServeConfig

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Planned(NamedTuple):
    """What is to be looked at, and what was found on the way there."""

    plan: Plan
    findings: tuple[Finding, ...]


def plan_of(path: Path) -> Planned:
    """What the file names. One that cannot be read is a finding, and the defaults are looked at instead."""
    name = f"config {path}"
    try:
        from ..serve.config_file import read_config

        config = read_config(path)
    except ImportError as error:
        return Planned(Plan(), (Finding(name, "fail", f"not read: {error}", "pip install 'millpond[serve]'"),))
    except ValueError as error:
        return Planned(Plan(), (Finding(name, "fail", str(error), "mend the file; the rest is checked without it"),))
    findings = [Finding(name, "ok", f"{len(config.streams)} streams, {len(config.alerts)} alerts"), _access(config)]
    files = [path]
    if config.server.token_file is not None:
        files.append(path.parent / config.server.token_file)
    findings += [_secrecy(file) for file in files if file != path or _has_secrets(path)]
    places = [entry.memory or config.memory_at for entry in config.streams]
    plan = Plan(
        engine=config.engine,
        streams=tuple(entry.spec(at) for entry, at in zip(config.streams, places, strict=True)),
        host=config.server.host,
        port=config.server.port or None,  # 0 takes one that is free
    )
    return Planned(plan, tuple(findings))


def _access(config: ServeConfig) -> Finding:
    host = config.server.host
    if _is_loopback(host):
        return Finding("access", "ok", f"listens on {host}: only programs of this machine reach it")
    if config.server.token is None:
        to_do = "set token_file under [server] (make one: openssl rand -hex 32), or host to 127.0.0.1"
        return Finding("access", "fail", f"listens on {host} without a token, and will not start", to_do)
    return Finding("access", "ok", f"listens on {host}, and takes who has the token")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _has_secrets(path: Path) -> bool:
    """Whether a config file that makes sense holds secrets itself, rather than naming files that do."""
    given: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    streams, alerts = given.get("streams", ()), given.get("alerts", ())
    uris = [given.get("memory", {}).get("at"), *(s.get(key) for s in streams for key in ("source", "memory"))]
    return (
        "token" in given.get("server", {})
        or any("secret" in alert for alert in alerts)
        or any(isinstance(uri, str) and redact_uri(uri) != uri for uri in uris)
    )


def _secrecy(file: Path) -> Finding:
    name = f"secrecy of {file}"
    try:
        is_open = bool(file.stat().st_mode & _OTHERS)
    except OSError as error:
        return Finding(name, "warn", f"not known: {error.strerror}", "see that this user may read it")
    if is_open:
        return Finding(name, "warn", "holds secrets, and others than its owner can read it", f"chmod 600 {file}")
    return Finding(name, "ok", "read by its owner alone")

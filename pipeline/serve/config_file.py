"""ServeConfig: all that a server is told, and the TOML file that tells it. An unknown key is told the nearest one."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ...memory import MemoryConfig
from ...stream.redact import redact
from ...stream.source import local_path, source_kind
from ..alerts.reading import read_rules
from ..alerts.rule import AlertRule
from ..alerts.secret import Secret
from ..config import EngineConfig, build_settings
from .limits import Limits
from .url_guard import UrlRules
from .views import StreamEntry

TOKEN_VARIABLE = "MILLPOND_TOKEN"

_MAX_BYTES = 1 << 20
_MAX_TOKEN_BYTES = 4096
_SECTIONS = ("server", "streams", "model", "memory", "history", "narration", "limits", "urls", "alerts")
# Settings of an engine that have sections of their own here, or make no sense for streams without end.
_NOT_OF_MODEL = ("model", "memory", "history", "narration", "selector", "select_frames", "similarity")


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The section [server]. Made by `read_config`, read by all that listens."""

    host: str = "127.0.0.1"
    """Where it listens. Anything but this machine's loopback needs a token."""

    port: int = 8321
    """Where it listens; 0 takes one that is free."""

    token: Secret | None = None
    """What a client must show. Better kept in a file, or in the environment's MILLPOND_TOKEN, than here."""

    token_file: str | None = None
    """A file that holds the token; relative to the config file."""

    names: tuple[str, ...] = ()
    """Host names by which it is reached, besides its address and localhost."""

    grace_s: float = 10.0
    """How long answers that are on their way may take when it is told to end."""

    dead_letters: str | None = None
    """A file for alerts that could not be told, relative to the config file; None: they go with the process."""

    log_level: str = "info"
    """debug, info, warning or error."""

    def __post_init__(self) -> None:
        if not self.host.strip() or not self.host.isprintable():
            raise ValueError(f"host is an address of this machine, or a name of one; got {self.host!r}")
        if isinstance(self.port, bool) or not isinstance(self.port, int) or not 0 <= self.port < 65_536:
            raise ValueError(f"port is a whole number from 0 to 65535; got {self.port!r}")
        if not 0 <= self.grace_s <= 3600:
            raise ValueError(f"grace_s is from 0 to 3600 seconds; got {self.grace_s}")
        if isinstance(self.names, str) or not all(isinstance(name, str) and name.strip() for name in self.names):
            raise ValueError(f"names is a list of host names; got {self.names!r}")
        object.__setattr__(self, "names", tuple(self.names))
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise ValueError(f"log_level is debug, info, warning or error; got {self.log_level!r}")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Made by `read_config` or a program, read by everything in this folder. Shows no credentials.

    engine: the model, its memory, and when it narrates. memory_at: a directory, in which each stream gets one of its
    own, or a redis:// address, where streams outlive the process; None: they go with it.
    """

    server: ServerSettings = field(default_factory=ServerSettings)
    engine: EngineConfig = field(default_factory=EngineConfig)
    memory_at: str | None = field(default=None, repr=False)
    streams: tuple[StreamEntry, ...] = ()
    limits: Limits = field(default_factory=Limits)
    urls: UrlRules = field(default_factory=UrlRules)
    alerts: tuple[AlertRule, ...] = ()

    def __post_init__(self) -> None:
        ids = [entry.id for entry in self.streams]
        for stream_id in ids:
            if ids.count(stream_id) > 1:
                raise ValueError(f"two streams have the id {stream_id!r}; got it again; give each its own")
        if len(ids) > self.limits.num_streams:
            raise ValueError(
                f"got {len(ids)} streams, and num_streams of [limits] allows {self.limits.num_streams}; raise it"
            )


def read_config(path: str | Path, *, environment: Mapping[str, str] = os.environ) -> ServeConfig:
    """What a TOML file says, with its paths relative to its own folder. ValueError, in one sentence that names the file
    and the section, for what cannot be read or does not belong.

    environment: where MILLPOND_TOKEN is looked for.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ValueError(f"the config {str(path)!r} has more than {_MAX_BYTES} bytes; got a file of another kind?")
        given = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise ValueError(f"the config {str(path)!r} cannot be read: {error.strerror}; give a TOML file") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"the config {str(path)!r} is not TOML: {error}") from error
    try:
        return config_of(given, folder=path.absolute().parent, environment=environment)
    except ValueError as error:
        raise ValueError(f"{path}: {redact(str(error))}") from None


def config_of(
    given: Mapping[str, Any], *, folder: Path | None = None, environment: Mapping[str, str] = os.environ
) -> ServeConfig:
    """The same from nested mappings. folder: what its paths are relative to."""
    base = folder or Path.cwd()
    for name in given:
        if name not in _SECTIONS:
            near = difflib.get_close_matches(str(name), _SECTIONS, n=1)
            hint = f"did you mean [{near[0]}]?" if near else f"there are: {', '.join(_SECTIONS)}"
            raise ValueError(f"there is no section [{name}]; {hint}")
    memory = dict(_table(given, "memory"))
    memory_at = memory.pop("at", None)
    if memory_at is not None and (not isinstance(memory_at, str) or not memory_at.strip()):
        raise ValueError(f"'at' in [memory] is a directory or a redis:// address; got {memory_at!r}")
    return ServeConfig(
        server=_server(_table(given, "server"), base, environment),
        engine=_engine(_table(given, "model"), memory, given),
        memory_at=None if memory_at is None else _beside(memory_at, base),
        streams=tuple(_stream(table, number, base) for number, table in enumerate(_tables(given, "streams"), 1)),
        limits=build_settings(Limits, _table(given, "limits"), "limits"),
        urls=build_settings(UrlRules, _table(given, "urls"), "urls"),
        alerts=read_rules(given.get("alerts", ()), where="[[alerts]]", folder=base),
    )


def _server(table: Mapping[str, Any], base: Path, environment: Mapping[str, str]) -> ServerSettings:
    rest = dict(table)
    token = rest.pop("token", None)
    if token is not None and not isinstance(token, str):
        raise ValueError(f"'token' in [server] is words; got {type(token).__name__}")
    settings: ServerSettings = build_settings(ServerSettings, rest, "server")
    if settings.dead_letters is not None:
        settings = replace(settings, dead_letters=_beside(settings.dead_letters, base))
    if token is not None and settings.token_file is not None:
        raise ValueError("a token comes from one place; got token and token_file in [server]")
    if settings.token_file is not None:
        token = _token_in(Path(_beside(settings.token_file, base)))
    token = token if token is not None else environment.get(TOKEN_VARIABLE)
    return settings if token is None else replace(settings, token=_token(token))


def _token_in(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_TOKEN_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"token_file of [server], {str(path)!r}, cannot be read: {why}") from None


def _token(words: str) -> Secret:
    words = words.strip()
    if not words.isascii() or not words.isprintable() or " " in words:
        raise ValueError(
            "a token is printable ASCII without spaces; got other characters; make one: openssl rand -hex 32"
        )
    return Secret(words)


def _engine(model: Mapping[str, Any], memory: Mapping[str, Any], given: Mapping[str, Any]) -> EngineConfig:
    """[model] is an engine's settings, with `name` for the model itself; its other parts have their own sections."""
    known = ["name", *(one.name for one in fields(EngineConfig) if one.name not in _NOT_OF_MODEL)]
    for key in model:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known))}"
            raise ValueError(f"there is no setting {str(key)!r} in [model]; {hint}")
    nested: dict[str, Any] = {("model" if key == "name" else key): value for key, value in model.items()}
    nested |= {name: _table(given, name) for name in ("history", "narration") if name in given}
    if memory:
        known = ["at", *(one.name for one in fields(MemoryConfig))]
        for key in memory:
            if key not in known and difflib.get_close_matches(str(key), known, n=1) == ["at"]:
                raise ValueError(f"there is no setting {str(key)!r} in [memory]; did you mean 'at'?")
        nested["memory"] = memory
    return EngineConfig.from_dict(nested)


def _stream(table: Mapping[str, Any], number: int, base: Path) -> StreamEntry:
    where = f"streams, number {number}"
    entry: StreamEntry = build_settings(StreamEntry, table, where)
    source, memory = entry.source, entry.memory
    if source_kind(source) in ("file", "folder") and "://" not in source:
        source = _beside(source, base)
    return replace(entry, source=source, memory=None if memory is None else _beside(memory, base))


def _beside(path: str, base: Path) -> str:
    """A path that a config file gives, from its own folder; an address as it is."""
    return path if "://" in path else str(base / local_path(path))


def _table(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = given.get(name, {})
    if not isinstance(table, Mapping):
        raise ValueError(f"[{name}] must be a table of settings; got {type(table).__name__}")
    return table


def _tables(given: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    tables = given.get(name, ())
    if not isinstance(tables, list | tuple) or not all(isinstance(table, Mapping) for table in tables):
        raise ValueError(f"streams are written as tables, [[{name}]]; got {type(tables).__name__}")
    return tuple(tables)

"""Addresses that come from clients: which are let through, and to what. Nothing here connects to anything."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import unquote

from ...stream import SourceError
from ...stream.redact import redact_uri
from .addresses import IPNetwork, Resolver, is_public, may_be_named, parse_address, system_resolver

_PORTS = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322, "tcp": None}
_ELSEWHERE = ("device", "synthetic", "udp")  # schemes that name no peer to connect to
SCHEMES = (*_PORTS, *_ELSEWHERE)
_MAX_CHARS = 2_048

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
# Whatever two readers of addresses could understand differently is left out: every part has its own characters.
_NETWORK = re.compile(
    r"(?P<scheme>[a-z]+)://"
    r"(?:(?P<user>(?:[A-Za-z0-9._~!$&'()*+,;=:\-]|%[0-9A-Fa-f]{2})*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>[/?][^#]*)?"
)
_SYNTHETIC = re.compile(r"synthetic://[a-z]+/?(?:\?[A-Za-z0-9_=&.+\-]*)?")
# FFmpeg takes these out of an RTSP query, and then connects, listens or sends by other ways than asked.
_RTSP_SWITCHES = {"udp", "tcp", "multicast", "http", "https", "filter_src", "listen", "satip", "satip_raw"}


class UrlRefused(SourceError):
    """An address that is not let through: one sentence, for the client too, with no credentials and no addresses of
    machines in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlRules:
    """Where clients may send this server. Made from the section [urls] of the config file; read by all that opens what
    a client names. What the config file itself names is the operator's, and not held to it.

    schemes: of addresses. file:// needs no mention: it is allowed below `folders`, and nowhere else.
    folders: files below these may be opened.
    hosts: names that may lead to a private network: a camera's, or *.cameras.lan for all below.
    networks: addresses that may be reached though they are private, such as 192.168.7.0/24.
    resolver: names to addresses.
    """

    schemes: tuple[str, ...] = ("rtsp", "rtsps", "http", "https", "synthetic")
    folders: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    resolver: Resolver = field(default=system_resolver, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("schemes", "folders", "hosts", "networks"):
            given = getattr(self, name)
            if isinstance(given, str) or not all(isinstance(item, str) and item for item in given):
                raise ValueError(f"{name} is a list of words; got {given!r}")
            object.__setattr__(self, name, tuple(given))
        if not callable(self.resolver):
            raise ValueError(f"a resolver is a function, and no setting of a file; got {self.resolver!r}; leave it out")
        for scheme in self.schemes:
            if scheme not in SCHEMES:
                raise ValueError(f"no scheme named {scheme!r}; there are: {', '.join(SCHEMES)}; for files give folders")
        for network in self.networks:
            try:
                ip_network(network)
            except ValueError:
                raise ValueError(f"a network is written as 192.168.7.0/24; got {network!r}") from None
        for folder in self.folders:
            if not os.path.isabs(folder) or os.path.realpath(folder) == os.path.abspath(os.sep):
                raise ValueError(f"folders are absolute paths below the root; got {folder!r}")

    @property
    def reachable(self) -> tuple[IPNetwork, ...]:
        return tuple(ip_network(network) for network in self.networks)

    def allows_host(self, host: str) -> bool:
        """Whether the operator lets this name lead to a private network."""
        name = host.lower().rstrip(".")
        return any(
            name.endswith(known[1:]) if known.startswith("*.") else name == known
            for known in (known.lower().rstrip(".") for known in self.hosts)
        )


@dataclass(frozen=True, slots=True)
class CheckedUrl:
    """An address on the network that was let through. Made by `check_url`, read by whoever connects.

    user: name and password as given, percent-encoded; never shown. rest: path and query.
    """

    scheme: str
    host: str
    port: int
    user: str | None = field(repr=False)
    rest: str

    @property
    def url(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        return f"{self.scheme}://{user}{self.place}{self.rest}"

    @property
    def place(self) -> str:
        """Host and port; no port where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        return redact_uri(self.url)


def checked_source(url: str, rules: UrlRules) -> str:
    """What may be given to `open_source` for an address that a client gave; with the same rules' `Gateway` for a way
    where it is on the network: what is checked here is checked there again, for each connection.

    Raises:
        UrlRefused: it is not let through.
    """
    scheme = _scheme_of(url)
    if scheme == "file":
        return str(checked_path(_path_of(url), rules))
    if scheme not in rules.schemes:
        known = [f"{name}://" for name in rules.schemes] + ["file:// below the folders declared"] * bool(rules.folders)
        raise UrlRefused(f"{scheme}: is not let through; there are: {', '.join(known) or 'none'}")
    if scheme == "synthetic":
        if not _SYNTHETIC.fullmatch(url):
            raise UrlRefused("a synthetic world is written as synthetic://shapes?seed=1; got something else")
        return url
    if scheme in _ELSEWHERE:
        return url
    checked = check_url(url, rules)
    check_host(checked.host, checked.port, rules)
    return checked.url


def check_url(url: str, rules: UrlRules, schemes: tuple[str, ...] = tuple(_PORTS)) -> CheckedUrl:
    """The parts of an address on the network, if it is written so that nobody can read it in two ways. Where its name
    leads is looked at when it is connected to, or by `check_host`.

    schemes: of these and of the rules'.

    Raises:
        UrlRefused: it is not let through.
    """
    scheme = _scheme_of(url)
    allowed = [name for name in schemes if name in rules.schemes]
    if scheme not in allowed:
        raise UrlRefused(f"{scheme}: is not let through here; there are: {', '.join(allowed) or 'none'}")
    parts = _NETWORK.fullmatch(url[: len(scheme)].lower() + url[len(scheme) :].partition("#")[0])
    if parts is None:
        raise UrlRefused(
            f"{redact_uri(url)[:200]!r} is not written as {scheme}://host:port/path; in a user or password write each "
            "special character as a percent sign and two digits, @ as %40"
        )
    host, rest = parts["host"].strip("[]"), parts["rest"] or ""
    if parts["user"] is not None and re.search(r"%(?:[01][0-9A-Fa-f]|7[Ff])", parts["user"]):
        raise UrlRefused(f"a user and password have no control characters; got some for {host}")
    port = int(parts["port"]) if parts["port"] else _PORTS[scheme]
    if port is None or not 0 < port < 65_536:
        raise UrlRefused(f"{scheme}://{host} needs a port from 1 to 65535; got {parts['port'] or 'none'}")
    if scheme == "tcp" and rest:
        raise UrlRefused(f"tcp://{host}:{port} has no path and no options; got some")
    if scheme.startswith("rtsp"):
        query = rest.partition("?")[2]
        switches = {word.partition("=")[0].lower() for word in re.split(r"[?&]", query)} & _RTSP_SWITCHES
        if switches:
            raise UrlRefused(f"?{sorted(switches)[0]} would change how {host} is reached; leave it out")
    _check_name(host)
    return CheckedUrl(scheme, host, port, parts["user"], rest if rest.startswith("/") else f"/{rest}" if rest else "")


def check_host(host: str, port: int, rules: UrlRules) -> tuple[str, ...]:
    """The addresses behind a host, each of which may be connected to; one that may not refuses them all.

    Raises:
        UrlRefused: there are none, or one leads where clients may not send this server.
    """
    _check_name(host)
    # Whether there is no such name or one of a private network is not told: the difference maps the network.
    refused = UrlRefused(
        f"{host} is no host that this server may be sent to: there is no such name, or it leads to a private network; "
        "the operator can let it through under [urls], by hosts or networks"
    )
    try:
        found = tuple(rules.resolver(host, port))
    except (OSError, UnicodeError):
        raise refused from None
    is_allowed = rules.allows_host(host)
    reachable = rules.reachable
    for text in found:
        try:
            address = parse_address(text)
        except ValueError:
            raise refused from None
        if any(address in network for network in reachable):
            continue
        if not (is_public(address) or (is_allowed and may_be_named(address))):
            raise refused
    if not found:
        raise refused
    return found


def checked_path(path: str, rules: UrlRules) -> Path:
    """The real path of a video, or of a folder of pictures, below a declared folder.

    Raises:
        UrlRefused: it is elsewhere, also by a link, or is neither. What is elsewhere is not told apart from what is
            nowhere.
    """
    refused = UrlRefused("there is no such file below the folders that are declared under [urls]")
    if not rules.folders:
        raise UrlRefused("files are not let through; the operator can declare folders under [urls]")
    if "\0" in path or not os.path.isabs(path):
        raise UrlRefused("a file is written with its whole path, file:///videos/clip.mp4; got part of one")
    try:
        real = Path(os.path.realpath(path, strict=True))
        kind = real.stat().st_mode
    except (OSError, ValueError):
        raise refused from None
    if not any(_is_below(real, folder) for folder in rules.folders):
        raise refused
    if stat.S_ISDIR(kind):
        with os.scandir(real) as entries:
            if any(entry.is_symlink() for entry in entries):
                raise UrlRefused("a folder of pictures is let through where it has no links in it; got one with links")
    elif not stat.S_ISREG(kind):
        raise refused
    return real


def _is_below(real: Path, folder: str) -> bool:
    return real.is_relative_to(os.path.realpath(folder))


def _scheme_of(url: str) -> str:
    """Lower case; "file" for a plain path. Looks at every character first."""
    if not isinstance(url, str) or not 0 < len(url) <= _MAX_CHARS:
        num_chars = len(url) if isinstance(url, str) else "none"
        raise UrlRefused(f"an address has 1 to {_MAX_CHARS} characters; got {num_chars}")
    if url.startswith("/") and url.isprintable():
        return "file"
    if not re.fullmatch(r"[\x21-\x5b\x5d-\x7e]+", url):
        raise UrlRefused("an address has printable ASCII characters and no backslash; got others; percent-encode them")
    found = _SCHEME.match(url)
    if found is None:
        raise UrlRefused("an address starts with a scheme, such as rtsp:// or file:///; got none")
    return found[1].lower()


def _path_of(url: str) -> str:
    """What a file:// address names. One host only: none."""
    if url.startswith("/"):
        return url
    found = re.fullmatch(r"(?i:file)://(?i:localhost)?(/[^?#]*)", url)
    if found is None:
        raise UrlRefused("a file is written as file:///videos/clip.mp4; got something else")
    return unquote(found[1])


def _check_name(host: str) -> None:
    """Refuses numbers that only some take for an address: 127.1, 0x7f000001, 017700000001."""
    if ":" in host:
        try:
            parse_address(host)
        except ValueError:
            raise UrlRefused(f"[{host}] is no address") from None
        return
    last = host.rstrip(".").rpartition(".")[2]
    is_number = bool(re.fullmatch(r"[0-9]+|0[xX][0-9A-Fa-f]*", last))
    if is_number and not re.fullmatch(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})", host):
        raise UrlRefused(f"{host} is no address; write four numbers from 0 to 255 with dots, without leading zeros")
    if not last or len(host) > 253 or ".." in host or any(len(label) > 63 for label in host.split(".")):
        raise UrlRefused(f"{host[:80]!r} is no name of a host")

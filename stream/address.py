"""Address: where a live source is, and how FFmpeg is asked to connect to it without telling its secrets."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from .decoding import MEDIA_FORMATS
from .redact import redact, redact_uri
from .source import SourceError, SourceLost, SourceStalled
from .way import StraightWay, Way

if TYPE_CHECKING:
    from av.container import InputContainer

# What FFmpeg may reach from each: a playlist, a redirect or a description of media may name anything else.
_PROTOCOLS = {
    "rtsp": "rtsp,rtp,rtcp,tcp,udp,srtp",
    "rtsps": "rtsp,rtsps,rtp,rtcp,tcp,udp,tls,srtp,crypto",
    "http": "http,https,tcp,tls,crypto",
    "https": "http,https,tcp,tls,crypto",
    "tcp": "tcp",
    "udp": "udp",
}
_WEB_FORMATS = ",".join((*MEDIA_FORMATS, "hls", "webvtt"))
_CAMERA_FORMATS = {"linux": "v4l2", "darwin": "avfoundation"}
TRANSPORTS = ("tcp", "udp")


class Opened(NamedTuple):
    """What came of opening: a container, or what is wrong."""

    container: InputContainer | None
    problem: Exception | None


class Address:
    """Where to connect and how; the only holder of the uri with its secrets, which it never shows."""

    def __init__(
        self, uri: str, transport: str, open_timeout_s: float, read_timeout_s: float, way: Way | None = None
    ) -> None:
        if transport not in TRANSPORTS:
            raise ValueError(f"no transport named {transport!r}; there are: {', '.join(TRANSPORTS)}")
        if not (open_timeout_s > 0 and read_timeout_s > 0):
            raise ValueError(
                f"timeouts must be above 0 s; got open_timeout_s={open_timeout_s}, read_timeout_s={read_timeout_s}"
            )
        self.shown = redact_uri(uri)
        self.scheme = uri.split(":", 1)[0].lower() if "://" in uri else "device"
        self._given = uri
        self._target = uri if self.scheme == "device" else quote_user(uri)
        self.transport = transport
        self._way = way or StraightWay()
        self.open_timeout_s, self.read_timeout_s = open_timeout_s, read_timeout_s
        self.name = self._check_and_name()

    def __repr__(self) -> str:
        return f"Address({self.shown})"

    def _check_and_name(self) -> str:
        """A stream id that says which camera it is, and nothing secret: host and path."""
        if self.scheme == "device":
            return self._given.removeprefix("device:").strip("/") or "device"
        try:
            parts = urlsplit(self.shown)
            host, port = parts.hostname, parts.port  # raises for a port that is no number
        except ValueError:
            host = port = None
        if self.scheme in ("tcp", "udp"):
            # What is sent to this machine comes to a port of it, and then the host may be left out: udp://@:5000
            if port is None or not (host or self.scheme == "udp"):
                raise SourceError(f"{self.shown} is no address; wanted {self.scheme}://host:port")
        elif not host:
            raise SourceError(f"{self.shown} is no address; wanted {self.scheme}://host:port/path")
        place = parts.netloc.rpartition("@")[2]
        return f"{self.scheme if place.startswith(':') else ''}{place}{parts.path}".rstrip("/")

    def clean(self, text: str) -> str:
        return redact(text, self._given, self._target)

    def open(self) -> tuple[InputContainer | None, Exception | None]:
        """The container, or what is wrong. Nothing is raised, so that no traceback or context can carry
        FFmpeg's own error, whose text has the password in it."""
        import av

        began_s = time.monotonic()
        target, format_name, options, io_open = self._target, None, {}, None
        if self.scheme == "device":
            try:
                target, format_name = _camera(self._given)
            except SourceError as error:
                return Opened(None, SourceError(str(error)))
        else:
            try:
                target, told, io_open = self._way.opening(self._target)
            except (SourceError, SourceLost) as error:
                return Opened(None, type(error)(str(error)))
            except OSError as error:
                return Opened(None, self._explain_open(error, time.monotonic() - began_s))
            options = {**self._options(), **told}
            format_name = "mpegts" if self.scheme in ("tcp", "udp") else None
        try:
            container = av.open(
                target,
                format=format_name,
                options=options,
                io_open=io_open,
                timeout=(self.open_timeout_s, self.read_timeout_s),
                metadata_errors="ignore",
            )
        except (SourceError, SourceLost) as error:
            return Opened(None, type(error)(str(error)))
        except (av.FFmpegError, OSError, ValueError) as error:
            return Opened(None, self._explain_open(error, time.monotonic() - began_s))
        return Opened(container, None)  # type: ignore[arg-type]

    def _options(self) -> dict[str, str]:
        """FFmpeg's own timeouts beside PyAV's: each covers waits that the other does not."""
        wait_us = str(int(1e6 * max(self.open_timeout_s, self.read_timeout_s)))
        options = {"protocol_whitelist": _PROTOCOLS[self.scheme], "timeout": wait_us, "rw_timeout": wait_us}
        if self.scheme.startswith("rtsp"):
            options["rtsp_transport"] = self.transport
            options["allowed_media_types"] = "video"
        elif self.scheme.startswith("http"):
            options["format_whitelist"] = _WEB_FORMATS
        if not self.scheme.startswith("http"):
            options["fpsprobesize"] = "0"  # a second or two of frames, read only to guess a rate that is not used
        if self.scheme == "udp":
            options["overrun_nonfatal"] = "1"  # a burst too large costs itself, not the connection
        return options

    def _explain_open(self, error: Exception, lasted_s: float) -> Exception:
        """Why the connection did not come about: what the user can set right is a SourceError."""
        import av

        if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
            return SourceError(f"{self.shown} refuses the user name or password")
        if isinstance(error, av.error.HTTPNotFoundError):
            return SourceError(f"{self.shown} does not exist: the server answers 404, check the path")
        if isinstance(error, av.error.HTTPClientError):
            return SourceError(f"{self.shown} does not exist or is refused: {_reason(error)}")
        if isinstance(error, FileNotFoundError | PermissionError) and self.scheme == "device":
            return SourceError(f"no camera can be opened at {self.shown}: {_reason(error)}")
        if isinstance(error, av.error.ExitError | TimeoutError) or lasted_s >= 0.95 * self.open_timeout_s:
            return SourceLost(f"{self.shown} did not answer within {self.open_timeout_s:g} s")
        if isinstance(error, ConnectionRefusedError):
            return SourceLost(f"{self.shown} refuses the connection; is the server running, and the port right?")
        if isinstance(error, av.error.InvalidDataError | ValueError) and not self.scheme.startswith("rtsp"):
            return SourceError(f"{self.shown} answers, but not with video that can be read")
        return SourceLost(f"cannot connect to {self.shown}: {_reason(error)}")

    def stalled(self) -> SourceStalled:
        return SourceStalled(f"{self.shown} sent nothing for {self.read_timeout_s:g} s")

    def explain_loss(self, error: Exception) -> Exception:
        """Why a connection that stood is gone."""
        import av

        if isinstance(error, av.error.ExitError | TimeoutError):
            return self.stalled()
        return SourceLost(f"{self.shown} was lost: {_reason(error)}")


def _reason(error: Exception) -> str:
    """FFmpeg's words for the error, without the uri that its full text has."""
    return (getattr(error, "strerror", None) or type(error).__name__).lower()


def _camera(uri: str) -> tuple[str, str]:
    """What FFmpeg calls a camera of this machine, and the format that reads it."""
    import av

    number = re.fullmatch(r"(?:device:/+|/dev/video)(\d+)", uri)
    path = re.fullmatch(r"(?:device:/)?(/dev/\S+)", uri)
    if not number and not path:
        raise SourceError(f"{uri} names no camera; write device://0 or /dev/video0")
    format_name = _CAMERA_FORMATS.get(sys.platform)
    if format_name is None or not any(format_name in name.split(",") for name in av.formats_available):
        raise SourceError(f"cameras cannot be read on {sys.platform}, so not {uri}; serve it over RTSP instead")
    if sys.platform == "darwin" and number:
        return number[1], format_name
    return (f"/dev/video{number[1]}" if number else path[1]), format_name  # type: ignore[index]


def quote_user(uri: str) -> str:
    """The uri with its user and password percent-encoded, as FFmpeg needs them, if they are not already.

    Without this a password with a slash would end the host's part of the uri: FFmpeg would connect elsewhere.

    >>> quote_user("rtsp://adm:s3/c@t@cam.local/main")
    'rtsp://adm:s3%2Fc%40t@cam.local/main'
    """
    scheme, _, rest = uri.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        user_info, _, place = rest.partition(authority)[1].rpartition("@")
        place += rest[len(authority) :]
    elif re.fullmatch(r"[^:]*:\d*|[^:]*|\[.*\](:\d*)?", authority) or "@" not in rest:
        return uri  # a host: any '@' is in the path
    else:
        user_info, _, place = rest.rpartition("@")
    user, colon, password = user_info.partition(":")
    return f"{scheme}://{_quoted(user)}{colon}{_quoted(password)}@{place}"


def _quoted(text: str) -> str:
    """Percent-encoded once: what is so already stays."""
    return text if quote(unquote(text), safe="") == text else quote(text, safe="%" if _is_quoted(text) else "")


def _is_quoted(text: str) -> bool:
    """Whether every '%' in it starts a percent-encoded character."""
    return "%" in text and not re.search(r"%(?![0-9A-Fa-f]{2})", text)

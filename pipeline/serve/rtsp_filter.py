"""What an RTSP server says before it plays: where it redirects to is checked, as the address itself was."""

from __future__ import annotations

import re
from collections.abc import Callable

from .pump import Cut

_MAX_LINE_BYTES = 8 << 10
_MAX_LINES = 200
_MAX_BODY_BYTES = 1 << 20
_STATUS = re.compile(rb"RTSP/1\.[01] ([0-9]{3})(?: .*)?")
_HEADER = re.compile(rb"([!-9;-~]+):[ \t]*(.*?)[ \t]*")


class RtspFilter:
    """Both directions of one RTSP connection. FFmpeg follows redirects by itself until it has asked to play; until
    then every message of the server is read as strictly as it should be written, and the Location of a redirect is
    put through `redirect`. After that all goes through as it is.

    A server that writes otherwise is cut off: what cannot be read here in one way only may be read there in another.

    redirect: a new address for where the server leads. Raises ValueError where it may not.
    """

    def __init__(self, redirect: Callable[[str], str]) -> None:
        self._redirect = redirect
        self._plays = False
        self._held = b""
        self._asked = b""

    def outward(self, block: bytes) -> bytes:
        """What FFmpeg says."""
        if not self._plays:
            self._asked = (self._asked + block)[-_MAX_LINE_BYTES:]
            self._plays = re.search(rb"(?:\A|\n)PLAY \S+ RTSP/", self._asked) is not None
        return block

    def inward(self, block: bytes) -> bytes:
        """What the server says, as far as it has said all of it. Raises Cut."""
        held = self._held = self._held + block
        if self._plays:
            self._held = b""
            return held
        passed = b""
        while message := self._first_message():
            passed += message
        return passed

    def _first_message(self) -> bytes:
        """Takes the first whole message from what is held; nothing where there is none yet."""
        held = self._held
        if held.startswith(b"$"):
            end = 4 + int.from_bytes(held[2:4], "big")
            if len(held) < max(4, end):
                return b""
            self._held = held[end:]
            return held[:end]
        head, found, rest = held.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        if len(lines) > _MAX_LINES or any(len(line) > _MAX_LINE_BYTES for line in lines):
            raise Cut("the RTSP server's answer has no end")
        if not found:
            return b""
        passed = self._checked(lines)
        lengths = [value for name, value in map(_header, lines[1:]) if name == b"content-length"]
        if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]{1,7}", value) for value in lengths):
            raise Cut("the RTSP server's answer has no length that can be read")
        num_bytes = int(lengths[0]) if lengths else 0
        if num_bytes > _MAX_BODY_BYTES:
            raise Cut("the RTSP server's answer is too long")
        if len(rest) < num_bytes:
            return b""
        self._held = rest[num_bytes:]
        return passed + rest[:num_bytes]

    def _checked(self, lines: list[bytes]) -> bytes:
        """The head of a message, with its Location led through here."""
        first, headers = lines[0], [_header(line) for line in lines[1:]]
        status = _STATUS.fullmatch(first)
        if b"\n" in first or b"\r" in first or (status is None and not re.match(rb"[A-Z_]+ \S+ RTSP/1\.[01]\Z", first)):
            raise Cut("the RTSP server does not speak RTSP")
        if status is None or not status[1].startswith(b"3"):
            return b"\r\n".join(lines) + b"\r\n\r\n"
        targets = [value for name, value in headers if name == b"location"]
        if len(targets) != 1:
            raise Cut("the RTSP server redirects, and does not say where to")
        try:
            target = self._redirect(targets[0].decode("latin-1")).encode()
        except (ValueError, OSError) as error:
            raise Cut(f"the RTSP server redirects to where it may not: {error}") from None
        kept = [line for line, (name, _) in zip(lines[1:], headers, strict=True) if name != b"location"]
        return b"\r\n".join([first, *kept, b"Location: " + target]) + b"\r\n\r\n"


def _header(line: bytes) -> tuple[bytes, bytes]:
    """Name, in lower case, and value. Raises Cut."""
    found = _HEADER.fullmatch(line)
    if found is None or b"\n" in line or b"\r" in line:
        raise Cut("the RTSP server does not speak RTSP")
    return found[1].lower(), found[2]

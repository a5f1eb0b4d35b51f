"""Takes credentials out of uris and out of any text that may carry one, before a person or a log sees it."""

from __future__ import annotations

import re
from urllib.parse import unquote

# A scheme has two letters or more, so that C:/ is a path. One slash is enough: a mistyped uri leaks as well.
# file, synthetic and device uris carry no user, and their paths may hold an '@'.
_SCHEME = r"\b(?!file:|synthetic:|device:)[a-z][a-z0-9+.\-]+:/+"
_IN_TEXT = re.compile(rf"({_SCHEME})(\S+)", re.IGNORECASE)
_WHOLE = re.compile(rf"\s*({_SCHEME})(.+)", re.IGNORECASE | re.DOTALL)
_SECRET_NAME = r"[\w.\-]*(?:pass|pwd|secret|token|api_?key|auth|signature|credential)[\w.\-]*"
_IN_QUERY = re.compile(rf"({_SECRET_NAME}=)[^&\s\"'<>]*", re.IGNORECASE)

_MASK = "***"


def redact_uri(uri: str) -> str:
    """The uri with the user, the password and secret query values replaced by `***`.

    A password may hold any character, '@ / : # ? %' and spaces too, so all up to the last '@' is taken for
    the user's: a uri with an '@' in its path then reads shorter than it is, which is the harmless mistake of
    the two.

    >>> redact_uri("rtsp://admin:p@ss/w#rd@cam.local:554/main?token=t0p&profile=1")
    'rtsp://***@cam.local:554/main?token=***&profile=1'
    """
    match = _WHOLE.fullmatch(uri)
    return uri if match is None else match[1] + _mask_rest(match[2])


def redact(text: str, *uris: str) -> str:
    """The text with the credentials of every uri in it masked.

    In running text a uri ends at white space. `uris` are uris known to be in play: they are looked for as
    they stand, which also covers a password with spaces in it.
    """
    for uri in uris:
        if uri:
            text = text.replace(uri, redact_uri(uri)).replace(unquote(uri), redact_uri(unquote(uri)))
    return _IN_TEXT.sub(lambda match: match[1] + _mask_rest(match[2]), text)


def _mask_rest(rest: str) -> str:
    """What follows the slashes of a uri, masked."""
    user, at, place = rest.rpartition("@")
    return (_MASK if user else "") + at + _IN_QUERY.sub(rf"\1{_MASK}", place)

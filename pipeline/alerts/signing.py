"""Signatures of webhooks: who has the secret can tell our messages from others', and old ones from new."""

from __future__ import annotations

import hashlib
import hmac
import re

from .secret import Secret

HEADER = "Millpond-Signature"
_FORM = re.compile(r"t=([0-9]{1,12}),v1=([0-9a-f]{64})")


def sign(secret: Secret, body: bytes, *, at_s: int) -> str:
    """The header's value: t=..., when it was signed in Unix seconds; v1=..., HMAC-SHA256 over "t.body" in hex."""
    return f"t={at_s},v1={_digest(secret, body, at_s)}"


def verify_signature(secret: Secret, header: str, body: bytes, *, now_s: float, tolerance_s: float = 300.0) -> bool:
    """Whether this body was signed with this secret, at most `tolerance_s` seconds from now: for receivers.

    A receiver that also remembers the ids of those 300 seconds cannot be told the same twice.
    """
    found = _FORM.fullmatch(header)
    if found is None or abs(now_s - int(found[1])) > tolerance_s:
        return False
    return hmac.compare_digest(_digest(secret, body, int(found[1])), found[2])


def _digest(secret: Secret, body: bytes, at_s: int) -> str:
    return hmac.new(secret.reveal(), b"%d." % at_s + body, hashlib.sha256).hexdigest()

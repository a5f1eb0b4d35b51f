"""Bodies of requests: read whole, within limits, and looked over before anything parses them."""

from __future__ import annotations

import asyncio
import json
import re
from typing import NoReturn

from .limits import Limits
from .refusals import App, Message, Receive, Scope, Send, header_of, refuse

# A string, also one that never ends, or what opens and closes. Possessive: no text makes it try twice.
_SIGNS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)
_LINGER_S = 2.0
_LINGER_BODIES = 16


class BodyGuard:
    """Takes the body of a request, gives it on whole, and turns away what is too long, too slow, no JSON, or JSON made
    to hurt. Responses pass as they are, streaming or not.

    What is refused for its length is still read for a moment, and thrown away: a client that sends before it reads
    would see a broken connection instead of the answer.
    """

    def __init__(self, app: App, *, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._limits.body_bytes
        try:
            async with asyncio.timeout(self._limits.body_s):
                body = await _read(receive, most)
        except TimeoutError:
            told = f"the body did not come within {self._limits.body_s:g} s"
            await refuse(send, 408, told, "body_too_slow", hangs_up=True)
            return
        except _Gone:
            return
        if len(body) > most:
            await _linger(receive, _LINGER_BODIES * most)
            await refuse(send, 413, f"a body has at most {most} bytes; got more", "body_too_long", hangs_up=True)
            return
        if body:
            kind = (header_of(scope, b"content-type") or "").partition(";")[0].strip().lower()
            if kind != "application/json":
                # Also what keeps other sites out: without this header a browser would send a form of theirs here.
                await refuse(send, 415, "a body is application/json; set its Content-Type", "not_json")
                return
            try:
                check_json(body, self._limits.json_depth)
            except ValueError as error:
                await refuse(send, 400, str(error), "bad_json")
                return
        await self._app(scope, _again(body, receive), send)


def check_json(body: bytes, most_deep: int) -> None:
    """Raises ValueError for what is no JSON, or is more than a value to be read: deeper than `most_deep`, with numbers
    that are none or have no end, with halves of characters or with NUL in its texts."""
    depth = deepest = 0
    for sign in _SIGNS.finditer(body):
        first = body[sign.start()]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    if deepest > most_deep:
        raise ValueError(f"the body nests lists and objects {deepest} deep; at most {most_deep} are read")
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:100] if isinstance(error, json.JSONDecodeError | _NoNumber) else "not to be read"
        raise ValueError(f"the body is not JSON in UTF-8: {reason}") from None
    if "\\u" in text:
        try:
            spelled = json.dumps(value, ensure_ascii=False)
            spelled.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("the body has half a character in it; got a lone surrogate") from None
        if re.search(r"(?<!\\)(?:\\\\)*\\u0000", spelled):
            raise ValueError("the body has a NUL character in it; got \\u0000; leave it out")


class _Gone(Exception):
    """The client went away before its body was whole."""


class _NoNumber(ValueError):
    """A number that JSON has not."""


def _no_number(name: str) -> NoReturn:
    raise _NoNumber(f"{name} is no number of JSON's")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _NoNumber("a number is larger than any that can be held")
    return value


async def _read(receive: Receive, most_bytes: int) -> bytes:
    """The body, or its beginning where it is longer."""
    parts, num_bytes = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _Gone
        part = message.get("body", b"")
        num_bytes += len(part)
        parts.append(part)
        if num_bytes > most_bytes or not message.get("more_body", False):
            return b"".join(parts)


async def _linger(receive: Receive, most_bytes: int) -> None:
    """Reads on and keeps nothing."""
    num_bytes = 0
    try:
        async with asyncio.timeout(_LINGER_S):
            while num_bytes < most_bytes:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                num_bytes += len(message.get("body", b""))
    except TimeoutError:
        return


def _again(body: bytes, receive: Receive) -> Receive:
    """Says the body once, and then whatever the client does."""
    is_said = False

    async def say() -> Message:
        nonlocal is_said
        if is_said:
            return await receive()
        is_said = True
        return {"type": "http.request", "body": body, "more_body": False}

    return say

"""One try to tell a webhook: to the machine that was checked, signed, and over within a time whatever it does."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from urllib.parse import unquote

import httpx

from ..serve.url_guard import CheckedUrl, UrlRefused, UrlRules, check_host, check_url
from .secret import Secret
from .signing import HEADER, sign

SCHEMES = ("http", "https")
_MAX_WAIT_S = 3600.0
_MAX_ADDRESSES = 3
# What may be otherwise the next time, besides every 5xx.
_PASSING = (408, 409, 425, 429)


class Outcome(NamedTuple):
    """How a try went. problem: None where it arrived, else a sentence that gives nothing of the webhook away but its
    host. is_final: trying again would not help. wait_s: how long the receiver wants to be left alone."""

    problem: str | None
    is_final: bool = False
    wait_s: float = 0.0

    @property
    def is_told(self) -> bool:
        return self.problem is None


@dataclass(frozen=True, slots=True)
class Webhook:
    """Tells webhooks, each under the rules for addresses. Not for more than one event loop.

    urls: where webhooks may lead. try_s: until one try is over.
    """

    urls: UrlRules
    try_s: float = 10.0
    clock: Callable[[], float] = time.time
    _trusted: ssl.SSLContext = field(default_factory=httpx.create_ssl_context, repr=False)

    async def post(self, url: str, secret: Secret, body: bytes) -> Outcome:
        """Sends it once. Redirects are not followed: who answers with one has moved, and the address is to be changed.

        The connection goes to the very address that was checked, so that a name which leads elsewhere a moment later
        leads nowhere. httpx's client is not used, but its transport: the client logs whole addresses, and follows what
        the environment says of proxies.
        """
        host = "the webhook"
        try:
            checked = check_url(url, replace(self.urls, schemes=SCHEMES), SCHEMES)
            host = checked.host
            async with asyncio.timeout(self.try_s):
                return await self._post(checked, secret, body)
        except UrlRefused as error:
            return Outcome(str(error))
        except TimeoutError:
            return Outcome(f"{host} did not answer within {self.try_s:g} s")
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
            # Its own words may hold the address.
            return Outcome(f"{host} could not be told: {type(error).__name__}")

    async def _post(self, checked: CheckedUrl, secret: Secret, body: bytes) -> Outcome:
        loop = asyncio.get_running_loop()
        addresses = await loop.run_in_executor(None, check_host, checked.host, checked.port, self.urls)
        async with httpx.AsyncHTTPTransport(verify=self._trusted, trust_env=False, retries=0) as transport:
            for address in addresses[:_MAX_ADDRESSES]:
                try:
                    answer = await transport.handle_async_request(self._request(checked, address, secret, body))
                except httpx.ConnectError as error:
                    failed = error
                    continue
                try:
                    return _read(answer, checked.host)
                finally:
                    await answer.aclose()
        raise failed

    def _request(self, checked: CheckedUrl, address: str, secret: Secret, body: bytes) -> httpx.Request:
        literal = f"[{address}]" if ":" in address else address
        named = f"[{checked.host}]" if ":" in checked.host else checked.host
        headers = {
            "Host": f"{named}:{checked.port}",
            "Content-Type": "application/json",
            "User-Agent": "millpond",
            "Connection": "close",
            HEADER: sign(secret, body, at_s=int(self.clock())),
        }
        if checked.user is not None:
            words = base64.b64encode(unquote(checked.user).encode()).decode()
            headers["Authorization"] = f"Basic {words}"
        limits = dict.fromkeys(("connect", "read", "write", "pool"), self.try_s)
        return httpx.Request(
            "POST",
            f"{checked.scheme}://{literal}:{checked.port}{checked.rest or '/'}",
            headers=headers,
            content=body,
            extensions={"timeout": limits, "sni_hostname": checked.host},
        )


def _read(answer: httpx.Response, host: str) -> Outcome:
    status = answer.status_code
    if 200 <= status < 300:
        return Outcome(None)
    if 300 <= status < 400:
        return Outcome(
            f"{host} answered {status}, which leads elsewhere; give the webhook's new address", is_final=True
        )
    is_final = 400 <= status < 500 and status not in _PASSING
    return Outcome(f"{host} answered {status}", is_final, _wait_s(answer))


def _wait_s(answer: httpx.Response) -> float:
    """What Retry-After says in seconds; 0 where it says nothing, or a date."""
    words = answer.headers.get("retry-after", "").strip()
    return min(float(words), _MAX_WAIT_S) if words.isascii() and words.isdigit() and len(words) < 10 else 0.0

"""How many clients may follow Server-Sent Events at once."""

from __future__ import annotations

from .limits import Limits
from .refusals import App, Receive, Scope, Send, headers_of, refuse


class FollowerGuard:
    """Counts the requests for Server-Sent Events that are open, and turns away those beyond the limit: they stay for
    as long as they like, and each takes a connection."""

    def __init__(self, app: App, *, limits: Limits) -> None:
        self._app, self._most = app, limits.num_followers
        self._num_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _follows(scope):
            await self._app(scope, receive, send)
            return
        if self._num_open >= self._most:
            told = f"{self._most} clients follow events here already, which is the limit; try again later"
            await refuse(send, 429, told, "too_many_followers", headers=[(b"retry-after", b"5")])
            return
        self._num_open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._num_open -= 1


def _follows(scope: Scope) -> bool:
    accepts = ",".join(headers_of(scope, b"accept"))
    return scope["method"] == "GET" and "text/event-stream" in accepts.lower()

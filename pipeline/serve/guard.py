"""All that stands between a client and the routes, in its order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .access import Access, AccessGuard
from .bodies import BodyGuard
from .followers import FollowerGuard
from .headers import RequestFrame

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .config_file import ServeConfig, ServerSettings


def access_of(server: ServerSettings) -> Access:
    """Who may use a server with these settings. Raises ValueError where others could reach it without a token."""
    return Access(server.host, None if server.token is None else server.token.reveal(), server.names)


def install(app: FastAPI, config: ServeConfig) -> None:
    """Puts every guard before the app. Raises ValueError where the server may not be started as it is set.

    client -> RequestFrame -> AccessGuard -> FollowerGuard -> BodyGuard -> routes
              number, path,   host, origin,   how many         length,
              headers         token           stay             JSON
    """
    # The last that is added is the first that is asked.
    app.add_middleware(BodyGuard, limits=config.limits)
    app.add_middleware(FollowerGuard, limits=config.limits)
    app.add_middleware(AccessGuard, access=access_of(config.server))
    app.add_middleware(RequestFrame)

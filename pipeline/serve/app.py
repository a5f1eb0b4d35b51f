"""The app: every route, what stands before them, and how all of it is described."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ..alerts.service import Alerts
from .alert_metrics import AlertsCollector
from .config_file import ServeConfig
from .errors import install_errors
from .gateway import Gateway
from .guard import install
from .health import health_routes
from .metrics import HttpMetrics, metrics_route
from .page import page_routes
from .recordings import Recordings
from .routes_alerts import alert_routes
from .routes_chat import chat_routes
from .routes_streams import stream_routes
from .sse import Followers
from .streams import Streams

_ABOUT = "Watches video streams for as long as they run, and answers questions about them at any moment."


def make_app(streams: Streams, config: ServeConfig, *, alerts: Alerts | None = None) -> FastAPI:
    """The service over one desk. That and the alerts are the caller's to enter and to close.

    Its state has `followers`; whoever ends the server lets these go first, for they stay as long as they like.

    alerts: None: of the config's rules, which nobody watches.
    Raises ValueError where the server may not be started as it is set.
    """
    followers, requests = Followers(streams), HttpMetrics()
    alerts = alerts or alerts_of(streams, config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        followers.start()
        try:
            yield
        finally:
            followers.end()
            recordings.close()
            gateway.close()

    recordings = Recordings(streams, config)
    gateway = Gateway(config.urls, num_redirects=config.limits.num_redirects)
    # No docs_url: those pages take their scripts from elsewhere.
    app = FastAPI(
        title="Millpond", description=_ABOUT, version=_version(), docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.state.followers = followers
    for router in (
        stream_routes(streams, config, followers, gateway),
        chat_routes(streams, config, recordings),
        alert_routes(alerts),
        health_routes(streams),
        metrics_route(streams, requests, AlertsCollector(alerts)),
        page_routes(),
    ):
        app.include_router(router)
    install_errors(app)
    install(app, config)
    app.add_middleware(requests.middleware)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def alerts_of(streams: Streams, config: ServeConfig) -> Alerts:
    """The alerts of a config's rules; entered, they are watched. ValueError for a rule that the model cannot know."""
    kept_at = config.server.dead_letters
    return Alerts(
        streams,
        config.alerts,
        model_name=config.engine.model,
        kept_at=None if kept_at is None else Path(kept_at),
        urls=config.urls,
    )


def _described(app: FastAPI) -> dict[str, Any]:
    """The description of the API: what FastAPI finds out, but that what does not fit is told with 400 here."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            found["components"]["schemas"].pop(name, None)
        app.openapi_schema = found
    return app.openapi_schema


def _version() -> str:
    try:
        return version("millpond")
    except PackageNotFoundError:
        return "unknown"

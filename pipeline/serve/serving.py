"""Serving: one process that listens, watches and answers until it is told to end, and then ends in order."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import uvicorn

from ...stream.redact import redact
from .app import alerts_of, make_app
from .config_file import ServeConfig
from .connections import uvicorn_settings
from .logs import configure_logs
from .streams import Streams

if TYPE_CHECKING:
    from types import FrameType

_log = logging.getLogger(__name__)

_BACKLOG = 512


def serve(
    config: ServeConfig,
    *,
    ray: str | None = None,
    num_workers: int = 1,
    on_listening: Callable[[str], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT. Then no connection and no question is taken any more, answers on their way have
    `grace_s` to end, sessions are flushed, and it returns.

    It listens before the model is loaded: /readyz says when it is.

    ray: "local", or the address of a cluster, where sources and models run; None: in this process.
    num_workers: processes with a model each, on Ray.
    on_listening: called with its address when it does.
    Raises ValueError, in one sentence, where it cannot listen, may not be started as it is set, or finds no model.
    """
    token = config.server.token
    configure_logs(
        level=config.server.log_level,
        secrets=[one.reveal().decode() for one in (token, *(rule.secret for rule in config.alerts)) if one is not None],
        uris=[entry.source for entry in config.streams],
    )
    with ExitStack() as ending:
        streams = Streams(config, ray=ray, num_workers=num_workers)
        alerts = alerts_of(streams, config)
        app = make_app(streams, config, alerts=alerts)
        listening = ending.enter_context(_listening(config.server.host, config.server.port))
        settings = uvicorn.Config(
            app,
            log_config=None,
            timeout_graceful_shutdown=config.server.grace_s,  # type: ignore[arg-type]
            **uvicorn_settings(config.limits),
        )
        server = Server(settings, streams)
        ending.enter_context(_told_to_end_by(server))
        ending.enter_context(streams)
        ending.enter_context(alerts)
        threading.Thread(target=server.end_where_hopeless, name="millpond hope", daemon=True).start()
        place = _address_of(listening)
        _log.info("listening at %s", place)
        if on_listening is not None:
            on_listening(place)
        server.run(sockets=[listening])
        _log.info("ending: sessions are flushed")
    if streams.load_problem is not None:
        raise ValueError(f"the model {config.engine.model!r} cannot be loaded: {streams.load_problem}")


class Server(uvicorn.Server):
    """uvicorn, which when it ends lets those go first that would stay, and takes no more questions."""

    def __init__(self, settings: uvicorn.Config, streams: Streams) -> None:
        super().__init__(settings)
        self._streams = streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.refuse()
        self.config.app.state.followers.end()  # type: ignore[union-attr]
        await super().shutdown(sockets)

    def end_where_hopeless(self) -> None:
        """Waits for the model, and ends the server where it never comes."""
        if not self._streams.wait_until_loaded() and self._streams.load_problem is not None:
            self.should_exit = True


@contextmanager
def _told_to_end_by(server: uvicorn.Server) -> Iterator[None]:
    """SIGTERM and SIGINT end the server, also before it runs; while it does they are uvicorn's, which raises them once
    more when it is done: that then ends nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"got [server] host {host!r} and port {port}, where nothing can listen: {redact(why)}; choose others"
        ) from None
    # asyncio sends at once (TCP_NODELAY) over what says that it is TCP's, which create_server's does not: an answer in
    # two parts would wait 40 ms for the other end's acknowledgement.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=listening.detach()) as named:
        yield named


def _address_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

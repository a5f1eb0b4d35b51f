"""A real server of the page alone, without what is behind it: for what its files and its scripts do by themselves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def page_server() -> Iterator[int]:
    """The port that it listens on."""
    import uvicorn
    from fastapi import FastAPI

    from millpond.pipeline.serve.page import page_routes

    app = FastAPI()
    app.include_router(page_routes())
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until_s = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < until_s, "the server does not start"
        time.sleep(0.02)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)

"""Health: /healthz, whether this process still does its work, and /readyz, whether all of it has begun."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, Literal, NamedTuple, Protocol

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from .schemas import errors
from .views import StreamState

_log = logging.getLogger(__name__)

# A turn holds one packed pass of the model: seconds on a GPU, and up to a minute for a large model on a CPU.
HANGS_AFTER_S = 120.0
_ANSWERS_WITHIN_S = 2.0


class Desk(Protocol):
    """What health asks of the desk. None of it waits for the hub's thread."""

    @property
    def is_loaded(self) -> bool: ...
    @property
    def load_problem(self) -> str | None: ...
    @property
    def is_closing(self) -> bool: ...
    @property
    def declared(self) -> tuple[str, ...]: ...
    @property
    def hub_turn_age_s(self) -> float | None: ...
    def states(self) -> list[StreamState]: ...


class LackOut(BaseModel):
    """Something that is not as it should be: what, and how it is."""

    what: str
    why: str


class HealthOut(BaseModel):
    """Whether all is well, and what is not."""

    service: Literal["millpond"] = "millpond"
    status: Literal["ok", "failing", "ready", "not ready"]
    problems: list[LackOut]


_UNWELL: dict[int | str, dict[str, Any]] = {503: {"model": HealthOut}}


class Lack(NamedTuple):
    """Something that is not as it should be: what, and how it is."""

    what: str
    why: str


def is_begun(state: StreamState) -> bool:
    """Whether a stream has shown a frame once, or never will."""
    return state.was_live or state.state in ("live", "ended", "failed")


def ailments(desk: Desk, *, hangs_after_s: float = HANGS_AFTER_S) -> list[Lack]:
    """Why this process should be started anew; empty where it does its work, or is about to begin or to end."""
    if desk.is_closing:
        return []
    if desk.load_problem is not None:
        return [Lack("model", "could not be loaded")]
    age_s = desk.hub_turn_age_s
    if age_s is None:
        return [Lack("hub", "its thread has ended")] if desk.is_loaded else []
    if age_s > hangs_after_s:
        return [Lack("hub", f"its thread hangs, for {age_s:.0f} s now")]
    return []


def lacks(desk: Desk, states: list[StreamState], *, hangs_after_s: float = HANGS_AFTER_S) -> list[Lack]:
    """What is not ready yet. A declared stream that was removed since is not waited for."""
    if desk.is_closing:
        return [Lack("server", "is shutting down")]
    missing = ailments(desk, hangs_after_s=hangs_after_s)
    if not desk.is_loaded and not missing:
        missing.append(Lack("model", "is being loaded"))
    declared = set(desk.declared)
    missing += [Lack(f"stream {s.id}", f"is {s.state}") for s in states if s.id in declared and not is_begun(s)]
    return missing


def health_routes(streams: Desk, *, hangs_after_s: float = HANGS_AFTER_S) -> APIRouter:
    """Both routes. They say what is not well, and no more: whoever asks need not have the token.

    hangs_after_s: how long the hub's thread may take for one turn.
    """
    if not hangs_after_s > 0:
        raise ValueError(f"hangs_after_s is more than 0; got {hangs_after_s}")
    router = APIRouter(tags=["operation"])
    asker = _Asker(streams)

    # Not in a thread of the pool: it has to answer when all of those are busy.
    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", response_model=HealthOut, responses={**errors(), **_UNWELL})
    async def healthz() -> JSONResponse:
        """Whether the process does its work: the hub's thread lives, and comes round."""
        return _told("ok", "failing", ailments(streams, hangs_after_s=hangs_after_s))

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", response_model=HealthOut, responses={**errors(), **_UNWELL})
    async def readyz() -> JSONResponse:
        """Whether the model is loaded, and every declared stream has connected once or failed for good."""
        shown = await asker.states(_ANSWERS_WITHIN_S)
        missing = lacks(streams, shown or [], hangs_after_s=hangs_after_s)
        if shown is None:
            missing.append(Lack("streams", "do not say how they are"))
        return _told("ready", "not ready", missing)

    return router


class _Asker:
    """Asks the desk how its streams are, in one thread at a time: where it hangs, questions about that must not take
    all the threads that there are. Used by one event loop."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._asked: Future[list[StreamState] | None] | None = None

    async def states(self, timeout_s: float) -> list[StreamState] | None:
        """None: the desk does not say."""
        if self._asked is None or self._asked.done():
            self._asked = Future()
            Thread(target=self._ask, args=(self._asked,), name="millpond readiness", daemon=True).start()
        with suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._asked)), timeout_s)
        return None

    def _ask(self, asked: Future[list[StreamState] | None]) -> None:
        states = None
        try:
            states = self._desk.states()
        except Exception:  # noqa: BLE001 - that the desk cannot say is an answer too
            _log.exception("the streams do not say how they are")
        asked.set_result(states)


def _told(well: str, unwell: str, missing: list[Lack]) -> JSONResponse:
    body = {"service": "millpond", "status": unwell if missing else well, "problems": [m._asdict() for m in missing]}
    return JSONResponse(body, status_code=503 if missing else 200, headers={"Cache-Control": "no-store"})

"""Errors as the API tells them: {"error": {"message", "type", "param", "code"}}, as clients of OpenAI's know them."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ...stream import SourceError
from ...stream.redact import redact
from ..hub_events import HubStopped
from ..question import NothingRemembered, NothingSeen
from .views import NoStream, NotReady, StreamTaken, TooMany

_log = logging.getLogger(__name__)

_MAX_CHARS = 1000
_RETRY_S = {429: "1", 503: "2"}
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_KINDS: dict[type[Exception], tuple[int, str]] = {
    # What an exception is told as, the most exact kind first.
    NoStream: (404, "stream_not_found"),
    StreamTaken: (409, "stream_exists"),
    TooMany: (429, "too_many"),
    NotReady: (503, "not_ready"),
    NothingSeen: (503, "nothing_seen"),
    HubStopped: (503, "stopped"),
    NothingRemembered: (400, "nothing_remembered"),
    SourceError: (400, "bad_source"),
    ConnectionError: (400, "no_source"),
    ValueError: (400, "bad_request"),
}


class ApiError(Exception):
    """What a route refuses, and how that is told. message: for a client's eyes; credentials are masked."""

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


def told(status: int, message: str, *, code: str | None, param: str | None = None) -> dict[str, Any]:
    """The body of an error."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": redact(message)[:_MAX_CHARS], "type": kind, "param": param, "code": code}}


def error_of(error: BaseException) -> ApiError:
    """How an exception is told; what nobody foresaw is not shown to a client."""
    if isinstance(error, ApiError):
        return error
    for kind, (status, code) in _KINDS.items():
        if isinstance(error, kind):
            return ApiError(status, str(error), code=code)
    _log.error("a request failed", exc_info=error)
    return ApiError(500, "something went wrong in the server; its log says what", code="internal_error")


def answer_of(error: BaseException) -> JSONResponse:
    """The response that tells it."""
    shown = error_of(error)
    headers = {"Retry-After": _RETRY_S[shown.status]} if shown.status in _RETRY_S else None
    body = told(shown.status, str(shown), code=shown.code, param=shown.param)
    return JSONResponse(body, shown.status, headers=headers)


def install_errors(app: FastAPI) -> None:
    """From now on, all that goes wrong in the app's routes is told in this form."""

    def any_error(request: Request, error: Exception) -> JSONResponse:
        return answer_of(error)

    def unreadable(request: Request, error: Any) -> JSONResponse:
        # Where several forms are possible, the one that fits furthest says best what is wrong.
        found = max(error.errors(), key=lambda one: len(one["loc"]))
        where = ".".join(map(str, found["loc"][1:] or found["loc"]))[:200]
        message = f"{where}: {found['msg']}" if where else found["msg"]
        return JSONResponse(told(400, message, code="bad_request", param=where or None), 400)

    def refused(request: Request, error: Any) -> JSONResponse:
        message = str(error.detail)
        if error.status_code == 404:
            message = f"there is nothing at {request.url.path[:200]}; the routes are at /openapi.json"
        elif error.status_code == 405:
            message = f"{request.method[:20]} does not go with {request.url.path[:200]}"
        body = told(error.status_code, message, code=None)
        return JSONResponse(body, error.status_code, headers=error.headers)

    app.add_exception_handler(RequestValidationError, unreadable)
    app.add_exception_handler(HTTPException, refused)
    kinds: tuple[type[Exception], ...] = (ApiError, *_KINDS)
    for kind in kinds:
        app.add_exception_handler(kind, any_error)
    app.add_exception_handler(Exception, any_error)

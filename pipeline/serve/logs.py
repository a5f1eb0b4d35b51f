"""Logs of the server: one JSON object a line on standard error, credentials masked in all of them."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote

import structlog

from ...stream.redact import redact

_MASK = "***"
_MAX_CHARS = 16_384  # of one value: a traceback fits, a picture or a whole answer of some server does not
_MAX_DEPTH = 6
_SECRET_KEY = re.compile(r"pass|pwd|secret|token$|api_?key|authorization|signature|credential|cookie", re.IGNORECASE)
_BEARER = re.compile(r"(\bbearer\s+|\bauthorization[\"']?\s*[:=]\s*[\"']?)(?!bearer\b)[^\s\"',]+", re.IGNORECASE)
# Shorter ones would mask half of every sentence, and are no secret.
_LEAST_SECRET_CHARS = 4

_log = logging.getLogger(__name__)


def configure_logs(
    *, level: str = "info", secrets: Iterable[str] = (), uris: Iterable[str] = (), to: TextIO | None = None
) -> None:
    """From now on all that this process logs goes there as JSON lines; for the program that serves, and for it alone.

    Keys of a line: time (RFC 3339, UTC), level, logger, event; request_id and the like where a request is behind it;
    method, path, status and client of a request; exception where there is one. A request that only reads and succeeds
    is for debugging: pages and monitors make several a second. What ends a thread, or the program, is logged too.

    secrets: what appears in no line, whatever it looks like: the server's token, the webhooks' secrets.
    uris: addresses with credentials that are in play; others are found by their looks.
    to: by default standard error.
    """
    levels = logging.getLevelNamesMapping()
    if level.upper() not in levels:
        raise ValueError(f"a level is one of debug, info, warning, error; got {level!r}")
    handler = _Handler(sys.stderr if to is None else to)
    handler.addFilter(_Requests())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.contextvars.merge_contextvars],
            processors=[
                _place_and_time,
                _request_fields,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                Redactor(secrets, uris),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(levels[level.upper()])
    _quiet_libraries()
    logging.captureWarnings(True)
    sys.excepthook = _tell_of_the_end
    threading.excepthook = _tell_of_a_thread


class Redactor:
    """A processor of structlog's: masks credentials in every text of a line, keys and nested values included."""

    def __init__(self, secrets: Iterable[str] = (), uris: Iterable[str] = ()) -> None:
        given = {secret for secret in secrets if len(secret) >= _LEAST_SECRET_CHARS}
        spelled = given | {quote(secret, safe="") for secret in given} | {json.dumps(secret)[1:-1] for secret in given}
        self._secrets = sorted(spelled, key=len, reverse=True)  # the longest first: one may hold another
        self._uris = tuple(uris)

    def __call__(self, logger: Any, method: str, line: Mapping[str, Any]) -> dict[str, Any]:
        return {self.clean(str(key)): self._masked(str(key), value, 0) for key, value in line.items()}

    def clean(self, text: str) -> str:
        """The text without credentials, at most as long as a line can bear."""
        if len(text) > _MAX_CHARS:
            text = f"{text[: _MAX_CHARS // 2]} ... {text[-_MAX_CHARS // 2 :]}"
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        return _BEARER.sub(rf"\1{_MASK}", redact(text, *self._uris))

    def _masked(self, key: str, value: Any, depth: int) -> Any:
        if _SECRET_KEY.search(key) and value is not None:
            return _MASK
        if value is None or isinstance(value, bool | int | float):
            return value
        if depth < _MAX_DEPTH and isinstance(value, Mapping):
            return {self.clean(str(name)): self._masked(str(name), one, depth + 1) for name, one in value.items()}
        if depth < _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
            return [self._masked("", one, depth + 1) for one in value]
        return self.clean(value if isinstance(value, str) else repr(value))


def _quiet_libraries() -> None:
    """Those that print lines and bars of their own say what they have to say here, or nothing."""
    try:
        from huggingface_hub.utils import disable_progress_bars
        from transformers.utils import logging as transformers_logging
    except ImportError:
        _log.debug("transformers is not there to be quieted")
    else:
        disable_progress_bars()
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
    for name in ("transformers", "huggingface_hub", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


class _Handler(logging.StreamHandler[TextIO]):
    """A line that cannot be made says so in its place, and does not show its arguments."""

    def handleError(self, record: logging.LogRecord) -> None:
        line = {"level": "error", "logger": record.name, "event": "a line of the log could not be written"}
        try:
            self.stream.write(json.dumps(line) + self.terminator)
            self.flush()
        except (OSError, ValueError):
            return  # nobody reads the log any more; the server goes on


class _Requests(logging.Filter):
    """Takes what uvicorn says of a request apart, and leaves out those that only read and succeed."""

    def filter(self, record: logging.LogRecord) -> bool:
        request = _request_of(record)
        if request is None:
            return True
        record.request = request
        is_plain = request["method"] in ("GET", "HEAD") and request["status"] < 400
        return not is_plain or logging.getLogger().isEnabledFor(logging.DEBUG)


def _request_of(record: logging.LogRecord) -> dict[str, Any] | None:
    """What uvicorn says of a request; without its query, which is the client's own affair."""
    if record.name != "uvicorn.access" or not isinstance(record.args, tuple) or len(record.args) != 5:
        return None
    client, method, path, _, status = record.args
    if not isinstance(status, int):
        return None
    return {"method": str(method), "path": str(path).partition("?")[0], "status": int(status), "client": str(client)}


def _place_and_time(logger: Any, method: str, line: dict[str, Any]) -> dict[str, Any]:
    record: logging.LogRecord = line["_record"]
    created = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": created, "level": record.levelname.lower(), "logger": record.name, **line}


def _request_fields(logger: Any, method: str, line: dict[str, Any]) -> dict[str, Any]:
    request = getattr(line["_record"], "request", None)
    return line if request is None else {**line, "event": "request", **request}


def _tell_of_the_end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    _log.critical("the program ends with an error", exc_info=(kind, error, trace))


def _tell_of_a_thread(what: threading.ExceptHookArgs) -> None:
    if what.exc_value is not None:
        name = "?" if what.thread is None else what.thread.name
        _log.error("thread %r ends with an error", name, exc_info=(what.exc_type, what.exc_value, what.exc_traceback))

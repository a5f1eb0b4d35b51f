"""Logs: every line is one JSON object, whatever was said, and no credential is in any of them."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("structlog")

from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.pipeline.serve.logs import Redactor, configure_logs

SECRET = "t0p-S3CRET/word"


class Log:
    """What was logged so far, line by line."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.handlers: list[logging.Handler] = []

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@contextmanager
def logging_to(found: Log, **settings: Any) -> Iterator[None]:
    """The process's logs, as a server has them; as they were afterwards."""
    names = ("", "uvicorn", "uvicorn.error", "uvicorn.access", "transformers", "huggingface_hub")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    hooks = sys.excepthook, threading.excepthook
    try:
        for logger in loggers[1:4]:  # uvicorn's: another test's server may have set them
            logger.setLevel(logging.NOTSET)
        with warnings.catch_warnings():
            configure_logs(to=found.stream, **settings)
            found.handlers = loggers[0].handlers[:]
            yield
    finally:
        logging.captureWarnings(False)
        sys.excepthook, threading.excepthook = hooks
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)


@pytest.fixture
def log() -> Iterator[Log]:
    found = Log()
    with logging_to(found, secrets=[SECRET, "x"], uris=["rtsp://u:pass word@cam/a"]):
        yield found


def test_a_line_says_when_how_grave_who_and_what(log: Log) -> None:
    logging.getLogger("millpond.x").warning("stream %r is back after %.1f s", "door", 2)
    logging.getLogger("millpond.x").debug("not at this level")
    (line,) = log.lines()
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "logger": "millpond.x", "event": "stream 'door' is back after 2.0 s"}


def test_an_exception_is_in_its_line(log: Log) -> None:
    try:
        raise ValueError(f"no door at rtsp://admin:{SECRET}@cam/main")
    except ValueError:
        logging.getLogger("x").exception("it failed")
    (line,) = log.lines()
    assert "Traceback" in line["exception"] and "rtsp://***@cam/main" in line["exception"]
    assert SECRET not in log.text


def test_a_request_is_told_in_fields_and_without_its_query(log: Log) -> None:
    access = logging.getLogger("uvicorn.access")
    say = '%s - "%s %s HTTP/%s" %d'
    access.info(say, "127.0.0.1:5", "POST", "/v1/streams?token=abcdef", "1.1", 201)
    access.info(say, "127.0.0.1:5", "GET", "/v1/streams/a/snapshot.jpg", "1.1", 200)
    access.info(say, "127.0.0.1:5", "GET", "/v1/streams/b?x=1", "1.1", 404)
    made, missed = log.lines()  # what only reads, and succeeds, is for debugging
    assert made["event"] == "request" and "abcdef" not in log.text
    assert [made[key] for key in ("method", "path", "status", "client")] == ["POST", "/v1/streams", 201, "127.0.0.1:5"]
    assert (missed["path"], missed["status"]) == ("/v1/streams/b", 404)


def test_a_line_that_cannot_be_made_says_so_and_does_not_show_its_arguments(log: Log) -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError(SECRET)

    logging.getLogger().handlers[:] = log.handlers  # pytest's own, which come with a test, raise
    logging.getLogger("x").warning("%d", SECRET)
    logging.getLogger("x").warning("%r", Unprintable())
    assert [line["event"] for line in log.lines()] == ["a line of the log could not be written"] * 2
    assert SECRET not in log.text


def test_what_is_bound_to_a_request_is_in_its_lines(log: Log) -> None:
    import structlog

    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        logging.getLogger("x").info("one")
    logging.getLogger("x").info("two")
    assert [line.get("request_id") for line in log.lines()] == ["r-1", None]


@settings(max_examples=100)
@given(text=st.text(max_size=60), where=st.sampled_from(["{}", "a {} b", "rtsp://u:{}@h/p", "x={}"]))
def test_whatever_is_said_is_one_line_of_ascii(text: str, where: str) -> None:
    found = Log()
    with logging_to(found):
        logging.getLogger("x").error(where.replace("{}", "%s"), text)
    assert found.text.count("\n") == 1 and found.text.isascii() and found.text[:-1].isprintable()
    assert len(found.lines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"wrong token {SECRET!r}",
        "t0p-S3CRET%2Fword",
        f"Authorization: Bearer {SECRET}x",
        "authorization: Bearer another-S3CRET",
        "{'authorization': 'Bearer another-S3CRET'}",
        "bearer another-S3CRET",
        "rtsp://admin:S3CRET@cam.local/main",
        "redis://:S3CRET@host:6379/0 cannot be reached",
        "https://host/x?api_key=S3CRET&y=1",
        "cannot connect to rtsp://u:pass word@cam/a at all",
    ],
)
def test_credentials_are_masked_wherever_they_stand(text: str) -> None:
    mask = Redactor([SECRET], ["rtsp://u:pass word@cam/a"])
    line = mask(None, "info", {"event": text, "more": {text: [text, (text,)], "x": {"y": {"z": text}}}, "o": Odd(text)})
    shown = json.dumps(line)
    assert "S3CRET" not in shown and "pass word" not in shown, shown
    assert "***" in line["event"]


class Odd:
    """Something that is no JSON, and shows all it has."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"Odd({self.text})"


def test_fields_that_are_secret_by_name_are_masked_and_others_are_left() -> None:
    line = Redactor()(None, "info", {"password": "abc", "api_key": 5, "num_tokens": 5, "event": "the token is wrong"})
    assert line == {"password": "***", "api_key": "***", "num_tokens": 5, "event": "the token is wrong"}


def test_a_value_as_long_as_a_book_is_cut() -> None:
    line = Redactor()(None, "info", {"event": "x" * 10**6})
    assert len(line["event"]) < 20_000


def test_a_wrong_level_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a level is one of .*; got 'loud'"):
        configure_logs(level="loud")


def test_what_ends_a_thread_or_the_program_or_warns_is_a_line_too() -> None:
    code = """
import threading, warnings
from millpond.pipeline.serve.logs import configure_logs
configure_logs(secrets=["S3CRET"])
warnings.warn("old S3CRET", stacklevel=1)
def fail(): raise OSError("redis://:S3CRET@host")
thread = threading.Thread(target=fail, name="worker"); thread.start(); thread.join()
raise RuntimeError("S3CRET")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    warned, thread, end = map(json.loads, done.stderr.splitlines())
    assert warned["logger"] == "py.warnings" and "UserWarning: old ***" in warned["event"]
    assert (
        thread["event"] == "thread 'worker' ends with an error" and "OSError: redis://***@host" in thread["exception"]
    )
    assert end["level"] == "critical" and "RuntimeError: ***" in end["exception"]
    assert "S3CRET" not in done.stderr

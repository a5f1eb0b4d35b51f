"""Sources: whether each stream of the config shows a picture."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from typing import Any

from ...stream import Frame, Source, SourceError, SourceLost, redact_uri
from ...stream.source import SourceStalled, source_kind
from ..stream_spec import StreamSpec
from .finding import Finding

_AT_ONCE = 16


def check_sources(specs: Sequence[StreamSpec], *, patience_s: float) -> Iterator[Finding]:
    """Opens all of them at once, as the server will, and waits for a picture of each."""
    if not specs:
        return
    openers = ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(specs)), thread_name_prefix="millpond doctor")
    try:
        looking = [openers.submit(check_source, spec, patience_s=patience_s) for spec in specs]
        for one in looking:
            yield one.result()
    finally:
        openers.shutdown(wait=False, cancel_futures=True)


def check_source(spec: StreamSpec, *, patience_s: float) -> Finding:
    """Whether it opens, and shows a picture within the time it is given."""
    name = f"stream {spec.stream_id}"
    shown: Future[tuple[Frame | None, Exception | None]] = Future()
    opened: list[Source] = []
    began_s = time.monotonic()
    # A thread of its own: a disk or a driver that hangs must not hang the doctor.
    threading.Thread(target=_look, args=(spec, patience_s, opened, shown), name=name, daemon=True).start()
    try:
        frame, problem = shown.result(2 * patience_s + 1)  # to connect, and to send the first picture
    except TooLate:
        frame, problem = None, SourceStalled(f"it shows no picture within {2 * patience_s:g} s")
    finally:
        for source in opened:
            source.close()
    took_s = time.monotonic() - began_s
    if frame is not None:
        height, width = frame.rgb_HW3.shape[:2]
        return Finding(
            name, "ok", f"{redact_uri(spec.uri)} shows {width}x{height}, the first picture after {took_s:.1f} s"
        )
    return Finding(name, "fail", str(problem), _what_to_do(spec, problem))


def _look(
    spec: StreamSpec, patience_s: float, opened: list[Source], shown: Future[tuple[Frame | None, Exception | None]]
) -> None:
    try:
        options: dict[str, Any] = {}
        if source_kind(spec.uri) == "live":
            options = {"open_timeout_s": patience_s, "read_timeout_s": patience_s, "reconnects": 0, "must_answer": True}
        opened.append(spec.open(**options))
        frame = next(iter(opened[0]), None)
        problem = None if frame is not None else SourceError(f"{redact_uri(spec.uri)} ends without a picture")
        shown.set_result((frame, problem))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what was found
        shown.set_result((None, error))


def _what_to_do(spec: StreamSpec, problem: Exception | None) -> str:
    kind = source_kind(spec.uri)
    if kind == "live" and isinstance(problem, SourceStalled):
        return (
            "see whether others watch the camera already, and try its other stream, or transport = 'udp' in its options"
        )
    if kind == "live" and isinstance(problem, SourceLost):
        return "see that it is on, that host and port are right, and that no firewall is between: nc -vz HOST PORT"
    if kind == "live":
        return "mend its source: user, password and path; the camera's manual or an ONVIF tool tells them"
    if kind in ("file", "folder"):
        return "mend its source, or give this user the right to read it"
    return "mend its source or its options"

"""`millpond watch`: many streams at once, narrated and asked while they run."""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol, TextIO
from urllib.parse import quote, urlsplit

from ..stream import Source, SourceError, SourceLost, redact_uri
from ..stream.source import source_kind
from .answer import Answer
from .config import EngineConfig
from .hub_events import HubEvent, Narrated
from .output import StreamPrinter, complain
from .question import Question
from .stream_spec import StreamSpec
from .watch import question_lines, read_question

_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.\-]*)=(.+)", re.DOTALL)
# How long the last answers may take when everything else is over.
_LAST_ANSWERS_S = 120.0


class Streams(Protocol):
    """What watches the streams: a hub of this process, or a cluster."""

    def ask(self, stream_id: str, question: Question) -> Future[Answer]: ...

    def wait_until_ended(self, timeout_s: float | None = None) -> bool: ...

    def close(self) -> None: ...


class Asked(NamedTuple):
    """A question of a file or of standard input, and whom it is put to; None: every stream."""

    stream_id: str | None
    question: Question


def specs_of(
    sources: Sequence[str],
    *,
    question: str | None = None,
    narrate: bool = True,
    memory: str | None = None,
    as_live: bool = False,
) -> list[StreamSpec]:
    """Streams of the command line's sources: NAME=SOURCE, or a SOURCE that is named after its place.

    memory: a folder, in which each stream gets one of its own, or a redis:// address, where its name keeps it apart.
    """
    specs: list[StreamSpec] = []
    for given in sources:
        named = None if Path(given).exists() else _NAMED.fullmatch(given)
        uri = given if named is None else named[2]
        name = _name_of(uri) if named is None else named[1]
        taken = {spec.stream_id for spec in specs}
        if named is not None and name in taken:
            raise ValueError(f"two sources are named {name!r}; got {redact_uri(uri)!r} as well; give each its own name")
        stream_id = next(n for n in _numbered(name) if n not in taken)
        place = memory
        if memory is not None and "://" not in memory:
            place = str(Path(memory) / quote(stream_id, safe=" "))
        specs.append(StreamSpec(stream_id, uri, question, narrate, place, as_live=as_live))
    return specs


def watch_streams(
    specs: Sequence[StreamSpec],
    settings: EngineConfig,
    *,
    as_json: bool = False,
    for_s: float | None = None,
    questions: Path | None = None,
    ray: str | None = None,
    num_workers: int = 1,
) -> None:
    """Watches until all streams have ended, `for_s` seconds have passed, or it is interrupted.

    questions: a file of JSON lines that are asked at the end; "-": standard input, asked as they come.
    ray: "local", or the address of a cluster; None: this process alone.
    """
    if for_s is not None and not for_s > 0:
        raise ValueError(f"--for takes a number of seconds above 0; got {for_s}")
    listens = questions is not None and str(questions) == "-"
    known = {spec.stream_id for spec in specs}
    last = list(read_asked(question_lines(questions), str(questions), known)) if questions and not listens else []
    printer = StreamPrinter(as_json=as_json)

    def tell(event: HubEvent) -> None:
        if isinstance(event, Narrated):
            printer.narration(event.stream_id, event.narration)
        else:
            printer.ended(event.stream_id, event.problem)

    if ray is None:
        opened = _here(specs, settings, tell)
    else:
        from .watch_on_ray import on_ray

        opened = on_ray(specs, settings, tell, address=ray, num_workers=num_workers)
    with opened as streams, _terminated_is_interrupted():
        answers = _Answers(streams, printer, sorted(known))
        if listens:
            threading.Thread(target=answers.listen, args=(sys.stdin,), name="millpond questions", daemon=True).start()
        ends_at_s = float("inf") if for_s is None else time.monotonic() + for_s
        try:
            while time.monotonic() < ends_at_s and not streams.wait_until_ended(min(0.5, ends_at_s - time.monotonic())):
                pass
            for asked in last:
                answers.ask(asked)
            answers.wait(_LAST_ANSWERS_S)
        except KeyboardInterrupt:
            complain("interrupted; the streams end here")


def read_asked(lines: Iterable[str], where: str, known: set[str]) -> Iterator[Asked]:
    """Questions from lines: a JSON object with `question`, and optionally `stream`, `since_s` and `until_s`; or plain
    words, with the stream's name and a colon before them where they are for one stream only.

    Raises ValueError that names the line.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield read_one(line, f"{where}:{number}", known)


def read_one(line: str, where: str, known: set[str]) -> Asked:
    """One line of `read_asked`."""
    stream_id: str | None = None
    if line.lstrip().startswith("{"):
        question, stream_id = read_question(line, where, also="stream")
        if question.at_s is not None:
            raise ValueError(
                f"{where}: watch asks at once; got at_s={question.at_s}; leave it out, or use millpond ask"
            )
    else:
        name, colon, words = line.partition(":")
        is_named = bool(colon) and name.strip() in known
        stream_id = name.strip() if is_named else None
        question = Question((words if is_named else line).strip())
    if stream_id is not None and stream_id not in known:
        raise ValueError(f"{where}: there is no stream {stream_id!r}; there are: {', '.join(sorted(known))}")
    return Asked(stream_id, question)


class _Answers:
    """Questions on their way, and their answers printed as they come."""

    def __init__(self, streams: Streams, printer: StreamPrinter, stream_ids: Sequence[str]) -> None:
        self._streams, self._printer, self._stream_ids = streams, printer, stream_ids
        self._changed = threading.Condition()
        self._num_open = 0

    def listen(self, lines: TextIO) -> None:
        """Asks each line as it comes; a line that makes no sense is told of."""
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                self.ask(read_one(line, f"line {number}", set(self._stream_ids)))
            except ValueError as error:
                complain(error)

    def ask(self, asked: Asked) -> None:
        for stream_id in self._stream_ids if asked.stream_id is None else (asked.stream_id,):
            with self._changed:
                self._num_open += 1
            future = self._streams.ask(stream_id, asked.question)
            future.add_done_callback(lambda done, of=stream_id: self._show(of, asked.question, done))  # type: ignore[misc]

    def wait(self, timeout_s: float) -> None:
        """Until all that was asked is answered."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._num_open, timeout_s):
                complain(f"{self._num_open} questions were not answered within {timeout_s:g} s")

    def _show(self, stream_id: str, question: Question, done: Future[Answer]) -> None:
        error = done.exception()
        if error is None:
            self._printer.answer(stream_id, done.result())
        else:
            complain(f"{question.text!r} is not answered by {stream_id}: {error}")
        with self._changed:
            self._num_open -= 1
            self._changed.notify_all()


@contextmanager
def _here(specs: Sequence[StreamSpec], settings: EngineConfig, tell: Callable[[HubEvent], None]) -> Iterator[Streams]:
    """A hub of this process. Sources are opened first, because that fails fastest."""
    from transformers.utils import logging as transformers_logging

    from .engine import Engine
    from .feeds import SourceFeed
    from .hub import Hub

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    with ExitStack() as failing:
        with ThreadPoolExecutor(max_workers=min(32, len(specs))) as openers:
            opening = [openers.submit(_opened, spec) for spec in specs]
        for one in opening:
            if one.exception() is None:
                failing.callback(one.result().close)
        feeds = [SourceFeed(one.result(), fps=settings.fps) for one in opening]
        engine = Engine(settings)
        failing.pop_all()  # the hub closes them from now on
    with engine, Hub(engine, on_event=tell) as hub:
        added = [
            hub.add(feed, question=spec.question, narrate=spec.narrate, at=spec.memory)
            for feed, spec in zip(feeds, specs, strict=True)
        ]
        for future in added:
            future.result()
        yield hub


def _opened(spec: StreamSpec) -> Source:
    """The source. A peer that is not there is waited for: the others are watched meanwhile."""
    try:
        return spec.open()
    except SourceLost as error:
        complain(f"{error}; {spec.stream_id} is tried again until it answers")
        return spec.open(must_answer=False)


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """Whoever asks the program to end, as service managers do, lets it flush first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _name_of(uri: str) -> str:
    """What a source is called where nobody named it: host and path of an address, the name of a file."""
    if source_kind(uri) in ("file", "folder"):
        return Path(uri).stem or "stream"
    try:
        parts = urlsplit(redact_uri(uri))
        name = f"{parts.netloc.rpartition('@')[2]}{parts.path}".strip("/")
    except ValueError as error:
        raise SourceError(f"{redact_uri(uri)} is no address; wanted scheme://host:port/path") from error
    return name[:200] or "stream"


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1

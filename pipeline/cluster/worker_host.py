"""WorkerHost: what runs in a model worker: one engine, its weights loaded once, and a hub that serves many streams."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from ...stream import redact
from ..answer import Answer
from ..config import EngineConfig
from ..engine import Engine
from ..hub import Hub
from ..hub_events import HubEvent, HubStopped
from ..hub_stream import StreamStats
from ..question import Question
from ..shown import Overlay, Picture, kept_near, nearer, overlay_of, shot_of
from ..stream_spec import StreamSpec
from .event_ring import EventRing
from .names import find_actor, source_name
from .remote_feed import RemoteFeed

_log = logging.getLogger(__name__)


class NotHere(LookupError):
    """The worker cannot say anything of this stream now, but it or another one will: ask again."""


class Heard(NamedTuple):
    """Made by a WorkerHost, read by `Cluster`: what happened since it was asked last.

    incarnation: of the process; another one numbers its events from 1 again.
    last: number of the newest event, to ask from next time.
    """

    incarnation: str
    events: tuple[HubEvent, ...]
    last: int
    num_lost: int


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """Made by a WorkerHost, read by the supervisor: what it carries.

    node_id: the machine, as Ray calls it.
    streams: those that are open, and their states.
    problem: why it can never work, in a sentence; None where it can.
    """

    incarnation: str
    node_id: str
    pid: int
    streams: Mapping[str, str]
    problem: str | None


class WorkerHost:
    """Holds an engine and a hub. All methods are coroutines of one loop: none waits for another.

    A model that cannot be loaded as it was asked for does not end the process: it is said in `report`, so that nobody
    starts it again and again.
    """

    def __init__(self, config: EngineConfig, namespace: str, num_threads: int | None = None) -> None:
        """num_threads: of the CPU, for the model; None: as many as Ray says."""
        self._incarnation = uuid.uuid4().hex[:12]
        self._namespace = namespace
        self._events: EventRing[HubEvent] = EventRing()
        self._opening: set[str] = set()
        self._problem: str | None = None
        self._hub: Hub | None = None
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        try:
            engine = Engine(config)
        except (ValueError, ImportError) as error:
            self._problem = redact(str(error))
            _log.warning("the model %s cannot be loaded: %s", config.model, self._problem)
            return
        self._hub = Hub(engine, on_event=self._events.put).start()

    async def add(self, spec: StreamSpec) -> None:
        """Opens the stream's session and begins to take its frames; nothing happens where that is done already.

        Raises as `Engine.session` does: where another process still holds its memory, it may be asked again.
        """
        hub = self._running()
        if spec.stream_id in self._opening or spec.stream_id in hub.stats():
            return
        feed = RemoteFeed(spec.stream_id, partial(find_actor, source_name(spec.stream_id), self._namespace))
        self._opening.add(spec.stream_id)
        try:
            await asyncio.wrap_future(hub.add(feed, question=spec.question, narrate=spec.narrate, at=spec.memory))
        finally:
            self._opening.discard(spec.stream_id)

    async def remove(self, stream_id: str) -> None:
        """Ends the stream here: what it knows is brought to rest where that outlives the process."""
        hub = self._running()
        if stream_id in hub.stats():
            await asyncio.wrap_future(hub.remove(stream_id))

    async def ask(self, stream_id: str, question: Question) -> Answer:
        """Answers from what was taken of the stream; where that is nothing yet, when there is something.

        Raises:
            NotHere: another worker has the stream, or nothing of it was seen yet.
        """
        *_, answer = [told async for told in self.ask_along(stream_id, question)]
        assert isinstance(answer, Answer)
        return answer

    async def ask_along(self, stream_id: str, question: Question) -> AsyncIterator[str | Answer]:
        """As `ask`, with the text so far before the answer, as it grows."""
        hub = self._running()
        before = hub.stats().get(stream_id)
        if before is None:
            raise NotHere(f"stream {stream_id!r} is not carried here")
        news: asyncio.Queue[str | None] = asyncio.Queue()  # None: it is over
        loop = asyncio.get_running_loop()

        def hear(text: str | None) -> None:
            loop.call_soon_threadsafe(news.put_nowait, text)

        asked: Future[Answer] | None = None
        try:
            asked = hub.ask(stream_id, question, on_text=hear)
            asked.add_done_callback(lambda _: hear(None))
            while (text := await news.get()) is not None:
                yield text
            yield asked.result(0)
        except HubStopped as error:
            raise NotHere(f"stream {stream_id!r} is not carried here any more: {error}") from error
        except ValueError as error:
            # Its first frame was on its way; by now it may be there.
            if not before.num_processed and before.state != "ended":
                raise NotHere(str(error)) from error
            raise
        finally:
            if asked is not None:
                asked.cancel()  # where nobody waits any more

    async def events(self, incarnation: str, after: int, wait_s: float) -> Heard:
        """What happened after the event of that number of that process; waits up to `wait_s` for something to."""
        after = after if incarnation == self._incarnation else 0
        return Heard(self._incarnation, *await self._events.wait_since(after, wait_s))

    async def snapshot(self, stream_id: str) -> Picture | None:
        """A stream's newest frame."""
        sight = self._running().sight(stream_id)
        if sight is None or sight.newest is None:
            return None
        return await asyncio.to_thread(shot_of, sight.newest)

    async def frame(self, stream_id: str, time_s: float) -> Picture | None:
        """The picture of a stream that was kept nearest to a moment, or the newest where that is nearer."""
        hub = self._running()
        kept = await asyncio.wrap_future(hub.look(stream_id, partial(kept_near, time_s=time_s)))
        sight = hub.sight(stream_id)
        return await asyncio.to_thread(nearer, kept, None if sight is None else sight.newest, time_s, shot_of)

    async def overlay(self, stream_id: str) -> Overlay | None:
        """What was done for a stream's newest frame that was encoded."""
        return overlay_of(self._running().sight(stream_id))

    async def stats(self) -> dict[str, StreamStats]:
        """How its streams are doing."""
        return {} if self._hub is None else self._hub.stats()

    async def report(self) -> WorkerReport:
        """What it carries. A hub that gave up ends the process: what follows is another, with all streams."""
        import ray

        if self._hub is not None:
            try:
                self._hub.wait_until_ended(0)
            except HubStopped as error:
                _log.error("the worker ends: %s", error)
                os._exit(1)
        streams = {} if self._hub is None else {name: one.state for name, one in self._hub.stats().items()}
        node_id = ray.get_runtime_context().get_node_id()
        return WorkerReport(self._incarnation, node_id, os.getpid(), streams, self._problem)

    async def close(self) -> None:
        """Ends all streams; what they know is brought to rest where that outlives the process."""
        if self._hub is not None:
            await asyncio.to_thread(self._hub.close)

    def _running(self) -> Hub:
        if self._hub is None:
            raise ValueError(self._problem or "the worker has no model; see its log")
        return self._hub

"""Recordings: videos that questions name by their address: brought here, watched to their end, kept for a while."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import logging
import shutil
import tempfile
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import unquote_to_bytes

import anyio

from ...stream.source import source_kind
from .config_file import ServeConfig
from .errors import ApiError
from .fetch import WEB, Web
from .streams import Streams
from .url_guard import checked_source
from .views import NoStream, StreamEntry, StreamState, TooMany

_log = logging.getLogger(__name__)

_MOST = 4  # kept, or being watched
_LOOK_S = 0.05
_OVER = ("ended", "failed")


class Recordings:
    """The videos that were asked about last, as streams that are on no list. Belongs to the event loop.

    url -> checked -> fetched to a file of ours -> watched to its end -> asked, and asked again
    """

    def __init__(self, streams: Streams, config: ServeConfig) -> None:
        self._streams, self._config = streams, config
        limits = config.limits
        self._web = Web(rules=config.urls, num_redirects=limits.num_redirects, total_s=limits.download_s)
        self._fetching = anyio.CapacityLimiter(_MOST)
        self._known: OrderedDict[str, asyncio.Task[str]] = OrderedDict()
        self._folder: Path | None = None

    def close(self) -> None:
        """Lets all of them go; may be called again."""
        for task in self._known.values():
            task.cancel()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def watched(self, url: str) -> str:
        """The stream of the video at `url`, which has been watched to its end; the same as before, where it has been.

        Raises what `checked_source`, `Web.fetch` and `Streams.add` raise, and ApiError.
        """
        key = hashlib.sha256(url.encode(errors="surrogatepass")).hexdigest()[:32]
        task = self._known.get(key)
        if task is not None and _has_failed(task):
            del self._known[key]
            task = None
        if task is None:
            await self._make_room()
            task = self._known[key] = asyncio.create_task(self._watch(key, url))
        self._known.move_to_end(key)
        # One who goes does not take it from the others.
        return await asyncio.shield(task)

    async def _make_room(self) -> None:
        while len(self._known) >= _MOST:
            oldest = next((key for key, task in self._known.items() if task.done()), None)
            if oldest is None:
                raise TooMany(f"{_MOST} videos are being watched, and no more are at once; come back in a moment")
            task = self._known.pop(oldest)
            if not _has_failed(task):
                with suppress(NoStream):
                    await anyio.to_thread.run_sync(self._streams.remove, task.result())

    async def _watch(self, key: str, url: str) -> str:
        stream_id = f"video-{key}"
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="millpond-videos-"))
        path = self._folder / key
        try:
            source = await self._brought(url, path)
            entry = StreamEntry(stream_id, source, narrate=False)
            await anyio.to_thread.run_sync(partial(self._streams.add, entry, is_hidden=True))
            try:
                state = await self._to_its_end(stream_id)
            except BaseException:
                with suppress(NoStream, RuntimeError):
                    self._streams.stop(stream_id)
                raise
            if state.state == "failed" or not state.num_frames:
                await anyio.to_thread.run_sync(self._streams.remove, stream_id)
                raise ApiError(
                    400, f"the video cannot be watched: {state.problem or 'it has no pictures'}", code="bad_video"
                )
        finally:
            path.unlink(missing_ok=True)
        _log.info("a video is watched, as %s", stream_id)
        return stream_id

    async def _brought(self, url: str, path: Path) -> str:
        """What to open for it: a file of ours, or one that may be opened where it is."""
        most_bytes = self._config.limits.upload_bytes
        if url[:5].lower() == "data:":
            await anyio.to_thread.run_sync(_write_data, url, path, most_bytes)
            return str(path)
        source = await anyio.to_thread.run_sync(checked_source, url, self._config.urls)
        if source.partition(":")[0].lower() in WEB:
            fetch = partial(self._web.fetch, url, path, most_bytes=most_bytes)
            await anyio.to_thread.run_sync(fetch, limiter=self._fetching)
            return str(path)
        if source_kind(source) == "live":
            raise ApiError(
                400, "a video_url is of a recording; got a live stream; add it under /v1/streams", code="bad_video"
            )
        return source

    async def _to_its_end(self, stream_id: str) -> StreamState:
        while (state := self._streams.state(stream_id)).state not in _OVER:
            if state.seen_until_s is not None and state.seen_until_s >= self._config.limits.video_s:
                self._streams.stop(stream_id)  # so much of it is watched
            await asyncio.sleep(_LOOK_S)
        return state


def _has_failed(task: asyncio.Task[str]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _write_data(url: str, path: Path, most_bytes: int) -> None:
    """The bytes of a data: address into a file that must not exist."""
    head, comma, rest = url[5:].partition(",")
    if not comma or not head.lower().startswith(("video/", "application/octet-stream")):
        raise ApiError(
            400, "a data: address is written data:video/mp4;base64,...; got something else", code="bad_video"
        )
    try:
        data = base64.b64decode(rest, validate=True) if head.lower().endswith(";base64") else unquote_to_bytes(rest)
    except (binascii.Error, ValueError):
        raise ApiError(
            400, "the video in the data: address is not base64; got other characters", code="bad_video"
        ) from None
    if len(data) > most_bytes:
        raise ApiError(413, f"a video has {most_bytes} bytes at most; got {len(data)}", code="too_large")
    with path.open("xb") as file:
        file.write(data)

"""Routes that clients made for OpenAI's API know: models, and chat completions, whole or as they come."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic_core import to_json

from ..answer import Answer
from ..hub_events import HubStopped
from .asking import MODEL, TextSoFar, Wanted, cited, read_request, usage_of
from .chat_schemas import AnswerMessage, ChatCompletion, ChatRequest, Choice, ModelList, ModelOut
from .config_file import ServeConfig
from .errors import ApiError, error_of, told
from .recordings import Recordings
from .schemas import Responses, errors
from .streams import Streams

_LOOK_S = 0.5  # whether whoever asked is still there
_HAND_OVER_S = 0.0003
_EVENTS: Responses = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


def chat_routes(streams: Streams, config: ServeConfig, recordings: Recordings) -> APIRouter:
    """All of them, over one desk."""
    router = APIRouter(prefix="/v1", tags=["chat"])
    began = int(time.time())

    def models() -> list[ModelOut]:
        names = [MODEL, *(f"{MODEL}/{state.id}" for state in streams.states())]
        return [ModelOut(id=name, created=began) for name in names]

    @router.get("/models", responses=errors())
    def list_models() -> ModelList:
        """What may be asked: every stream, and `millpond` for a question about a video."""
        return ModelList(data=models())

    @router.get("/models/{model:path}", responses=errors(404))
    def get_model(model: str) -> ModelOut:
        """One of them."""
        for one in models():
            if one.id == model:
                return one
        raise ApiError(404, f"there is no model {model[:200]!r}", code="model_not_found", param="model")

    @router.post("/chat/completions", response_model=ChatCompletion, responses={**errors(404, 429, 503), **_EVENTS})
    async def complete(request: Request, given: ChatRequest) -> ChatCompletion | StreamingResponse:
        """Answers a question about a stream or a video, and says which of its moments the answer rests on."""
        wanted = read_request(given, config.limits, default_tokens=config.engine.max_new_tokens)
        if wanted.stream_id is not None:
            stream_id = wanted.stream_id
        else:
            stream_id = await recordings.watched(wanted.video_url or "")
        answering = Answering(streams, stream_id, wanted, given.model)
        if given.stream:
            wants_usage = given.stream_options is not None and bool(given.stream_options.include_usage)
            return StreamingResponse(
                answering.chunks(wants_usage=wants_usage),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
        return await answering.whole(request)

    return router


class Answering:
    """One question on its way to its answer. Made, it is asked; raises what `Streams.ask` raises."""

    def __init__(self, streams: Streams, stream_id: str, wanted: Wanted, model: str) -> None:
        self._streams, self._stream_id, self._wanted, self._model = streams, stream_id, wanted, model
        self._id, self._created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        self._text = TextSoFar(wanted.stops)
        self._has_begun = False
        self._news: asyncio.Queue[str | None] = asyncio.Queue()  # the text so far; None: it is over
        self._loop = asyncio.get_running_loop()
        self._asked: Future[Answer] = streams.ask(stream_id, wanted.question, on_text=self._grew)
        self._asked.add_done_callback(lambda _: self._hear(None))

    async def whole(self, request: Request) -> ChatCompletion:
        """The answer, once it is there; given up where whoever asked goes."""
        try:
            while not self._asked.done():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over(), _LOOK_S)
                if not self._asked.done() and await request.is_disconnected():
                    raise HubStopped("whoever asked has gone")
            answer = self._answer()
        finally:
            self._let_go()
        message = AnswerMessage(
            content=self._text.grow(answer.text, is_whole=True), millpond=cited(self._stream_id, answer)
        )
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[Choice(message=message, finish_reason=self._reason(answer))],
            usage=usage_of(answer),
        )

    async def chunks(self, *, wants_usage: bool) -> AsyncIterator[bytes]:
        """The answer as it comes, as Server-Sent Events; what it rests on is in the last one that has a choice."""
        try:
            yield self._chunk({"role": "assistant", "content": ""})
            while (text := await self._news.get()) is not None:
                if new := self._text.grow(text):
                    yield self._chunk({"content": new})
            answer = self._answer()
            if new := self._text.grow(answer.text, is_whole=True):
                yield self._chunk({"content": new})
            rests_on = cited(self._stream_id, answer).model_dump()
            yield self._chunk({}, finish_reason=self._reason(answer), millpond=rests_on)
            if wants_usage:
                yield self._event(choices=[], usage=usage_of(answer).model_dump())
            yield format_sse_event(data_str="[DONE]")
        except Exception as error:  # noqa: BLE001 - the status is sent: what went wrong is told as clients expect it
            shown = error_of(error)
            body = told(shown.status, str(shown), code=shown.code, param=shown.param)
            yield format_sse_event(data_str=to_json(body).decode())
        finally:
            self._let_go()

    def _answer(self) -> Answer:
        try:
            return self._asked.result(0)
        except CancelledError:
            raise HubStopped("the question was given up") from None

    def _reason(self, answer: Answer) -> Literal["stop", "length"]:
        is_cut = answer.num_tokens >= (self._wanted.question.max_new_tokens or 0)
        return "length" if is_cut and not self._text.is_stopped else "stop"

    def _chunk(self, delta: dict[str, str], *, finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._event(choices=[choice], **more)

    def _event(self, **fields: Any) -> bytes:
        head = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}
        return format_sse_event(data_str=to_json({**head, **fields}).decode())

    def _let_go(self) -> None:
        if not self._asked.done():
            self._streams.give_up(self._asked)

    async def _over(self) -> None:
        while await self._news.get() is not None:
            pass

    def _grew(self, text: str) -> None:
        """In the hub's thread."""
        self._hear(text)
        if text and not self._has_begun:
            self._has_begun = True
            # The loop gets the interpreter at once, and not after the next token: half of what p95 would be.
            time.sleep(_HAND_OVER_S)

    def _hear(self, text: str | None) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._news.put_nowait, text)

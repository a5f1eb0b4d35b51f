"""Asking: what a chat request asks, of which stream, and how its answer is told."""

from __future__ import annotations

from typing import NamedTuple

from ..answer import Answer
from ..question import Question
from .chat_schemas import Address, ChatRequest, Cited, CitedSpan, Message, Usage
from .errors import ApiError
from .limits import Limits
from .moments import seconds
from .schemas import keyframe

MODEL = "millpond"
_PREFIX = f"{MODEL}/"
_SAID_BY = {"system": "Instructions", "developer": "Instructions", "user": "Question", "assistant": "Answer"}


class Wanted(NamedTuple):
    """What is asked, and of whom: a stream of this id, or the video at this address.

    stops: the answer ends before the first of them.
    """

    question: Question
    stream_id: str | None
    video_url: str | None
    stops: tuple[str, ...]


def read_request(request: ChatRequest, limits: Limits, *, default_tokens: int) -> Wanted:
    """What a request asks. ApiError, in a sentence, for what this server does not do.

    default_tokens: of an answer, where the client does not say.
    """
    _check_known(request)
    *before, last = request.messages
    if last.role != "user":
        raise ApiError(
            400, f"the last message is the question, from the user; got one from {last.role}", **_of("messages")
        )
    words = _text_of(last)
    if not words.strip():
        raise ApiError(400, "the last message has no words; got none to answer", **_of("messages"))
    earlier = tuple(f"{_SAID_BY[message.role]}: {text}" for message in before if (text := _text_of(message).strip()))
    num_chars = len(words) + sum(map(len, earlier))
    if num_chars > limits.question_chars:
        raise ApiError(
            400,
            f"a question and what was said before it have {limits.question_chars} characters at most; got {num_chars}",
            code="context_length_exceeded",
            param="messages",
        )
    most = request.max_completion_tokens or request.max_tokens or default_tokens
    about = request.millpond
    question = Question(
        words,
        since_s=None if about is None else about.since_s,
        until_s=None if about is None else about.until_s,
        max_new_tokens=min(most, limits.answer_tokens),
        earlier=earlier,
    )
    stops = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    stream_id, video_url = _subject(request)
    return Wanted(question, stream_id, video_url, tuple(stop for stop in stops if stop))


def cited(stream_id: str, answer: Answer) -> Cited:
    """What an answer rests on."""
    spans = [
        CitedSpan(start_s=seconds(s.start_s), end_s=seconds(s.end_s), keyframe=keyframe(stream_id, s.end_s))
        for s in answer.used
    ]
    return Cited(
        stream=stream_id,
        spans=spans,
        asked_at_s=seconds(answer.asked_at_s),
        seen_until_s=seconds(answer.seen_until_s),
        ttft_s=seconds(answer.timing.ttft_s),
        total_s=seconds(answer.timing.total_s),
    )


def usage_of(answer: Answer) -> Usage:
    """Tokens read and written."""
    read, written = answer.num_prompt_tokens, answer.num_tokens
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


class TextSoFar:
    """An answer's text as it grows, in pieces that are never taken back.

    It is decoded anew with each token: the end may change while a letter is half there, and what follows a stop is not
    told at all.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = max((len(stop) - 1 for stop in stops), default=0)
        self._told = ""
        self.is_stopped = False

    def grow(self, text: str, *, is_whole: bool = False) -> str:
        """What is new in the text so far, and will stay."""
        if self.is_stopped:
            return ""
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.is_stopped = True
            text = text[: min(found)]
        elif not is_whole:
            text = text.rstrip("\ufffd")
            text = text[: max(0, len(text) - self._held)]
        if not text.startswith(self._told):
            return ""
        new, self._told = text[len(self._told) :], text
        return new


def _subject(request: ChatRequest) -> tuple[str | None, str | None]:
    urls = [url for message in request.messages for url in _videos_of(message)]
    if request.model.startswith(_PREFIX):
        if urls:
            raise ApiError(
                400,
                f"got a video_url and the stream {request.model!r}; for the video, name the model {MODEL!r}",
                **_of("model"),
            )
        return request.model.removeprefix(_PREFIX), None
    if request.model != MODEL:
        raise ApiError(
            404,
            f"there is no model {request.model[:200]!r}; name a stream, as {_PREFIX}ID, or {MODEL} with a video_url",
            code="model_not_found",
            param="model",
        )
    if not urls:
        raise ApiError(
            400,
            f"the model {MODEL!r} needs a video_url in a message; got none; or name a stream, {_PREFIX}ID",
            **_of("model"),
        )
    if len(set(urls)) > 1:
        raise ApiError(400, f"a conversation is about one video; got {len(set(urls))}", **_of("messages"))
    return None, urls[-1]


def _check_known(request: ChatRequest) -> None:
    refused = {
        "n": request.n not in (None, 1),
        "tools": bool(request.tools),
        "functions": bool(request.functions),
        "logprobs": bool(request.logprobs),
        "response_format": (request.response_format or {}).get("type", "text") != "text",
    }
    for name, is_refused in refused.items():
        if is_refused:
            raise ApiError(400, f"{name} is not served here; got some; leave it out", code="unsupported", param=name)
    for message in request.messages:
        if message.role not in _SAID_BY:
            raise ApiError(400, f"no tools are called here; got a message from a {message.role}", **_of("messages"))


def _text_of(message: Message) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    texts: list[str] = []
    for part in message.content:
        if part.type == "text":
            texts.append(part.text or "")
        elif part.type != "video_url":
            raise ApiError(
                400,
                f"a message has text, and a video_url; got a part of type {part.type!r}; watch pictures as a stream",
                code="unsupported",
                param="messages",
            )
    return "\n".join(texts)


def _videos_of(message: Message) -> list[str]:
    urls: list[str] = []
    for part in message.content if isinstance(message.content, list) else ():
        if part.type != "video_url":
            continue
        if part.video_url is None or message.role != "user":
            raise ApiError(
                400, "a video_url part is the user's, and has an address; got neither or one", **_of("messages")
            )
        urls.append(part.video_url.url if isinstance(part.video_url, Address) else part.video_url)
    return urls


def _of(param: str) -> dict[str, str]:
    return {"code": "bad_request", "param": param}

"""Chat completions as OpenAI's clients send them. What is not known here is let by: they send more each year."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_FINITE = Field(default=None, ge=-1e12, le=1e12, allow_inf_nan=False)


class Lenient(BaseModel):
    """What is sent by clients that know more than this server does."""

    model_config = ConfigDict(extra="ignore")


class Address(Lenient):
    """Where a video is."""

    url: Annotated[str, Field(min_length=1)]


class Part(Lenient):
    """A piece of a message: text, or a video_url. Others are refused with a sentence."""

    type: Annotated[str, Field(max_length=100)]
    text: str | None = None
    video_url: Address | str | None = None


class Message(Lenient):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None


class StreamOptions(Lenient):
    """What is sent besides while an answer comes."""

    include_usage: bool | None = None


class About(BaseModel):
    """The stretch of a stream that a question is about, in its seconds; Millpond's own, in a request's `millpond`."""

    model_config = ConfigDict(extra="forbid")

    since_s: Annotated[float | None, _FINITE]
    until_s: Annotated[float | None, _FINITE]


class ChatRequest(Lenient):
    """A question about a stream, named by `model`, or about a video, named by a video_url part of a message.

    Decoding is greedy: temperature, top_p, seed and penalties are taken and change nothing.
    """

    model: Annotated[str, Field(min_length=1, max_length=300, description="millpond/ID of a stream, or millpond")]
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int | None, Field(ge=1, le=2**31)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=2**31)] = None
    stop: Annotated[str | Annotated[list[str], Field(max_length=8)] | None, Field(description="ends the answer")] = None
    n: Annotated[int | None, Field(ge=1, le=128)] = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    millpond: About | None = None


class CitedSpan(BaseModel):
    """A stretch of the stream that was read to answer."""

    start_s: float
    end_s: float
    keyframe: str


class Cited(BaseModel):
    """What an answer rests on. stream: its id. All times are the stream's, in seconds."""

    stream: str
    spans: list[CitedSpan]
    asked_at_s: float
    seen_until_s: float
    ttft_s: float
    total_s: float


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    millpond: Cited


class Choice(BaseModel):
    index: int = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"]


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """An answer. What it rests on is its message's `millpond`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class ModelOut(BaseModel):
    """What a question may name: a stream, or `millpond` for one about a video."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["millpond"] = "millpond"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelOut]

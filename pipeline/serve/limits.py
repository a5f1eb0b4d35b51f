"""Limits: how much one server takes on, from all its clients together and from one at a time."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Made from the section [limits] of the config file, read by all that stands between a client and the desk.

    body_bytes: of a request's body, as sent or in chunks.
    upload_bytes: of a video that a question names, wherever it comes from.
    json_depth: of lists and objects within each other in a body.
    num_streams: open at once.
    num_questions: being answered or waiting at once.
    question_chars: of a question with all that goes with it.
    answer_tokens: of an answer; a client may ask for fewer.
    num_followers: clients that follow Server-Sent Events at once.
    num_connections: open at once, of whatever kind.
    num_redirects: that a video's or a webhook's address may lead through.
    header_s: until all of a request's head has come. head_bytes: its length.
    body_s: until all of its body has come.
    send_s: for which a client may take nothing of what waits for it.
    idle_s: between two requests on one connection.
    download_s: until all of a video has come. video_s: how much of it is watched.
    """

    body_bytes: int = 1 << 20
    upload_bytes: int = 256 << 20
    json_depth: int = 16
    num_streams: int = 32
    num_questions: int = 8
    question_chars: int = 8_000
    answer_tokens: int = 1_024
    num_followers: int = 256
    num_connections: int = 512
    num_redirects: int = 3
    header_s: float = 10.0
    head_bytes: int = 16 << 10
    body_s: float = 30.0
    send_s: float = 30.0
    idle_s: float = 15.0
    download_s: float = 300.0
    video_s: float = 3_600.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_whole = field.type == "int"
            is_number = isinstance(value, int if is_whole else int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value):
                raise ValueError(f"{field.name} is a {'whole ' if is_whole else ''}number; got {value!r}")
            least = 0 if field.name == "num_redirects" else 1 if is_whole else 0.01
            if value < least:
                raise ValueError(f"{field.name} is {least} or more; got {value}")
        if self.num_followers >= self.num_connections:
            raise ValueError(
                f"those who follow would leave no connection to others; got num_followers={self.num_followers} of "
                f"num_connections={self.num_connections}; raise the latter"
            )

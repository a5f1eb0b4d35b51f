"""What the server adds to an answer: its first byte at a client against the engine's own first token."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from .bench_serve_process import Server
from .bench_streams_latency import percentiles

_HEADERS = {"Content-Type": "application/json"}
# Their answers begin with a word. A number's first token is the space before it, which nobody is sent.
_QUESTIONS = ("What appeared?", "Which objects appeared?", "What appeared last?", "What appeared first?")


@dataclass(frozen=True)
class AnswersPlan:
    """So many questions, one after another, with a pause between them; or until the time is over."""

    num_questions: int = 200
    pause_s: float = 0.05
    length_s: float = 120.0
    num_tokens: int = 16

    def __post_init__(self) -> None:
        for name in ("num_questions", "length_s", "num_tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0; got {getattr(self, name)}")
        if not self.pause_s >= 0:
            raise ValueError(f"pause_s must be 0 or more; got {self.pause_s}")


class FirstByte(NamedTuple):
    """One answer: seconds from the request to its first byte, and to its first words, at the client; and to its first
    token, as the engine says."""

    byte_s: float
    words_s: float
    token_s: float


def measure_answers(server: Server, plan: AnswersPlan) -> dict[str, Any]:
    """Questions by one client, over a connection that stands.

    first_words_s: from a request to the first words of its answer at the client. engine_s: from the hub's being asked
    to the first token's id, of the same answers. overhead_s: the one less the other, answer by answer. first_byte_s: to
    the first byte of the answer's body, which says only that it has begun.
    """
    ends_s = time.perf_counter() + plan.length_s
    link = server.connect()
    seen: list[FirstByte] = []
    for number in range(plan.num_questions):
        if time.perf_counter() >= ends_s and seen:
            break
        name = server.names[number % len(server.names)]
        seen.append(_ask(link, name, _QUESTIONS[number % len(_QUESTIONS)], plan.num_tokens))
        time.sleep(plan.pause_s)
    link.close()
    return {
        "num_questions": len(seen),
        "first_byte_s": percentiles([one.byte_s for one in seen]),
        "first_words_s": percentiles([one.words_s for one in seen]),
        "engine_s": percentiles([one.token_s for one in seen]),
        "overhead_s": percentiles([one.words_s - one.token_s for one in seen]),
    }


def _ask(link: http.client.HTTPConnection, name: str, words: str, num_tokens: int) -> FirstByte:
    body = json.dumps(
        {
            "model": f"millpond/{name}",
            "messages": [{"role": "user", "content": words}],
            "stream": True,
            "max_tokens": num_tokens,
        }
    )
    began_s = time.perf_counter()
    link.request("POST", "/v1/chat/completions", body, _HEADERS)
    answer = link.getresponse()
    if answer.status != 200:
        raise ConnectionError(f"a question was answered with {answer.status}: {answer.read(300)!r}")
    byte_s = words_s = token_s = None
    for line in answer:
        now_s = time.perf_counter() - began_s
        byte_s = now_s if byte_s is None else byte_s
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line.removeprefix(b"data: "))
        if "error" in chunk:
            raise ConnectionError(f"a question was answered with {chunk['error']}")
        if words_s is None and any(choice["delta"].get("content") for choice in chunk["choices"]):
            words_s = now_s
        if "millpond" in chunk:
            token_s = float(chunk["millpond"]["ttft_s"])
    if byte_s is None or words_s is None or token_s is None:
        raise ConnectionError(f"the answer to {words!r} has no words, or does not say when its first token came")
    return FirstByte(byte_s, words_s, token_s)

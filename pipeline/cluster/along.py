"""An answer of a worker, heard along as it grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..answer import Answer
from ..question import Question


class Told:
    """What was said of an answer so far: none of it is taken back."""

    def __init__(self, on_text: Callable[[str], None] | None) -> None:
        self._on_text = on_text
        self.text = ""

    def grow(self, text: str) -> None:
        text = text.rstrip("\ufffd")  # half a letter
        if self._on_text is not None and len(text) > len(self.text) and text.startswith(self.text):
            self.text = text
            self._on_text(text)


def heard(
    worker: Any, stream_id: str, question: Question, timeout_s: float, on_text: Callable[[str], None] | None
) -> Answer:
    """Asks a worker, by its handle, and waits for the answer.

    on_text: called with the text so far, as it grows. Raises what the worker raised, as Ray wraps it, and Ray's
    GetTimeoutError where no answer came in time: then it is told that nobody waits any more.
    """
    import ray

    until_s = time.monotonic() + timeout_s
    if on_text is None:
        call = worker.ask.remote(stream_id, question)
    else:
        call = worker.ask_along.options(num_returns="streaming").remote(stream_id, question)
    try:
        while on_text is not None:
            if not ray.wait([call], timeout=max(0.0, until_s - time.monotonic()))[0]:
                raise ray.exceptions.GetTimeoutError(f"no word within {timeout_s:g} s")
            told: str | Answer = ray.get(next(call))
            if isinstance(told, Answer):
                return told
            on_text(told)
        answer: Answer = ray.get(call, timeout=timeout_s)
        return answer
    except ray.exceptions.GetTimeoutError:
        ray.cancel(call)
        raise

"""Greedy decoding, several sessions at a time in one packed row."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..encoders import Row, Text, VideoLLM
from ..encoders.context import Context

# Shapes: R rows (prompts not answered yet), V vocabulary.


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question at one context. The context is left as it was found.

    on_text: called with the text so far, whenever there is more of it.
    """

    context: Context
    question: Text
    max_new_tokens: int
    on_text: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1; got {self.max_new_tokens}")


@dataclass(frozen=True, slots=True)
class Generated:
    """Made by `generate`, read by sessions: token ids, the stop token not among them, and the moments they came."""

    ids: tuple[int, ...]
    text: str
    first_token_s: float
    done_s: float


def generate(model: VideoLLM, prompts: Sequence[Prompt]) -> list[Generated]:
    """Answers all prompts together: each step reads one new token of every answer that is not over yet.

    Times are seconds on `time.perf_counter`'s clock. Whatever happens, contexts are given back as they were.
    """
    marks = [prompt.context.mark() for prompt in prompts]
    ids: list[list[int]] = [[] for _ in prompts]
    first_s = [0.0] * len(prompts)
    done_s = [0.0] * len(prompts)
    going = list(range(len(prompts)))
    parts = [prompt.question for prompt in prompts]
    try:
        while going:
            logits_RV = model.step([Row(prompts[i].context, (parts[i],)) for i in going])
            chosen = logits_RV.argmax(-1).tolist()
            now_s = time.perf_counter()
            still: list[int] = []
            for i, token in zip(going, chosen, strict=True):
                first_s[i] = first_s[i] or now_s
                if token not in model.stop_ids:
                    ids[i].append(token)
                    callback = prompts[i].on_text
                    if callback is not None:
                        callback(model.decode(ids[i]).strip())
                    if len(ids[i]) < prompts[i].max_new_tokens:
                        parts[i] = Text((token,))
                        still.append(i)
                        continue
                done_s[i] = now_s
            going = still
    finally:
        for prompt, mark in zip(prompts, marks, strict=True):
            prompt.context.rewind(mark)
    return [Generated(tuple(ids[i]), model.decode(ids[i]).strip(), first_s[i], done_s[i]) for i in range(len(prompts))]

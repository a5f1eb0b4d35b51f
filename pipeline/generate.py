"""Greedy decoding, several sessions at a time in one packed row. Answers may join and leave at every token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..encoders import Row, Text, VideoLLM
from ..encoders.context import Context, Mark

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
    """Made by `Decoding`, read by sessions: token ids, the stop token not among them, and the moments they came."""

    ids: tuple[int, ...]
    text: str
    first_token_s: float
    done_s: float


class Decoded(NamedTuple):
    """A prompt, by the number that `Decoding.add` gave it, and what came of it."""

    number: int
    generated: Generated


@dataclass(slots=True)
class _Going:
    """A prompt on its way: what is read next, what came so far."""

    prompt: Prompt
    mark: Mark
    part: Text
    ids: list[int] = field(default_factory=list)
    first_s: float = 0.0


class Decoding:
    """Answers on their way. Each step reads one new part of every one of them in one packed pass.

        step   1   2   3   4   5
        a      Q   a   a   .          Q: the question is read, and its first token comes of that
        b          Q   b   b   .      b joins while a is on its way

    Times are seconds on `time.perf_counter`'s clock. Whatever happens, contexts are given back as they were.
    Not thread-safe.
    """

    def __init__(self, model: VideoLLM) -> None:
        self._model = model
        self._going: dict[int, _Going] = {}
        self._num_added = 0

    def __len__(self) -> int:
        """How many are on their way."""
        return len(self._going)

    def add(self, prompt: Prompt) -> int:
        """Begins with the next step. Returns its number. Until it is done its context is this object's."""
        self._num_added += 1
        self._going[self._num_added] = _Going(prompt, prompt.context.mark(), prompt.question)
        return self._num_added

    def step(self) -> list[Decoded]:
        """One token more for each; those that are done leave. An error ends none: `stop` does."""
        if not self._going:
            return []
        going = list(self._going.items())
        logits_RV = self._model.step([Row(one.prompt.context, (one.part,)) for _, one in going])
        chosen = logits_RV.argmax(-1).tolist()
        now_s = time.perf_counter()
        done: list[Decoded] = []
        for (number, one), token in zip(going, chosen, strict=True):
            one.first_s = one.first_s or now_s
            if token not in self._model.stop_ids:
                one.ids.append(token)
                one.part = Text((token,))
                if one.prompt.on_text is not None:
                    one.prompt.on_text(self._text(one))
                if len(one.ids) < one.prompt.max_new_tokens:
                    continue
            self.drop(number)
            done.append(Decoded(number, Generated(tuple(one.ids), self._text(one), one.first_s, now_s)))
        return done

    def drop(self, number: int) -> None:
        """Gives one up."""
        one = self._going.pop(number)
        one.prompt.context.rewind(one.mark)

    def stop(self) -> None:
        """Gives up those on their way."""
        for number in tuple(self._going):
            self.drop(number)

    def _text(self, one: _Going) -> str:
        return self._model.decode(one.ids).strip()


def generate(model: VideoLLM, prompts: Sequence[Prompt]) -> list[Generated]:
    """Answers all prompts together."""
    decoding = Decoding(model)
    try:
        numbers = [decoding.add(prompt) for prompt in prompts]
        done: dict[int, Generated] = {}
        while len(decoding):
            done.update(decoding.step())
    finally:
        decoding.stop()
    return [done[number] for number in numbers]

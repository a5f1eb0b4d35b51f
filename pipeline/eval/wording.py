"""Wording: how an item is put to a model. One that follows instructions is told how to answer; the built-in is not."""

from __future__ import annotations

from collections.abc import Sequence

from .asking import ask_text, poll_text, say_text
from .item import LETTERS, Item

# Of a conversation so far, that stands before a question.
_MAX_CHARS = 6000


class Wording:
    """With instructions for each form, and with the conversation so far, in words: what was asked before, and what was
    right, as the published benchmarks tell it; a method's own mistake does not count twice.

    before: items of the same conversation that were asked earlier, in order.
    """

    name = "instructed"

    def ask(self, item: Item, before: Sequence[Item]) -> str:
        return _after(before, ask_text(item))

    def poll(self, item: Item, before: Sequence[Item]) -> str:
        return _after(before, poll_text(item))

    def say(self, item: Item, before: Sequence[Item]) -> str | None:
        """Asked once its moment has come; None where nothing is."""
        return _after(before, say_text(item))


class BareWording(Wording):
    """The annotation's question and not a word more: the built-in model knows its questions, and nothing else."""

    name = "bare"

    def ask(self, item: Item, before: Sequence[Item]) -> str:
        return item.question

    def poll(self, item: Item, before: Sequence[Item]) -> str:
        return item.question

    def say(self, item: Item, before: Sequence[Item]) -> str | None:
        return None


def wording_for(model_name: str) -> Wording:
    """What suits a model."""
    return BareWording() if model_name == "millpond/mini" else Wording()


def _after(before: Sequence[Item], text: str) -> str:
    """The text after the conversation before it; of a long one, the newest of it."""
    told: list[str] = []
    num_chars = 0
    for item in reversed(before):
        words = _told(item)
        num_chars += len(words)
        if num_chars > _MAX_CHARS:
            break
        told.append(words)
    if not told:
        return text
    return "\n".join(["Asked and answered earlier in this conversation:", *reversed(told), "", text])


def _told(item: Item) -> str:
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, item.options, strict=False)]
    answer = options[LETTERS.index(item.answer)] if item.form == "choice" else item.answer
    return "\n".join([f"At {item.at_s:.0f} s: {item.question.strip()}", *options, f"Answer: {answer}"])

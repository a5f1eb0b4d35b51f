"""What a model is asked: the annotation's question in the dress of its form, and when a "moment" is polled."""

from __future__ import annotations

from .item import LETTERS, Item


def ask_text(item: Item) -> str:
    """The whole question for a model; for a "moment" see `poll_text`."""
    question = item.question.strip()
    if item.form == "choice":
        return "\n".join([question, *_lettered(item), "Answer with the letter of the right option only."])
    if item.form == "number":
        return f"{question}\nAnswer with one number only."
    if item.form == "yes_no":
        return f"{question}\nAnswer with yes or no only."
    if item.form == "moment":
        return poll_text(item)
    return f"{question}\nAnswer with one word or a few only."


def poll_text(item: Item) -> str:
    """Asked at each of `poll_times` until it is answered with yes."""
    return f"{item.question.strip()}\nHas this moment come now? Answer with yes or no only."


def say_text(item: Item) -> str:
    """Asked once, at the first yes: what is to be said. The answer is `Said.text`."""
    return f"{item.question.strip()}\nThis moment has come now. Say what is to be said, and nothing else."


def poll_times(item: Item, *, poll_s: float = 1.0) -> tuple[float, ...]:
    """The moments at which a "moment" is asked about: every poll_s after at_s, until_s included."""
    if item.form != "moment" or item.until_s is None:
        raise ValueError(f'only a "moment" is polled; got {item!r}')
    if not poll_s > 0:
        raise ValueError(f"poll_s must be more than 0; got {poll_s}")
    num_polls = int((item.until_s - item.at_s) / poll_s + 1e-9)
    return tuple(item.at_s + number * poll_s for number in range(1, num_polls + 1))


def _lettered(item: Item) -> list[str]:
    return [f"{letter}. {option}" for letter, option in zip(LETTERS, item.options, strict=False)]

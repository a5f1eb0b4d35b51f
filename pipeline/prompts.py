"""The questions that Millpond itself asks a model: what is new, and what happened in all."""

from __future__ import annotations

from dataclasses import dataclass

from ..stream import time_words
from ..stream.truth import NOTHING


@dataclass(frozen=True, slots=True)
class Prompts:
    """Made by `prompts_for` or a user, read by sessions and the summariser.

    first: for the first narration of a stream; news: for later ones, with {since} in seconds.
    earlier: how what was said before in a conversation is put before a question, with {earlier}; None for a model that
        reads no conversations.
    silent: answers, in lower case and without a full stop, that say that nothing is worth saying.
    summary: of all that is in sight; recount: of a whole video, with {log}, its narrations.
    note: how a line of the log is put to a model that can read notes, with {note}; None for one that cannot.
    """

    first: str
    news: str
    summary: str
    recount: str | None
    note: str | None = None
    earlier: str | None = None
    silent: tuple[str, ...] = (NOTHING, "nothing new", "nothing is new", "nothing has changed", "no", "none", "")

    def __post_init__(self) -> None:
        for name, place in (("news", "since"), ("recount", "log"), ("note", "note"), ("earlier", "earlier")):
            _check_place(name, getattr(self, name), place)
        if isinstance(self.silent, str) or not all(isinstance(words, str) for words in self.silent):
            raise ValueError(f"silent must be a list of answers; got {self.silent!r}")
        object.__setattr__(self, "silent", tuple(self.silent))

    def question(self, since_s: float | None) -> str:
        return self.first if since_s is None else self.news.format(since=time_words(since_s))

    def is_silent(self, text: str) -> bool:
        return text.strip().rstrip(".!").lower() in self.silent


def _check_place(name: str, prompt: str | None, place: str) -> None:
    if prompt is None:
        return
    try:
        has_place = prompt.format(**{place: "\0"}).count("\0") == 1
    except (LookupError, ValueError):  # another place, or a brace that is not closed
        has_place = False
    if not has_place:
        raise ValueError(f"the prompt {name!r} must have one place {{{place}}} and no other; got {prompt!r}")


PROMPTS = Prompts(
    first="Describe in one sentence what this video shows.",
    news=(
        "In one sentence, what is new in the video since {since} seconds? "
        "If nothing has changed, answer with the one word: nothing."
    ),
    summary="Summarize the video in a few sentences.",
    recount=(
        "These are notes on the whole video, with times in seconds:\n{log}\n"
        "Summarize the whole video in a few sentences."
    ),
    note="Noted earlier, of {note}\n",
    earlier="This was said before:\n{earlier}\nNow: ",
)

# The built-in model knows these questions, and no others.
MINI_PROMPTS = Prompts(
    first="What appeared?", news="What is new since {since} s?", summary="Summarize the video.", recount=None
)


def prompts_for(model_name: str) -> Prompts:
    """The prompts that suit a model."""
    return MINI_PROMPTS if model_name == "millpond/mini" else PROMPTS

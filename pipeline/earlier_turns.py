"""What was said earlier in a conversation, put before a question as far as there is room."""

from __future__ import annotations

from collections.abc import Sequence

from ..encoders import Text, VideoLLM
from .prompts import Prompts

_MAX_TURNS = 32


def after_earlier(model: VideoLLM, prompts: Prompts, words: str, earlier: Sequence[str], *, num_free: int) -> Text:
    """The question, after as many of the newest earlier turns as fit; without any where the model knows no such prompt.

    num_free: positions that the question may take at most.
    """
    text = model.question(words)
    if prompts.earlier is None:
        return text
    said = ""
    for turn in reversed(earlier[-_MAX_TURNS:]):
        said = f"{turn}\n{said}"
        longer = model.question(prompts.earlier.format(earlier=said.rstrip("\n")) + words)
        if len(longer.ids) > num_free:
            break
        text = longer
    return text

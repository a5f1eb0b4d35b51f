"""From the words of a model to right or wrong. An answer that can be read in two ways counts as none."""

from __future__ import annotations

from .item import Item, Said
from .letters import letter_of
from .spoken import has_words, number_of, same_words, yes_or_no

__all__ = ["has_words", "in_time", "letter_of", "number_of", "same_words", "score", "yes_or_no"]


def in_time(first_yes_s: float | None, right_at_s: float, tolerance_s: float) -> bool:
    """Whether the first yes came, and near enough to its moment: both ends included."""
    return first_yes_s is not None and abs(first_yes_s - right_at_s) <= tolerance_s


def score(item: Item, said: Said, *, tolerance_s: float = 2.0) -> float:
    """1 for right, 0 for wrong. Words are right if they are the same but for case, punctuation, articles, and numbers
    in words or digits."""
    if item.form == "choice":
        return float(letter_of(said.text, len(item.options), item.options) == item.answer)
    if item.form == "number":
        return float(number_of(said.text) == float(item.answer))
    if item.form == "yes_no":
        return float(yes_or_no(said.text) is (item.answer == "yes"))
    if item.form == "moment":
        return float(item.right_at_s is not None and in_time(said.first_yes_s, item.right_at_s, tolerance_s))
    return float(same_words(said.text, item.answer))

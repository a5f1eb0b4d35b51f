"""Recall gates: which questions need more than the recent window. History that is not needed makes answers worse."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..stream.table import Table

# What asks for the past, for order and for counts. A phrase counts before the words in it.
PAST_WORDS = (
    *("before", "earlier", "previously", "formerly", "ago", "yesterday", "last", "past", "first", "second", "third"),
    *(
        "since",
        "until",
        "until now",
        "up to now",
        "so far",
        "till now",
        "by now",
        "after",
        "afterwards",
        "later",
        "then",
    ),
    *("when", "did", "didn't", "was", "wasn't", "were", "weren't", "had", "hadn't", "has", "have", "hasn't", "haven't"),
    *("been", "ever", "never", "again", "already", "yet", "still", "used to", "once", "twice", "times", "how often"),
    *("how many", "how long", "how much", "number of", "count", "in total", "altogether", "all day", "today"),
    *("remember", "recall", "history", "happened", "began", "begin", "started", "beginning", "start", "sequence"),
    *("changed", "change", "order", "summarize", "summarise", "summary", "what happened"),
)
# What asks for what is in sight, whatever else the question says.
PRESENT_WORDS = ("now", "right now", "currently", "at the moment", "at present", "presently", "this moment")


@dataclass(frozen=True)
class RecallGate(ABC):
    """Says of a question whether history is opened for it. A question of a gate changes nothing.

    needs_margin: whether it looks at how sure the model is.
    """

    needs_margin: ClassVar[bool] = False

    @abstractmethod
    def opens(self, question: str, margin: float | None) -> bool:
        """Whether the question needs what is older than the recent window.

        margin: probability of the likeliest first token less that of the second when the question is answered from the
            recent window alone, 0 to 1. None where it was not measured: then it opens nothing.
        """

    def needs_margin_for(self, question: str) -> bool:
        """Whether the margin can decide about this question, so that measuring it is not in vain."""
        return self.needs_margin


@dataclass(frozen=True)
class AlwaysGate(RecallGate):
    """Opens for every question.

    Baseline: history in every answer.
    Differs from the paper: None.
    """

    def opens(self, question: str, margin: float | None) -> bool:
        return True


@dataclass(frozen=True)
class NeverGate(RecallGate):
    """Opens for no question.

    Baseline: the recent window alone.
    Differs from the paper: None.
    """

    def opens(self, question: str, margin: float | None) -> bool:
        return False


@dataclass(frozen=True)
class WordsGate(RecallGate):
    """Opens for questions with words on the past, on order or on counts, and none on the present.

    Baseline: a list of English words; no paper.
    Differs from the paper: None.

    opening: words and phrases that open it, whole and in any case; a longer phrase is read before its words.
    closing: words and phrases that keep it shut, whatever else is there; none by an empty tuple.
    """

    opening: tuple[str, ...] = PAST_WORDS
    closing: tuple[str, ...] = PRESENT_WORDS

    def __post_init__(self) -> None:
        _check_words(self.opening, self.closing)

    def opens(self, question: str, margin: float | None) -> bool:
        found = _words_in(question, self.opening + self.closing)
        return not found & _folded(self.closing) and bool(found & _folded(self.opening))


@dataclass(frozen=True)
class UncertainGate(RecallGate):
    """Opens where the model hesitates over the first token of its answer.

    Paper: ShallowStream (arXiv 2609.02780)
    Differs from the paper: only the idea that the answer's first logits decide; the margin and its threshold are ours.

    open_below: margin below which it opens, 0 (never) to 1.
    """

    needs_margin: ClassVar[bool] = True
    open_below: float = 0.3

    def __post_init__(self) -> None:
        _check_threshold(self.open_below)

    def opens(self, question: str, margin: float | None) -> bool:
        return _is_below(margin, self.open_below)


@dataclass(frozen=True)
class AutoGate(RecallGate):
    """Opens for words on the past, and where the model hesitates over a question that is not on the present.

    Baseline: `words` or `uncertain`.
    Differs from the paper: None.

    open_below: margin below which it opens, 0 (never) to 1.
    opening: words and phrases that open it.
    closing: words and phrases that keep it shut, whatever the margin.
    """

    needs_margin: ClassVar[bool] = True
    open_below: float = 0.3
    opening: tuple[str, ...] = PAST_WORDS
    closing: tuple[str, ...] = PRESENT_WORDS

    def __post_init__(self) -> None:
        _check_threshold(self.open_below)
        _check_words(self.opening, self.closing)

    def opens(self, question: str, margin: float | None) -> bool:
        found = _words_in(question, self.opening + self.closing)
        if found & _folded(self.closing):
            return False
        return bool(found & _folded(self.opening)) or _is_below(margin, self.open_below)

    def needs_margin_for(self, question: str) -> bool:
        return not _words_in(question, self.opening + self.closing)


def _is_below(margin: float | None, threshold: float) -> bool:
    if margin is not None and not -1e-3 <= margin <= 1.001:  # probabilities are rounded
        raise ValueError(f"a margin is a difference of two probabilities, from 0 to 1; got {margin}")
    return margin is not None and margin < threshold


def _folded(words: Sequence[str]) -> set[str]:
    return {_fold(word) for word in words}


def _fold(text: str) -> str:
    """Lower case, straight apostrophes, single spaces."""
    return " ".join(text.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())


def _words_in(question: str, words: Sequence[str]) -> set[str]:
    """Which of the words are there, whole; the longer one where two overlap."""
    longest_first = sorted(_folded(words), key=lambda word: (-len(word), word))
    if not longest_first:
        return set()
    pattern = "|".join(re.escape(word) for word in longest_first)
    return set(re.findall(rf"(?<![\w'])(?:{pattern})(?![\w'])", _fold(question)))


def _check_threshold(open_below: float) -> None:
    if not (math.isfinite(open_below) and 0 <= open_below <= 1):
        raise ValueError(f"open_below must be a margin, from 0 to 1; got {open_below}")


def _check_words(opening: tuple[str, ...], closing: tuple[str, ...]) -> None:
    for word in (*opening, *closing):
        if not isinstance(word, str) or not word.strip():
            raise ValueError(f"a gate's words must be words or phrases; got {word!r}")


RECALL_GATES: Table[RecallGate] = Table(
    "recall gate",
    __package__ or "",
    {
        "always": "recall_gate:AlwaysGate",
        "auto": "recall_gate:AutoGate",
        "never": "recall_gate:NeverGate",
        "uncertain": "recall_gate:UncertainGate",
        "words": "recall_gate:WordsGate",
    },
)

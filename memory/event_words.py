"""Words of the text log: what a line keeps of any text, what a question asks for, what a let-go stretch was about."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

MAX_TERMS = 32
"""Words of a question that are looked for; later ones are left out."""

STOP_WORDS = frozenset(
    "a about all am an and any are as at be been being but by can could did do does doing for from had has have having "
    "he her hers him his how i if in into is it its me my no not of on or our out over own s she so some such t than "
    "that the their them then there these they this those to under until up us was we were what when where which while "
    "who whom why will with would you your".split()
)
"""English words that say nothing about what was seen. Words of time and order (first, before, again) are not here."""

# SQLite's unicode61 parts words by the categories of Unicode 6.1. What was punctuation, sign or space in 3.2 already
# and still is parts words there too; newer or moved signs are left inside a term, which then is looked for as a phrase.
_OLD = unicodedata.ucd_3_2_0


def clean(text: str, max_chars: int) -> str:
    """The text as the log keeps it: no NUL, no lone surrogates, at most `max_chars` long."""
    if len(text) > max_chars:
        text = text[: max_chars - 1] + "…"
    return text.encode("utf-8", "replace").decode().replace("\0", " ")


def terms(text: str) -> list[str]:
    """The text's words without stop words, each once, in order; all its words where there are no others."""
    words = {word.lower(): word for word in _words(text)}
    return [word for lower, word in words.items() if lower not in STOP_WORDS] or list(words.values())


def match_any(words: Iterable[str]) -> str:
    """An FTS5 query for lines that hold any of the words, every one quoted, so that none is an operator."""
    return " OR ".join('"' + word.replace('"', '""') + '"' for word in words)


def telling(texts: Iterable[str]) -> Iterator[str]:
    """The words of the texts, in lower case; stop words and bare numbers left out."""
    for text in texts:
        for word in _words(text.lower()):
            if word not in STOP_WORDS and not word.isnumeric():
                yield word


_ASCII_WORD = re.compile(r"[A-Za-z0-9]+")


def _words(text: str) -> Iterator[str]:
    # As they stand: SQLite folds case in its own way, which is not Python's.
    if text.isascii():
        yield from _ASCII_WORD.findall(text)
        return
    spaced = "".join(" " if _parts(char) else char for char in text)
    for word in spaced.split():
        if any(char.isalnum() for char in word):
            yield word


@lru_cache(2**14)
def _parts(char: str) -> bool:
    old = _OLD.category(char)
    return old in ("Cc", "Cf") or (old[0] in "PSZ" and unicodedata.category(char)[0] in "PSZ")

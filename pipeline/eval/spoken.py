"""What an answer in plain words says: a number, yes or no, the same as another answer."""

from __future__ import annotations

import re
import unicodedata

# Of a longer answer, the beginning and the end are looked at.
_MAX_CHARS = 20_000

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {word: number for number, word in enumerate(_UNITS)} | {
    word: number * 10 for number, word in enumerate(_TENS, start=2)
}
_BIG = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}
_SAID_ONCE = {"once": 1, "twice": 2, "thrice": 3, "none": 0, "dozen": 12}
_NOTHING = {"never", "nil", "nothing"}
# "the one on the left" counts nothing, nor does "one of them".
_POINTING = {"the", "this", "that", "no", "any", "every", "each", "some", "which", "another", "other", "only"}

_THOUGHT = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
# Of words that follow one another, so many make one number at most.
_MAX_NUMBER_WORDS = 12
# A number that stands alone: not in a word (MP4, 2D), a time (1:42), a date or fraction (1/2), an ordinal (3rd).
_DIGITS = re.compile(
    r"(?<![\w.,:/])(?:(?<![\w)])-)?(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?=(?:x|s|%)?(?:$|[^\w:/.,]|[.,:](?:\D|$)))",
    re.ASCII,
)
_WORDS = re.compile(r"[a-z]+")
_MARKS = re.compile(r"[^\w\s]|_")
_ANSWER_IS = re.compile(r"\b(?:answer|total|count)\b(?:\s+(?:is|are|of|would be))?\s*[:=]?\s+", re.IGNORECASE)
_YES = {"yes": True, "yeah": True, "yep": True, "y": True, "true": True}
_NO = {"no": False, "nope": False, "nah": False, "n": False, "false": False, "not": False}
_YES_OR_NO = _YES | _NO
# "No doubt he is" says yes, and "no idea" nothing.
_IDIOMS = {"doubt", "idea", "problem", "question", "matter", "clue", "wonder", "comment"}
_CLOSING = re.compile(
    r"\b(?:answer|say|so|therefore|hence|thus|conclusion)\b(?:\s+(?:is|would be))?\W{0,6}\b(yes|no)\b"
    r"(?=\s*(?:$|[.,;:!?\n*\"')\]}]))",
    re.IGNORECASE,
)


def plain(text: str) -> str:
    """One form for each character, without what a model thought aloud before it answered."""
    if len(text) > _MAX_CHARS:
        text = text[: _MAX_CHARS // 2] + "\n" + text[-_MAX_CHARS // 2 :]
    spoken = _THOUGHT.split(unicodedata.normalize("NFKC", text))[-1]
    return spoken.replace("’", "'").strip()


def words_of(text: str) -> list[str]:
    """Lower-case words without marks and articles, numbers in digits."""
    words = [word for word in _MARKS.sub(" ", plain(text).casefold()).split() if word not in ("a", "an", "the")]
    return [str(_SMALL[word]) if word in _SMALL else word for word in words]


def same_words(text: str, answer: str) -> bool:
    """Whether two answers are the same but for case, punctuation, articles, and small numbers in words or digits."""
    given, wanted = words_of(text), words_of(answer)
    return given == wanted if wanted else plain(text).casefold() == plain(answer).casefold()


def has_words(text: str, answer: str) -> bool:
    """Whether the words of an answer stand in a text, together and in order."""
    given, wanted = words_of(text), words_of(answer)
    if not wanted:
        return bool(answer.strip()) and plain(answer).casefold() in plain(text).casefold()
    return any(given[at : at + len(wanted)] == wanted for at in range(len(given) - len(wanted) + 1))


def number_of(text: str) -> float | None:
    """The number that an answer gives, in digits or words; None where it gives none, or different ones.

    Where there are several, the one behind "the answer is" or the like counts.
    """
    said = plain(text)
    numbers = _numbers(said)
    if len(numbers) > 1:
        stated = {_first_number(said[found.end() :]) for found in _ANSWER_IS.finditer(said)} - {None}
        return stated.pop() if len(stated) == 1 else None
    if not numbers and _MARKS.sub(" ", said.casefold()).strip() in _NOTHING:
        return 0.0
    return numbers.pop() if numbers else None


def _first_number(text: str) -> float | None:
    """The number that a text begins with, marks let be."""
    begin = text.lstrip("*_`\"'( ")
    digits = _DIGITS.match(begin)
    if digits:
        return _value(digits)
    spelled = _spelled(begin.lower(), only_first=True)
    return spelled[0] if spelled else None


def _numbers(said: str) -> set[float]:
    in_digits = {_value(found) for found in _DIGITS.finditer(said)}
    return in_digits | set(_spelled(said.lower()))


def _value(found: re.Match[str]) -> float:
    sign = -1.0 if found[0].startswith("-") else 1.0
    return sign * float(found["digits"].replace(",", ""))


def _spelled(text: str, *, only_first: bool = False) -> list[float]:
    """The numbers that a text has in words: "twenty-one", "a hundred and five", "twice"."""
    numbers: list[float] = []
    open_words: list[str] = []
    end, before = 0, ""
    for found in _WORDS.finditer(text):
        word, gap = found[0], text[end : found.start()]
        joins = not gap.strip(" -")
        if open_words and not (joins and _goes_on(open_words, word)):
            numbers.append(_said_number(open_words))
            open_words = []
        if word in _SMALL or word in _BIG or (open_words and word == "and"):
            if open_words or not _points(text, word, before, found.end(), gap):
                open_words.append(word)
        elif word in _SAID_ONCE and before not in ("at", "all") and not gap.endswith("'"):
            numbers.append(float(_SAID_ONCE[word]))
        if only_first and not open_words:
            return numbers
        end, before = found.end(), word
    return [*numbers, _said_number(open_words)] if open_words else numbers


def _goes_on(said: list[str], word: str) -> bool:
    """Whether a word belongs to the number before it: of "twenty one" and "hundred and five", not of "two three"."""
    if len(said) >= _MAX_NUMBER_WORDS:
        return False
    if word in _BIG:
        return said[-1] != "and"
    if word == "and":
        return said[-1] in _BIG
    if word not in _SMALL:
        return False
    return said[-1] in _BIG or said[-1] == "and" or (said[-1] in _TENS and 0 < _SMALL[word] < 10)


def _points(text: str, word: str, before: str, end: int, gap: str) -> bool:
    """Whether "one" points at something rather than counts."""
    if word != "one":
        return False
    after = text[end : end + 4]
    return (before in _POINTING and not gap.strip()) or after.startswith((" of ", "'s", " by"))


def _said_number(words: list[str]) -> float:
    total = part = 0
    for word in words:
        if word in _SMALL:
            part += _SMALL[word]
        elif word == "hundred":
            part = (part or 1) * 100
        elif word in _BIG:
            total, part = total + (part or 1) * _BIG[word], 0
    return float(total + part)


def yes_or_no(text: str) -> bool | None:
    """What an answer says; None where it says neither, or both.

    The word it begins with, or the one behind "the answer is", "so" and the like.
    """
    said = plain(text).strip("*_`\"'([{<# \n\t$")
    first = re.match(r"(?:answer|response)?\s*[:=]?\s*[*_`\"'(\[]*([a-z]+)(?!['\w])", said, re.IGNORECASE)
    if first and first[1].lower() in _YES_OR_NO:
        word, after = first[1].lower(), said[first.end(1) :]
        follow = re.match(r"[\s*_`\"'()\]]*(?:(/|,|or\b|and\b)\s*)?([a-z]*)", after, re.IGNORECASE)
        joined, second = (follow[1], follow[2].lower()) if follow else (None, "")
        if second in _YES_OR_NO and second != "not" and _YES_OR_NO[second] != _YES_OR_NO[word] and joined != ",":
            return None
        if len(word) == 1 and after[:1] not in ("", ".", ",", ":", ";", ")", "!", "\n", "*", "`", '"', "'", "]", "}"):
            return None
        if word == "no" and second in _IDIOMS and not joined:
            return True if second in ("doubt", "question") else None
        if word == "not" and second in ("sure", "certain", "clear"):
            return None
        return _YES_OR_NO[word]
    closing = {_YES_OR_NO[word.lower()] for word in _CLOSING.findall(said)}
    return closing.pop() if len(closing) == 1 else None

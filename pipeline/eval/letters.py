"""Which option an answer names: a letter in many dresses, never one out of an English word, or an option's words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .item import LETTERS
from .spoken import plain, words_of

_DRESS = " \t\n*_`\"'()[]{}<>$#.,:;!\\-"
_OPEN, _CLOSE = r"[*_`\"'(\[{<$]{0,4}", r"[*_`\"')\]}>$]{0,4}"
_BOXED = re.compile(r"\\(?:boxed|text|mathrm|mathbf)\s*\{([^{}]{0,99})\}")
_TAGGED = re.compile(r"<answer>(.{0,999}?)</answer>", re.DOTALL | re.IGNORECASE)
_FIRST = re.compile(rf"{_OPEN}([A-Za-z])({_CLOSE})")
# "U.S. flag" and "A. J. Foyt" begin with no letter of an option.
_INITIALS = re.compile(r"[A-Za-z]\.(?:[A-Za-z]\b|\s?[A-Z]\.)")
_GOES_ON = re.compile(r"\s*(?:$|\n|[.,;:!?)])|\s+[-–—=]\s|\s+(?:is|because|since|seems|as|which)\b")
_JOINED = re.compile(
    rf"{_CLOSE}\s*(?:[,/&+]|\bor\b|\band\b)\s*(?:(?:or|and)\s+)?(?:option\s+)?{_OPEN}([A-Z]){_CLOSE}(?![\w'-])"
)
_ANSWER_CUE = r"\b(?:answer|correct|right|best|choose|pick|select|go\s+with|say|therefore|conclusion|it\s+is|it's)"
_OPTION_CUE = r"\b(?:option|choice|letter)"
_FILLING = r"\b(?:\s+(?:is|are|be|must|should|would|the|correct|right|best|answer|option|choice|letter)\b){0,5}"
_BEHIND = rf"[\s*_]{{0,4}}[,:=]?[\s*_]{{0,4}}{_OPEN}([A-Za-z])({_CLOSE})(?![\w'-])"
_AS_ANSWER = re.compile(_ANSWER_CUE + _FILLING + _BEHIND, re.IGNORECASE)
_AS_OPTION = re.compile(_OPTION_CUE + _FILLING + _BEHIND, re.IGNORECASE)
_PRAISED = re.compile(
    rf"(?<![\w'.-]){_OPEN}([A-Z]){_CLOSE}\s+(?:is|must be|would be)\s+(?:the\s+)?(?:correct|right|best|answer)\b"
)
_DENIED = re.compile(r"\s*(?:is|was|are)?\s*(?:not\b|n't|wrong\b|incorrect\b|false\b)", re.IGNORECASE)
_DENYING = re.compile(r"(?:\bnot|n't|\bneither|\bnor|\bthan|\bnever)\s+(?:the\s+)?$", re.IGNORECASE)
_PREFACE = re.compile(
    r"(?:so\s+|therefore,?\s+)?(?:(?:the\s+)?(?:(?:correct|right|best|final)\s+)?(?:answer|option|choice)\s*(?:is\b|:)|"
    r"it\s+is\b|it's\b)\s*:?",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"[(\[]([A-Z])[)\]]|\*\*([A-Z])[.)]?\*\*|`([A-Z])`")


def letter_of(text: str, num_options: int, options: Sequence[str] = ()) -> str | None:
    """The option that an answer names, "A" upwards; None where it names none, or more than one.

    The first way of reading that finds a letter decides: a letter alone, at the beginning, behind "the answer is" or
    "option", the words of an option, a letter in brackets, a letter alone on the last line.
    """
    if not 1 <= num_options <= len(LETTERS):
        raise ValueError(f"there can be 1 to {len(LETTERS)} options; got {num_options}")
    reading = _Reading(_unwrapped(plain(text)).strip(), LETTERS[:num_options], tuple(options[:num_options]))
    for read in reading.ways():
        found = {letter for letter in read() if letter in reading.known}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _unwrapped(text: str) -> str:
    """Out of the tags and boxes that some models put around their answer."""
    tagged = _TAGGED.findall(text)
    inner = tagged[-1] if tagged else text
    if not _BOXED.search(inner):
        return inner
    # Twice, for \boxed{\text{B}}, and without the marks of a formula around it.
    bare = _BOXED.sub(r" \1 ", _BOXED.sub(r" \1 ", inner))
    return " ".join(bare.replace("$", " ").split())


@dataclass(frozen=True, slots=True)
class _Reading:
    """The ways to read one answer. Each returns the letters that it finds, of options that exist or not."""

    said: str
    known: str
    options: tuple[str, ...]

    def ways(self) -> tuple[Callable[[], set[str]], ...]:
        return (
            self.exactly,
            self.alone,
            self.at_the_beginning,
            self.as_answer,
            self.as_option,
            self.in_words,
            self.in_brackets,
            self.on_the_last_line,
        )

    def exactly(self) -> set[str]:
        """An option to the letter: "A. Smith" is a name where an option is just that."""
        said = self.said.casefold().rstrip(".")
        found = {LETTERS[at] for at, option in enumerate(self.options) if plain(option).casefold().rstrip(".") == said}
        return found if len(said) > 1 and len(found) == 1 else set()

    def alone(self) -> set[str]:
        left = self.said.strip(_DRESS)
        return {left.upper()} if len(left) == 1 and left.isascii() and left.isalpha() else set()

    def at_the_beginning(self) -> set[str]:
        """ "B. A map", "(B) a map", "B: a map", "B because ..."; not "A man", "B-2" or "U.S."."""
        first = _FIRST.match(self.said)
        if not first or _INITIALS.match(self.said):
            return set()
        letter, closed, after = first[1], first[2], self.said[first.end() :]
        if not (self._is_marked(letter, closed, after) or self._names(letter, after)):
            return set()
        joined = _JOINED.match(self.said, first.end(1))
        if joined:
            return {letter.upper(), joined[1]}
        rest = after.lstrip(_DRESS)
        if after.startswith(":") and len(rest.rstrip(_DRESS)) == 1:  # "A: B", A being short for answer
            return {rest[0].upper()}
        return {letter.upper()} | (self._options_of(rest) if self._options_of(rest) - {letter.upper()} else set())

    def _is_marked(self, letter: str, closed: str, after: str) -> bool:
        if closed:
            return not (closed[-1] in "'_" and after[:1].isalnum())
        if after[:1] in (".", ")", ":"):
            # "B.Map" is a letter and a word, "e.g" is not.
            return after[0] != "." or not after[1:2].isalnum() or after[1:2].isupper()
        return letter.isupper() and bool(_GOES_ON.match(after)) and letter != "I"

    def _names(self, letter: str, after: str) -> bool:
        """Whether the words behind an upper-case letter are those of its option: "B A map"."""
        return letter.isupper() and after[:1].isspace() and letter in self._options_of(after)

    def as_answer(self) -> set[str]:
        return self._behind(_AS_ANSWER) | {found[1] for found in _PRAISED.finditer(self.said)}

    def as_option(self) -> set[str]:
        return self._behind(_AS_OPTION)

    def _behind(self, cue: re.Pattern[str]) -> set[str]:
        letters: set[str] = set()
        for found in cue.finditer(self.said):
            letter, after = found[1], self.said[found.end() :]
            denied = _DENIED.match(after) or _DENYING.search(self.said[max(0, found.start() - 20) : found.start()])
            if denied or not (found[2] or _GOES_ON.match(after) or self._names(letter, after)):
                continue
            if letter.islower() and "it" in found[0].lower().split()[0]:
                continue  # "it is a ..." is no letter
            letters.add(letter.upper())
            joined = _JOINED.match(self.said, found.end(1))
            if joined:
                letters.add(joined[1])
        return letters

    def in_words(self) -> set[str]:
        """The words of one option and no others, "the answer is" let be."""
        return self._options_of(self.said) or self._options_of(_PREFACE.sub("", self.said, count=1))

    def _options_of(self, text: str) -> set[str]:
        """The option whose words these are; none where two options have them."""
        words = words_of(text)
        found = {LETTERS[at] for at, option in enumerate(self.options) if words and words_of(option) == words}
        return found if len(found) == 1 else set()

    def in_brackets(self) -> set[str]:
        return {letter for found in _BRACKETED.findall(self.said) for letter in found if letter}

    def on_the_last_line(self) -> set[str]:
        last = self.said.rsplit("\n", 1)[-1].strip(_DRESS) if "\n" in self.said else ""
        return {last.upper()} if len(last) == 1 and last.isascii() and last.isalpha() else set()

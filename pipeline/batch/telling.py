"""Telling: titles and a summary from the log, by the model, in pieces that its context holds."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from ...encoders import Row, VideoLLM
from ...stream import Span
from ..config import EngineConfig
from ..generate import Prompt, generate
from ..output import clock
from ..prompts import prompts_for
from .chapters import Chapter
from .record import Said, one_line

_log = logging.getLogger(__name__)

_TITLE_CHARS, _TITLE_TOKENS = 80, 24
_TOLD_CHARS = 240
_TOGETHER = 4  # prompts that are decoded together
_SLACK_TOKENS = 16  # words at a seam may take a token more than alone

_PART = (
    "These are notes on a part of a video, with times in seconds:\n{log}\nSummarize this part in one or two sentences."
)
_TITLE = (
    "These are notes on a part of a video, with times in seconds:\n{log}\n"
    "Give this part a title of at most eight words. Answer with the title alone."
)


class Told(NamedTuple):
    """A video in words. titles, gists: of its chapters, in order."""

    summary: str
    titles: tuple[str, ...]
    gists: tuple[str, ...]


class Teller(ABC):
    """Says of chapters what they are about. Not thread-safe: its worker's."""

    @abstractmethod
    def tell(self, chapters: Sequence[Chapter]) -> Told:
        """A title and a gist for each chapter, and a summary of them all. Of chapters without a line: empty ones."""


def teller_for(model: VideoLLM, config: EngineConfig, *, notes_tokens: int) -> Teller:
    """The one that suits the model: by its own words about its notes, where it can work from notes."""
    prompts = config.prompts or prompts_for(model.spec.name)
    if prompts.recount is None:
        return Quoting()
    return Recounting(model, recount=prompts.recount, max_new_tokens=config.max_new_tokens, notes_tokens=notes_tokens)


class Quoting(Teller):
    """In the words of the log, for a model that only knows what it sees: each line was told from sight, and the
    summary names them chapter by chapter. The parts are the model's, and putting them together takes none."""

    def tell(self, chapters: Sequence[Chapter]) -> Told:
        titles, gists = [], []
        for chapter in chapters:
            words = "; ".join(dict.fromkeys(line.text for line in chapter.said))
            titles.append(_shortened(words, _TITLE_CHARS))
            gists.append(_shortened(words, _TOLD_CHARS))
        if len(chapters) == 1:
            return Told(gists[0], tuple(titles), tuple(gists))
        lines = [f"{clock(c.span.start_s)} - {clock(c.span.end_s)}: {g}" for c, g in zip(chapters, gists, strict=True)]
        return Told("\n".join(lines), tuple(titles), tuple(gists))


class Recounting(Teller):
    """In the model's words, map and reduce:

        lines of a chapter -> as many notes as fit -> a gist of each -> ... -> one gist -> a title
        gists of all chapters -> ... as many notes as fit -> the summary

    notes_tokens: length of what is summarised at a time; less where the model's context is shorter.
    """

    def __init__(self, model: VideoLLM, *, recount: str, max_new_tokens: int, notes_tokens: int) -> None:
        self._model, self._recount, self._max_new_tokens = model, recount, max_new_tokens
        overhead = max(self._num_tokens(prompt.replace("{log}", "-")) for prompt in (recount, _PART, _TITLE))
        room = model.spec.max_positions - len(model.prefix().ids) - overhead - max_new_tokens - _SLACK_TOKENS
        self._room = min(notes_tokens, room)
        if self._room < 4 * _SLACK_TOKENS:
            raise ValueError(
                f"{model.spec.name} was trained for {model.spec.max_positions} positions, which leaves {room} for "
                f"notes; got notes_tokens={notes_tokens} and max_new_tokens={max_new_tokens}; shorten its answers"
            )

    def tell(self, chapters: Sequence[Chapter]) -> Told:
        gists = self._gists([chapter.said for chapter in chapters])
        told = [Said(c.span, gist) for c, gist in zip(chapters, gists, strict=True) if gist]
        notes = {n: [Said(c.span, gists[n])] for n, c in enumerate(chapters) if gists[n]}
        asked = [self._prompt(_TITLE, one) for one in notes.values()]
        words = self._answers(asked, _TITLE_TOKENS)
        titles = [""] * len(chapters)
        for n, title in zip(notes, words, strict=True):
            titles[n] = _shortened(title.strip(" \"'*#.") or gists[n], _TITLE_CHARS)
        summary = ""
        if told:
            fitting = self._shrunk([told])[0]
            (summary,) = self._answers([self._prompt(self._recount, fitting)], self._max_new_tokens)
        return Told(summary or " ".join(gists).strip(), tuple(titles), tuple(gists))

    def _gists(self, logs: Sequence[Sequence[Said]]) -> list[str]:
        """One text for each log; what is one line already is its own."""
        shrunk = self._shrunk(logs)
        several = [n for n, notes in enumerate(shrunk) if len(notes) > 1]
        answers = self._answers([self._prompt(_PART, shrunk[n]) for n in several], self._max_new_tokens)
        texts = [notes[0].text if notes else "" for notes in shrunk]
        for n, answer in zip(several, answers, strict=True):
            texts[n] = answer or _shortened("; ".join(note.text for note in shrunk[n]), _TOLD_CHARS)
        return texts

    def _shrunk(self, logs: Sequence[Sequence[Said]]) -> list[list[Said]]:
        """The logs, each so short that it fits one prompt: of longer ones, parts that fit become a note each, until
        they do. Every round puts two notes in one at least, so it ends."""
        left = [[self._cut(note) for note in log] for log in logs]
        while True:
            groups = [self._groups(notes) for notes in left]
            long = [n for n, parts in enumerate(groups) if len(parts) > 1]
            if not long:
                return left
            several = [(n, part) for n in long for part in groups[n] if len(part) > 1]
            answers = iter(self._answers([self._prompt(_PART, part) for _, part in several], self._max_new_tokens))
            for n in long:
                left[n] = [self._cut(part[0] if len(part) == 1 else _joined(part, next(answers))) for part in groups[n]]

    def _groups(self, notes: Sequence[Said]) -> list[list[Said]]:
        """Notes that follow on one another, as many in each group as fit."""
        groups: list[list[Said]] = []
        num_tokens = 0
        for note in notes:
            num_more = self._cost(note)
            if not groups or num_tokens + num_more > self._room:
                groups.append([])
                num_tokens = 0
            groups[-1].append(note)
            num_tokens += num_more
        return groups

    def _cut(self, note: Said) -> Said:
        """The note, no longer than half the room, so that any two fit together."""
        while self._cost(note) > self._room // 2:
            note = Said(note.span, one_line(note.text[: len(note.text) * 3 // 4]) or "-")
        return note

    def _cost(self, note: Said) -> int:
        return len(self._model.encode(_note(note) + "\n"))

    def _num_tokens(self, text: str) -> int:
        return len(self._model.question(text).ids)

    def _prompt(self, prompt: str, notes: Sequence[Said]) -> str:
        return prompt.replace("{log}", "\n".join(map(_note, notes)))

    def _answers(self, questions: Sequence[str], max_new_tokens: int) -> list[str]:
        """Each in a context of its own with no pictures in it, several decoded together."""
        answers: list[str] = []
        for start in range(0, len(questions), _TOGETHER):
            prompts = []
            for question in questions[start : start + _TOGETHER]:
                context = self._model.new_context()
                self._model.read([Row(context, (self._model.prefix(),))])
                prompts.append(Prompt(context, self._model.question(question), max_new_tokens))
            answers += [one_line(generated.text) for generated in generate(self._model, prompts)]
        return answers


def _note(note: Said) -> str:
    return f"{note.span.start_s:.0f} - {note.span.end_s:.0f}: {note.text}"


def _joined(part: Sequence[Said], text: str) -> Said:
    span = Span(part[0].span.start_s, max(note.span.end_s for note in part))
    return Said(span, text or _shortened("; ".join(note.text for note in part), _TOLD_CHARS) or "-")


def _shortened(text: str, num_chars: int) -> str:
    """As much of it as fits, cut between words."""
    if len(text) <= num_chars:
        return text
    head = text[: num_chars - 1].rsplit(" ", 1)[0] or text[: num_chars - 1]
    return head.rstrip(" ,;") + "…"

"""StreamingBench: real-time, omni-source, sequential and proactive questions, from its annotation files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .entries import (
    MAX_WAIT_S,
    Entry,
    check_folder,
    is_number,
    questions_file,
    read_list,
    refuse_settings,
    shown,
)
from .item import LETTERS, Item, Scored
from .scoring import has_words
from .suites import Suite, groups, mean

FILES = ("questions_real.json", "questions_omni.json", "questions_sqa.json", "questions_proactive.json")
# Seconds after the right moment until which a proactive question is polled.
POLLED_AFTER_S = 4.0
SEQUENTIAL, PROACTIVE = "Sequential Question Answering", "Proactive Output"
GROUPS = {
    "Emotion Recognition": "omni-source",
    "Scene Understanding": "omni-source",
    "Source Discrimination": "omni-source",
    "Multimodal Alignment": "omni-source",
    "Anomaly Context Understanding": "contextual",
    "Misleading Context Understanding": "contextual",
    SEQUENTIAL: "contextual",
    PROACTIVE: "contextual",
}
# As early versions of the files name them.
_OLD_NAMES = {"Related Context Understanding": SEQUENTIAL, "Active Output": PROACTIVE}
_TIME = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2}(?:\.\d{1,6})?)", re.ASCII)
_LETTERED = re.compile(r"\(?([A-Z])\s*[.):]\s*(?=\S)")
_ANSWER = re.compile(r"\(?([A-Za-z])\)?(?:[.):\s].*)?", re.DOTALL)


class StreamingBenchSuite(Suite):
    """Reads a `questions_*.json`, or all four out of one folder; videos are named `./videos/NAME` in them, and lie
    in `videos/` below the folder, or in the folder itself.

    Choices are asked at `time_stamp`. Sequential questions (a list of lists) have their conversation before them
    (`Item.context`). Proactive questions say what to wait for: polled each second after `time_stamp`, until 4 s
    after `ground_truth_time_stamp`; right if the first yes is at most 2 s from it, before or after.

    Settings:
        window_s: how much before `time_stamp` may be seen; None: everything from the beginning.

    Paper: StreamingBench: Assessing the Gap for MLLMs to Achieve Streaming Video Understanding (arXiv 2411.03628)

    Taken from the paper and the published scripts: moments of asking, polling each second from one second after the
    question until 4 s after the right moment, the tolerance of 2 s, the conversation with the right answers of the
    earlier questions, accuracy over questions, and the three groups (`by_group`): real-time visual, omni-source,
    contextual. `time` in the files is no limit: many questions are asked outside it.

    Differs: the questions are in our own words. Without `window_s` the stream is seen from its beginning, as one
    pass sees it, where the scripts cut a clip per question (the published runs differ in how long a one; theirs for
    proactive questions begins at the question, or 80 s before it). Sound is not heard, so omni-source questions rest
    on pictures alone. An answer is parsed (`scoring`), where the script takes its first character. A proactive
    question is right by its time; `proactive.in_time_and_said` is the script's second figure, where also
    the answer given at that time has the words of `ground_truth_output` in it. A question of a conversation that was
    asked at a later time than this one is not told before it.
    """

    about = "StreamingBench: real-time visual, omni-source (without sound) and contextual questions"
    tolerance_s = 2.0

    def items(self, path: Path | None, videos: Path | None, **settings: Any) -> list[Item]:
        refuse_settings(settings, ("window_s",))
        window_s = settings.get("window_s")
        if window_s is not None and not (is_number(window_s) and window_s > 0):
            raise ValueError(f"window_s must be more than 0, or none for everything; got {window_s!r}")
        check_folder(videos)
        reading = _Reading(videos, window_s)
        items = [item for file in _files(path) for item in reading.items(file)]
        seen: set[str] = set()
        for item in items:
            if item.id in seen:
                raise ValueError(f"two files have questions of one part; got {item.id!r} twice")
            seen.add(item.id)
        return items

    def summary(self, scored: Sequence[Scored]) -> dict[str, Any]:
        """As the base, with by_group, and the two figures of proactive questions where there are some."""
        summary = super().summary(scored)
        summary["by_group"] = groups(scored, lambda one: GROUPS.get(one.item.kind, "real-time visual"))
        moments = [one for one in scored if one.item.form == "moment"]
        if moments:
            said = any(one.said.text.strip() for one in moments)
            both = mean(one.score * has_words(one.said.text, one.item.answer) for one in moments)
            summary["proactive"] = {
                "in_time": mean(one.score for one in moments),
                "in_time_and_said": both if said else None,
            }
        return summary


def _files(path: Path | None) -> list[Path]:
    if path is None or not path.is_dir():
        return [questions_file(path)]
    found = [path / name for name in FILES if (path / name).is_file()]
    if not found:
        raise ValueError(f"none of {', '.join(FILES)} is in the folder; got {str(path)!r}")
    return [questions_file(file) for file in found]


@dataclass(frozen=True, slots=True)
class _Reading:
    """How one run of the reader reads."""

    videos: Path | None
    window_s: float | None

    def items(self, path: Path) -> Iterator[Item]:
        """Ids are the part and the place in the file, which has none of its own."""
        entries = read_list(path)
        nested = isinstance(entries[0], list)
        part = "sqa" if nested else _part(entries[0], f"{path.name}, entry 0")
        for number, fields in enumerate(entries):
            where = f"{path.name}, entry {number}"
            if nested:
                yield from self._conversation(fields, where, f"{part}-{number}")
            else:
                yield from self._block(Entry(fields, where), f"{part}-{number}")

    def _conversation(self, blocks: Any, where: str, id: str) -> Iterator[Item]:
        if not isinstance(blocks, list) or not blocks:
            raise ValueError(f"{where}: must be a list of one or more blocks; got {shown(blocks)}")
        before: list[Item] = []
        for number, fields in enumerate(blocks):
            block = Entry(fields, f"{where}, block {number}")
            for place, question in enumerate(block.entries("questions")):
                before.append(self._item(block, question, f"{id}-{number}-{place}", before))
                yield before[-1]

    def _block(self, block: Entry, id: str) -> Iterator[Item]:
        for place, question in enumerate(block.entries("questions")):
            yield self._item(block, question, f"{id}-{place}", ())

    def _item(self, block: Entry, question: Entry, id: str, before: Sequence[Item]) -> Item:
        at_s = _seconds(question, "time_stamp")
        kind = question.line("task_type")
        shared: dict[str, Any] = {
            "id": id,
            "video": block.video("video_path", self.videos, inner="videos"),
            "at_s": at_s,
            "question": question.text("question"),
            "kind": _OLD_NAMES.get(kind, kind),
            "since_s": 0.0 if self.window_s is None else max(0.0, at_s - self.window_s),
            "context": tuple(item.id for item in before if item.at_s <= at_s),
        }
        if "ground_truth_time_stamp" in question:
            right_at_s = _seconds(question, "ground_truth_time_stamp")
            if right_at_s > at_s + MAX_WAIT_S:
                question.refuse("ground_truth_time_stamp", "at most a day after time_stamp")
            return Item(
                answer=question.text("ground_truth_output"),
                form="moment",
                category="forward",
                right_at_s=right_at_s,
                until_s=max(at_s, right_at_s + POLLED_AFTER_S),
                **shared,
            )
        if "options" not in question:
            return Item(answer=question.text("answer"), form="words", category="real-time", **shared)
        options = _options(question)
        return Item(
            answer=_answer(question, len(options)), form="choice", category="real-time", options=options, **shared
        )


def _part(fields: Any, where: str) -> str:
    first = Entry(fields, where).entries("questions")[0]
    if "ground_truth_time_stamp" in first:
        return "proactive"
    return "omni" if first.line("task_type") in GROUPS else "real"


def _seconds(entry: Entry, name: str) -> float:
    """From hours, minutes and seconds, or minutes and seconds."""
    found = _TIME.fullmatch(entry.line(name))
    if not found:
        entry.refuse(name, "a time such as 00:03:10")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def _options(entry: Entry) -> tuple[str, ...]:
    """Without their letters, where most have their own: a player named A. Smith, alone, keeps his."""
    options = entry.texts("options")
    if not 2 <= len(options) <= len(LETTERS):
        entry.refuse("options", f"a list of 2 to {len(LETTERS)} texts")
    found = [_LETTERED.match(option) for option in options]
    lettered = [match if match and match[1] == letter else None for match, letter in zip(found, LETTERS, strict=False)]
    if 2 * sum(match is not None for match in lettered) <= len(options):
        return options
    return tuple(option[match.end() :] if match else option for option, match in zip(options, lettered, strict=True))


def _answer(entry: Entry, num_options: int) -> str:
    found = _ANSWER.fullmatch(entry.text("answer"))
    if not found or found[1].upper() not in LETTERS[:num_options]:
        entry.refuse("answer", f"a letter from A to {LETTERS[num_options - 1]}")
    return found[1].upper()

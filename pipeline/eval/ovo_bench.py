"""OVO-Bench: twelve tasks over three categories, from its annotation file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .entries import Entry, check_folder, questions_file, read_list, refuse_settings
from .item import LETTERS, Item, Scored
from .suites import Suite, groups, mean

TASKS = {
    "EPM": "backward",
    "ASI": "backward",
    "HLD": "backward",
    "OCR": "real-time",
    "ACR": "real-time",
    "ATR": "real-time",
    "STU": "real-time",
    "FPD": "real-time",
    "OJR": "real-time",
    "REC": "forward",
    "SSR": "forward",
    "CRR": "forward",
}
_MOST_COUNTED = 1_000_000
_CUT_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)


class OVOBenchSuite(Suite):
    """Reads `ovo_bench_new.json`; the videos lie below the folder as the file names them, or cut, as `ID.mp4` and
    `ID_NUMBER.mp4`, the names that the published archive of cut videos has.

    Backward and real-time tasks are one choice at `realtime`. Forward tasks are asked again at each moment of
    `test_info`, each an item of its own: REC how often an activity has been done by then (`count`), SSR whether a
    step is being done just then, CRR whether there has been enough to answer a question (`type` 1: yes).

    Paper: OVO-Bench: How Far is Your Video-LLMs from Real-World Online Video Understanding? (arXiv 2501.05510)

    Taken from the paper and the published scripts: tasks and categories, moments of asking, the video being seen from
    its beginning, one point per moment for forward tasks, the mean over the tasks of a category, and for all the mean
    over the three categories, as published tables average them. `accuracy_over_tasks` is the total that the
    published script prints: the mean over all tasks.

    Differs: the questions are in our own words. An answer is parsed (`scoring`); the script takes any answer that
    contains the right letter, or "Yes", and for REC all digits of an answer as one number.
    """

    about = "OVO-Bench: twelve tasks in backward tracing, real-time perception and forward responding"

    def items(self, path: Path | None, videos: Path | None, **settings: Any) -> list[Item]:
        refuse_settings(settings)
        path = questions_file(path)
        check_folder(videos)
        items: dict[str, Item] = {}
        for number, fields in enumerate(read_list(path)):
            for item in _items_of(Entry(fields, f"{path.name}, entry {number}"), videos):
                if item.id in items:
                    raise ValueError(f"{path.name}, entry {number}: id must be its own; got {item.id!r} again")
                items[item.id] = item
        return list(items.values())

    def summary(self, scored: Sequence[Scored]) -> dict[str, Any]:
        """As the base, with accuracy the mean over categories of the mean over their tasks."""
        summary = super().summary(scored)
        for category, figures in summary["by_category"].items():
            tasks = groups((one for one in scored if one.item.category == category), lambda one: one.item.kind)
            figures["accuracy"] = mean(task["accuracy"] for task in tasks.values())
        summary["accuracy"] = mean(figures["accuracy"] for figures in summary["by_category"].values())
        summary["accuracy_over_tasks"] = mean(figures["accuracy"] for figures in summary["by_type"].values())
        return summary


def _items_of(entry: Entry, videos: Path | None) -> Iterator[Item]:
    given = entry.raw("id")
    id = str(entry.whole("id", most=10**9)) if isinstance(given, int) else entry.line("id")
    task = entry.line("task").upper()
    if task not in TASKS:
        entry.refuse("task", f"one of {', '.join(TASKS)}")
    if TASKS[task] != "forward":
        options = _options(entry)
        yield Item(
            id=id,
            video=_video(entry, videos, id),
            at_s=entry.seconds("realtime"),
            question=entry.text("question"),
            answer=LETTERS[entry.whole("gt", most=len(options) - 1)],
            form="choice",
            kind=task,
            category=TASKS[task],
            options=options,
        )
        return
    for number, test in enumerate(entry.entries("test_info")):
        yield Item(
            id=f"{id}_{number}",
            video=_video(entry, videos, f"{id}_{number}"),
            at_s=test.seconds("realtime"),
            question=_forward_question(entry, test, task),
            answer=_forward_answer(test, task),
            form="number" if task == "REC" else "yes_no",
            kind=task,
            category="forward",
        )


def _options(entry: Entry) -> tuple[str, ...]:
    options = entry.texts("options")
    if not 2 <= len(options) <= len(LETTERS):
        entry.refuse("options", f"a list of 2 to {len(LETTERS)} texts")
    return options


def _video(entry: Entry, videos: Path | None, cut_name: str) -> str:
    """The whole video, or, where that is not there, the one that ends at the moment of asking."""
    whole = entry.video("video", videos)
    if videos is not None and _CUT_NAME.fullmatch(cut_name) and not Path(whole).exists():
        cut = videos.absolute() / f"{cut_name}.mp4"
        if cut.exists():
            return str(cut)
    return whole


def _forward_question(entry: Entry, test: Entry, task: str) -> str:
    if task == "REC":
        activity = entry.text("activity")
        return (
            f"How many times in all has this been done by now, by whoever is in the video: {activity}? "
            "Each complete movement counts once."
        )
    if task == "SSR":
        return f"Is someone in the video doing this step right now: {test.text('step')}?"
    return f"{entry.text('question')}\nHas the video by now, above all its newest part, shown enough to answer this?"


def _forward_answer(test: Entry, task: str) -> str:
    if task == "REC":
        return str(test.whole("count", most=_MOST_COUNTED))
    return "yes" if test.whole("type", most=1) else "no"

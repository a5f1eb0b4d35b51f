"""SUITES: what `millpond eval SUITE` can ask. A suite is one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ...stream import Table
from .item import Item, Said, Scored
from .scoring import score


class Suite(ABC):
    """Questions with known answers, and how they are scored: made with no arguments.

    about: what it asks, as `--help` shows it.
    tolerance_s: how far from its moment the first yes to a "moment" may be.
    """

    about: str
    tolerance_s: float = 2.0

    @abstractmethod
    def items(self, path: Path | None, videos: Path | None, **settings: Any) -> list[Item]:
        """All questions, in the order of the annotation file; ids are unique.

        path: the annotation file; None for a suite that makes its own questions.
        videos: the folder below which the videos are looked for. That one is missing is the runner's to say.

        Raises:
            ValueError: what is wrong with the file, with the entry and the field.
        """

    def score(self, item: Item, said: Said) -> float:
        """How right an answer is, 0 to 1."""
        return score(item, said, tolerance_s=self.tolerance_s)

    def summary(self, scored: Sequence[Scored]) -> dict[str, Any]:
        """accuracy, num_questions, num_right, by_type and by_category: JSON-ready; a suite may add its own keys."""
        return {
            "accuracy": mean(one.score for one in scored),
            "num_questions": len(scored),
            "num_right": sum(one.score for one in scored),
            "by_type": groups(scored, lambda one: one.item.kind),
            "by_category": groups(scored, lambda one: one.item.category),
        }


def mean(values: Iterable[float]) -> float | None:
    """None of nothing, which JSON can say and 0/0 cannot."""
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


def groups(scored: Iterable[Scored], key: Callable[[Scored], str]) -> dict[str, dict[str, Any]]:
    """Accuracy, questions and right answers of each group, in the order of their first question."""
    parts: dict[str, list[float]] = {}
    for one in scored:
        parts.setdefault(key(one), []).append(one.score)
    return {
        name: {"accuracy": mean(scores), "num_questions": len(scores), "num_right": sum(scores)}
        for name, scores in parts.items()
    }


SUITES: Table[Suite] = Table(
    "suite",
    __package__ or "",
    {
        "jsonl": "jsonl:JsonlSuite",
        "ovo": "ovo_bench:OVOBenchSuite",
        "shapes": "shapes:ShapesSuite",
        "streamingbench": "streamingbench:StreamingBenchSuite",
    },
)

"""Methods: everything that can be chosen by name, as its tables and docstrings say it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import getdoc
from typing import Any

from ..encoders.compressors import COMPRESSORS
from ..encoders.reuse import REUSERS
from ..encoders.selectors import SELECTORS
from ..memory import CODECS, EVICTORS, PRUNERS, RETRIEVERS, TIERS
from ..memory.depots import DEPOTS
from ..memory.recall_gate import RECALL_GATES
from ..stream import GATES, SAMPLERS, Table

# kind -> its table, and the place of its methods on the way from picture to answer
KINDS: dict[str, tuple[Table[Any], str]] = {
    "samplers": (SAMPLERS, "frames: which are due"),
    "gates": (GATES, "frames: which are news"),
    "selectors": (SELECTORS, "frames of a recording: which are looked at"),
    "reusers": (REUSERS, "inside the vision tower"),
    "compressors": (COMPRESSORS, "after the tower, before the language model"),
    "pruners": (PRUNERS, "tokens of a block that leaves the recent window: which stay"),
    "codecs": (CODECS, "keys and values at rest"),
    "tiers": (TIERS, "where keys and values are kept"),
    "evictors": (EVICTORS, "when their cap is reached"),
    "depots": (DEPOTS, "where what was seen outlives the process"),
    "recall gates": (RECALL_GATES, "a question: whether history is opened"),
    "retrievers": (RETRIEVERS, "a question: which blocks it needs"),
}


@dataclass(frozen=True, slots=True)
class Method:
    """One row of one table. Made by `list_of`, read by the command line.

    source: the paper with its arXiv id, or what it is a baseline of; empty where the docstring names neither.
    needs: what it cannot do without, in words.
    is_offline_as_published: its paper looks at the whole video, and this does not: the paper's numbers are not its own.
    """

    kind: str
    name: str
    stage: str
    about: str
    source: str
    needs: tuple[str, ...]
    is_offline_as_published: bool


def list_of(kind: str | None = None) -> list[Method]:
    """All methods, or those of one kind; ValueError, with the kinds there are, for another."""
    if kind is not None and kind not in KINDS:
        raise ValueError(f"no kind of method named {kind!r}; there are: {', '.join(KINDS)}")
    return [_method(one, name) for one in KINDS if kind in (None, one) for name in KINDS[one][0]]


def as_text(methods: Sequence[Method]) -> str:
    """For people at a terminal: a paragraph for each method, under its kind."""
    lines: list[str] = []
    for kind in dict.fromkeys(method.kind for method in methods):
        lines += ([""] if lines else []) + [f"{kind} ({KINDS[kind][1]})"]
        for method in methods:
            if method.kind == kind:
                lines += [f"  {method.name:20} {method.about}", *(f"  {'':20} {extra}" for extra in _extras(method))]
    return "\n".join(lines)


def as_markdown(methods: Sequence[Method]) -> str:
    """For a README: a table for each kind."""
    lines: list[str] = []
    for kind in dict.fromkeys(method.kind for method in methods):
        lines += ([""] if lines else []) + [f"| {kind} | {KINDS[kind][1]} | from |", "|---|---|---|"]
        for method in methods:
            if method.kind == kind:
                lines.append(f"| `{method.name}` | {method.about} | {' '.join(_extras(method))} |")
    return "\n".join(lines)


def _extras(method: Method) -> list[str]:
    extras = [f"{method.source.rstrip('.')}."] if method.source and method.source != method.about else []
    if method.is_offline_as_published:
        extras.append("A causal variant: the paper looks at the whole video.")
    if method.needs:
        extras.append(f"Needs {' and '.join(method.needs)}.")
    return extras


def _method(kind: str, name: str) -> Method:
    table, stage = KINDS[kind]
    method = table[name]
    doc = getdoc(method) or ""
    found = re.search(r"^(?:Paper: |(?=Baseline))(.*(?:\n +.*)*)", doc, re.MULTILINE)
    return Method(
        kind=kind,
        name=name,
        stage=stage,
        about=" ".join(doc.split("\n\n")[0].split()),
        source=" ".join(found[1].split()) if found else "",
        needs=tuple(sorted(need.value for need in getattr(method, "needs", ()))),
        is_offline_as_published=bool(getattr(method, "is_offline_as_published", False)),
    )

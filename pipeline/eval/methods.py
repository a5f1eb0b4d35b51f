"""METHODS: every way of watching that is compared, by name. Rows of the tables are here by themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

from ...encoders.compressors import COMPRESSORS
from ...encoders.reuse import REUSERS
from ...encoders.sight import Need
from ...memory import CODECS, EVICTORS, PRUNERS, RETRIEVERS
from ...memory.recall_gate import RECALL_GATES
from ...stream import GATES, Table
from ..config import EngineConfig
from . import baselines
from .baselines import BUILT_IN, about, keeping_few, usual_memory, with_memory
from .method import EvalMethod
from .showing import Streamed

# What is compared where nothing else is said: simple baselines, peers, Millpond.
MAIN = (
    *("millpond", "blind", "dense", "last-4", "last-16", "uniform-16", "fifo-64", "timer", "stc-cacher", "stc-pruner"),
    *("stc", "rekv", "streaming-llm"),
)

_ROWS: dict[str, Callable[[], EvalMethod]] = {
    "millpond": baselines.millpond,
    "millpond-small": baselines.millpond_small,
    "blind": baselines.blind,
    "dense": baselines.dense,
    "timer": baselines.timer,
    "narrator": baselines.narrator,
    "stc-cacher": baselines.stc_cacher,
    "stc-pruner": baselines.stc_pruner,
    "stc": baselines.stc,
    "rekv": baselines.rekv,
    "streaming-llm": baselines.streaming_llm,
}
# Rows with a count in their name, and the counts that are listed; any other does too.
_COUNTED: dict[str, tuple[Callable[[int], EvalMethod], tuple[int, ...]]] = {
    "last": (baselines.last, (4, 16, 64)),
    "uniform": (baselines.uniform, (16, 64)),
    "fifo": (baselines.fifo, (16, 64)),
}

# So little that blocks leave on a stream of minutes; real models' are larger.
_SMALL_BYTES = {True: 2**20, False: 128 * 2**20}

Put = Callable[[EngineConfig, Any], EngineConfig]


class _Family(NamedTuple):
    """The rows of one table, each in the place of what Millpond takes by default.

    usual: what it takes; where that is the name of a row, the row is not listed again.
    put: from the settings and a part to settings with that part.
    """

    table: Table[Any]
    usual: Any
    put: Put


_USUAL, _MEMORY = EngineConfig(), usual_memory(EngineConfig())
_FAMILIES: dict[str, _Family] = {
    "gate": _Family(GATES, _USUAL.gate, lambda base, part: replace(base, gate=part)),
    "reuser": _Family(
        REUSERS, "delta" if _USUAL.reuse == "auto" else _USUAL.reuse, lambda base, part: replace(base, reuse=part)
    ),
    "compressor": _Family(COMPRESSORS, _USUAL.compressor, lambda base, part: replace(base, compressor=part)),
    "pruner": _Family(PRUNERS, _MEMORY.pruner, lambda base, part: with_memory(base, pruner=part)),
    "codec": _Family(CODECS, _MEMORY.codec, lambda base, part: with_memory(base, codec=part)),
    "evictor": _Family(
        EVICTORS,
        None,
        lambda base, part: with_memory(base, evictor=part, budget_bytes=_SMALL_BYTES[base.model == BUILT_IN]),
    ),
    "retriever": _Family(RETRIEVERS, _MEMORY.retriever, lambda base, part: with_memory(base, retriever=part)),
    "recall-gate": _Family(
        RECALL_GATES, _USUAL.history.gate, lambda base, part: replace(base, history=replace(base.history, gate=part))
    ),
}


class Methods(Mapping[str, EvalMethod]):
    """Ways of watching by name, made when they are asked for.

    A row of a table is `kind-name`, with hyphens throughout: `compressor-stc-pruner` is Millpond's defaults with that
    compressor. Left out are rows that need the question before the stream, and the one of each kind that Millpond takes
    anyway. `last-N`, `uniform-N` and `fifo-N` take any count.
    """

    def __getitem__(self, name: str) -> EvalMethod:
        if name in _ROWS:
            return _ROWS[name]()
        kind, _, count = name.rpartition("-")
        if kind in _COUNTED and re.fullmatch(r"[1-9][0-9]{0,5}", count):
            return _COUNTED[kind][0](int(count))
        if name in self.parts:
            return _with_part(name, *self.parts[name])
        raise ValueError(
            f"no method named {name!r}; there are: {', '.join(self)}; last, uniform and fifo take any count"
        )

    def __iter__(self) -> Iterator[str]:
        yield from _ROWS
        for kind, (_, counts) in _COUNTED.items():
            yield from (f"{kind}-{count}" for count in counts)
        yield from self.parts

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self[name])
        except ValueError:
            return False

    @cached_property
    def parts(self) -> dict[str, tuple[str, str]]:
        """Name of a method -> family and row that it is made from."""
        return {
            f"{kind}-{name.replace('_', '-')}": (kind, name)
            for kind, family in _FAMILIES.items()
            for name in family.table
            if name != family.usual and _streams(family.table[name])
        }


METHODS = Methods()


def choose(given: str) -> list[EvalMethod]:
    """Methods by their names, with commas between them: also `main` for MAIN, `all`, and `compressor` or another kind
    for its rows. None comes twice. ValueError for a name that is none."""
    names: dict[str, None] = {}
    for word in (part.strip() for part in given.split(",")):
        if word == "all":
            found = list(METHODS)
        elif word == "main":
            found = list(MAIN)
        elif word in _FAMILIES:
            found = [name for name, (kind, _) in METHODS.parts.items() if kind == word]
        else:
            found = [word]
        names |= dict.fromkeys(found)
    return [METHODS[name] for name in names]


def _streams(part: type[Any]) -> bool:
    """Whether it works on a stream of which nobody knows what will be asked, and which has no end."""
    return Need.TEXT not in getattr(part, "needs", ()) and not getattr(part, "look_ahead_frames", 0)


def _with_part(name: str, kind: str, row: str) -> EvalMethod:
    part, put = _FAMILIES[kind].table[row], _FAMILIES[kind].put
    return EvalMethod(
        name=name,
        about=f"Millpond with the {kind.replace('-', ' ')} {row}: {about(part)}",
        show=Streamed(),
        config=lambda base: put(base, keeping_few(base, part())),
    )

"""The built-in model as an instrument, on the page: what `millpond bench mini` printed."""

from __future__ import annotations

from collections.abc import Iterator

from .entries import Entry
from .page_read import named, number, share
from .page_text import code, plain, several, table

# What an instrument must reach: of all questions, by the number of frames; and of those of any type.
WANTED = {"16": 0.97, "64": 0.95}
WANTED_OF_A_TYPE = 0.90


def mini_section(figures: Entry) -> Iterator[str]:
    """Right answers by type and length, beside a model that sees nothing, and where that falls short."""
    lengths = named(figures, "lengths")
    if not lengths or not all(frames.isdecimal() for frames in lengths):
        figures.refuse("lengths", "an object of one number of frames or more")
    yield "Full compute, nothing compressed, worlds that training never saw. Blind: the same model given black frames."
    yield ""
    kinds = list(dict.fromkeys(kind for one in lengths.values() for kind in named(one, "by_type")))
    yield from table(
        ("type", *(head for frames in lengths for head in (f"{frames} frames", "blind", "questions"))),
        [
            [code(kind), *(cell for one in lengths.values() for cell in _cells(named(one, "by_type").get(kind)))]
            for kind in kinds
        ]
        + [["**all**", *(cell for one in lengths.values() for cell in _cells(one))]],
    )
    yield ""
    for frames, one in lengths.items():
        yield from (f"- {told}" for told in _findings(frames, one))


def _findings(frames: str, one: Entry) -> Iterator[str]:
    found = share(one)
    if found is None:
        return
    wanted = WANTED.get(frames)
    if wanted is not None and found.accuracy >= wanted:
        yield f"On {frames} frames {found.accuracy:.1%} are right; {wanted:.0%} are wanted."
    elif wanted is not None:
        yield f"**On {frames} frames {found.accuracy:.1%} are right: short of the {wanted:.0%} that are wanted.**"
    shares = {kind: share(figures) for kind, figures in named(one, "by_type").items()}
    short = [
        f"{plain(kind)} ({its.accuracy:.1%})"
        for kind, its in shares.items()
        if its is not None and its.accuracy < WANTED_OF_A_TYPE
    ]
    if short:
        yield f"**On {frames} frames these types are short of {WANTED_OF_A_TYPE:.0%}**: {several(short)}."
    else:
        yield f"On {frames} frames no type is short of {WANTED_OF_A_TYPE:.0%}."


def _cells(figures: Entry | None) -> list[str]:
    found = share(figures) if figures is not None else None
    if figures is None or found is None:
        return ["-", "-", "-"]
    return [str(found), f"{number(figures, 'blind_accuracy'):.3f}", str(found.num_questions)]

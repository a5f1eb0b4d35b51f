"""The suite `shapes`: questions over synthetic streams of a minute to a day, drawn from seeds that training never has.

What a method can lose is in them: small things, things that come once and soon go, digits, order, counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from ...stream.synthetic import SyntheticSource
from .entries import refuse_settings
from .item import Item, Scored
from .shape_questions import CATEGORY, FORM, TURNS, Drawn, Questioner, Tallies
from .suites import Suite, groups

NUM_SEEDS = 1_000_000
"""Worlds are drawn from seeds below; those of training from there on, see demos/mini_data.py."""
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400

# By default so much is asked of: half an hour of each length, in 12 streams at most and one at least.
_WATCHED_S = 1800
_MOST_STREAMS = 12
_MOST_WORLDS = 1000


@dataclass(frozen=True, kw_only=True)
class ShapesSettings:
    """What is asked of; each length by itself, so that another one more changes no question.

    lengths_s: of the streams, in whole seconds; one number will do. 60, 600, 3600, 14400 and 86400 go from a minute to
        a day.
    worlds: how many streams there are of each length. Default: half an hour's worth, 12 at most and one at least. One
        more changes no question about the others.
    questions: how many are asked about each stream; a count that is asked again as it grows is one of them.
    seed: another draws other worlds.
    width: of the pictures; they are three quarters as high.
    """

    lengths_s: Sequence[int] = (MINUTE_S, 10 * MINUTE_S)
    worlds: int | None = None
    questions: int = 24
    seed: int = 0
    width: int = 160

    def __post_init__(self) -> None:
        lengths_s = [self.lengths_s] if isinstance(self.lengths_s, int | float) else self.lengths_s
        if isinstance(lengths_s, str) or not isinstance(lengths_s, Sequence) or not lengths_s:
            raise ValueError(f"lengths_s must be a list of whole seconds; got {self.lengths_s!r}")
        for length_s in lengths_s:
            _check_whole("lengths_s", length_s, 30, DAY_S)
        if len(set(lengths_s)) < len(lengths_s):
            raise ValueError(f"lengths_s must differ; got {list(lengths_s)}")
        object.__setattr__(self, "lengths_s", tuple(lengths_s))
        if self.worlds is not None:
            _check_whole("worlds", self.worlds, 1, _MOST_WORLDS)
        _check_whole("questions", self.questions, 1, 48)
        _check_whole("seed", self.seed, 0, 2**31)
        _check_whole("width", self.width, 64, 4096)

    def num_worlds(self, length_s: int) -> int:
        """How many streams there are of this length."""
        return self.worlds or max(1, min(_MOST_STREAMS, _WATCHED_S // length_s))


class ShapesSuite(Suite):
    """Synthetic streams at one frame a second, each with a world of its own, and questions of 20 kinds in canonical
    words: what is there, what was, what is to come, as OVO-Bench divides them. Answers are right to the letter.

    There is no annotation file; see `ShapesSettings` for what may be set. The same settings give the same items.
    """

    about = "generated questions over synthetic streams of a minute to a day at 1 fps; makes its own"

    def items(self, path: Path | None, videos: Path | None, **settings: Any) -> list[Item]:
        """Streams by length, questions about each in order of time. videos: not looked at."""
        if path is not None:
            raise ValueError(f"shapes makes its own questions; got the file {path.name}; leave it out")
        refuse_settings(settings, tuple(field.name for field in fields(ShapesSettings)))
        chosen = ShapesSettings(**settings)
        return [item for length_s in chosen.lengths_s for item in _of_length(chosen, length_s)]

    def summary(self, scored: Sequence[Scored]) -> dict[str, Any]:
        """Also by_length: of the streams."""
        return {**super().summary(scored), "by_length": groups(scored, lambda one: length_words(one.item))}


def length_words(item: Item) -> str:
    """How long an item's stream is: "1 min", "24 h", "90 s"."""
    length_s = int(parse_qs(urlsplit(item.video).query)["duration_s"][0])
    for unit_s, unit in ((HOUR_S, "h"), (MINUTE_S, "min")):
        if length_s % unit_s == 0:
            return f"{length_s // unit_s} {unit}"
    return f"{length_s} s"


def world_seeds(seed: int, length_s: int) -> Iterator[int]:
    """The seeds of the worlds of this length, one after another, none twice; all below NUM_SEEDS."""
    rng, drawn = np.random.default_rng((seed, length_s)), set[int]()
    while len(drawn) < NUM_SEEDS:
        world_seed = int(rng.integers(NUM_SEEDS))
        if world_seed not in drawn:
            drawn.add(world_seed)
            yield world_seed


def _of_length(settings: ShapesSettings, length_s: int) -> Iterator[Item]:
    tallies, seeds = Tallies(), world_seeds(settings.seed, length_s)
    # A stream begins where the turns of the one before ended; after whole rounds at another kind, so that what stands
    # in for kinds that a stream has nothing for is not always the same.
    num_turns = settings.questions if settings.questions % len(TURNS) else settings.questions + 5
    for number, world_seed in zip(range(settings.num_worlds(length_s)), seeds, strict=False):
        video = _video(settings, length_s, world_seed)
        questioner = Questioner(SyntheticSource(video).world, settings.seed, tallies)
        for drawn in questioner.draw(settings.questions, number * num_turns):
            yield _item(drawn, video, f"{length_s}s-{world_seed}-{drawn.kind}-{drawn.at_s}")


def _video(settings: ShapesSettings, length_s: int, world_seed: int) -> str:
    height = settings.width * 3 // 4
    return (
        f"synthetic://shapes?seed={world_seed}&duration_s={length_s}&rate_hz=1&wide=1&objects={_num_objects(length_s)}"
        f"&width={settings.width}&height={height}"
    )


def _num_objects(length_s: int) -> int:
    """A longer stream has more in it."""
    if length_s < 5 * MINUTE_S:
        return 6
    return 12 if length_s < 30 * MINUTE_S else 18


def _item(drawn: Drawn, video: str, id: str) -> Item:
    return Item(
        id=id,
        video=video,
        at_s=float(drawn.at_s),
        question=drawn.question,
        answer=drawn.answer,
        form=FORM.get(drawn.kind, "words"),
        kind=drawn.kind,
        category=CATEGORY[drawn.kind],
        right_at_s=None if drawn.right_at_s is None else float(drawn.right_at_s),
        until_s=None if drawn.until_s is None else float(drawn.until_s),
    )


def _check_whole(name: str, given: object, least: int, most: int) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}; got {given!r}")

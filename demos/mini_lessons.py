"""What training asks of the built-in model besides answers: of patches, of frames, of the names in a question."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from millpond.stream import time_words
from millpond.stream.truth import Asked, Witness
from millpond.stream.world import COLORS, SHAPES

# Shapes: F frames, O objects, H rows and W columns of pixels, K names of objects.

IMAGE = 96
SIDE = 6
"""Pooled cells along each side of a picture."""
NAMES = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
FIRST_DIGIT = 1 + len(NAMES)
"""Labels of cells: 0 nothing, then a name each, then a digit each."""
IGNORE = -100
TIME_SIGNS, NO_SIGN = 7, 11
"""Of a time as it is written, from the left, as an answer is written too: digits, a point, then nothing."""
SINCE = -2
"""Stands where a question gives a time, as the number of a name stands where it names something."""
RECALL = (
    *("name_ever", "name_moment", "name_rank", "name_then", "name_next", "name_place", "name_motion"),
    *("follows", "since_came", "since_left"),
)
MOST_RANK = 20
PLACES = ("left", "right", "top", "bottom", "center")
MOTIONS = ("left", "right", "up", "down", "still")


def patch_labels(cover_FOHW: np.ndarray, witness: Witness, cell: int, share: float) -> np.ndarray:
    """For each cell of `cell` pixels: what covers it most; 0 where nothing covers `share`. Digits of a ticker too."""
    num_frames, num_things = cover_FOHW.shape[:2]
    side = IMAGE // cell
    labels = np.zeros((num_frames, side, side), dtype=np.int64)
    if num_things:
        pooled = cover_FOHW.reshape(num_frames, num_things, side, cell, side, cell).mean((3, 5))
        names = np.array([1 + NAMES.index(thing.name) for thing in witness.world.things])
        labels = np.where(pooled.max(1) > share, names[pooled.argmax(1)], 0)
    ticker, wide = witness.world.extras.ticker, side // SIDE
    if ticker is not None:
        for number, time_s in enumerate(witness.times_s):
            for place, digit in enumerate(ticker.reading(float(time_s)), ticker.column):
                labels[number, -wide:, place * wide : (place + 1) * wide] = FIRST_DIGIT + int(digit)
    return labels.reshape(num_frames, side * side)


def frame_facts(witness: Witness) -> dict[str, np.ndarray]:
    """What is true of each frame, by name of object (F, K): 0 or 1, or IGNORE where it is half there.

    now: in sight; came: for the first time; left: not any more, unlike in the frame before; ever: by now. And signs
    (F, TIME_SIGNS + 2): of its time, then of the ticker; NO_SIGN where there is none. rank and count (F,): how many
    names have come by now, and are in sight.
    """
    facts = {
        key: np.zeros((len(witness.times_s), len(NAMES)), dtype=np.int64) for key in ("now", "came", "left", "ever")
    }
    for number, thing in enumerate(witness.world.things):
        name, seen_F, vague_F = NAMES.index(thing.name), witness.seen_NO[:, number], witness.vague_NO[:, number]
        before_F = np.concatenate([[False], seen_F[:-1]])
        ever_F = np.maximum.accumulate(seen_F)
        facts["now"][:, name] = np.where(vague_F, IGNORE, seen_F)
        facts["ever"][:, name] = ever_F
        facts["came"][:, name] = ever_F & ~np.concatenate([[False], ever_F[:-1]])
        # What leaves by halves has left by either moment.
        halves_F = vague_F | np.concatenate([[False], vague_F[:-1] & ~seen_F[1:]])
        facts["left"][:, name] = np.where(halves_F & ever_F, IGNORE, before_F & ~seen_F)
    facts["rank"], facts["count"] = facts["ever"].sum(1), witness.seen_NO.sum(1)
    facts["signs"] = np.stack([_signs(witness, moment) for moment in range(len(witness.times_s))])
    return facts


def _signs(witness: Witness, moment: int) -> np.ndarray:
    time_s = float(witness.times_s[moment])
    ticker = witness.world.extras.ticker
    words = time_words(time_s + witness.offset_s).ljust(TIME_SIGNS)[:TIME_SIGNS]
    words += "  " if ticker is None else ticker.reading(time_s)
    return np.array(["0123456789. ".index(sign) for sign in words])


@lru_cache(maxsize=1)
def place_labels() -> list[int]:
    """Which of PLACES each pooled cell lies in, row by row; IGNORE on the diagonals, where two would do."""
    labels = []
    for y in range(SIDE):
        for x in range(SIDE):
            dx, dy = (x + 0.5) / SIDE - 0.5, (y + 0.5) / SIDE - 0.5
            if max(abs(dx), abs(dy)) < 0.11:
                labels.append(PLACES.index("center"))
            elif abs(abs(dx) - abs(dy)) < 0.06:
                labels.append(IGNORE)
            else:
                words = ("left", "right") if abs(dx) > abs(dy) else ("top", "bottom")
                labels.append(PLACES.index(words[(dx if abs(dx) > abs(dy) else dy) > 0]))
    return labels


def recall(
    witness: Witness,
    asked: Asked,
    moment: int,
    named: list[int],
    answer_at: int,
    sees_F: np.ndarray,
    *,
    is_whole: bool,
) -> dict[str, list[int]]:
    """What each token of a question should call to mind of what it names, by RECALL; IGNORE where it names nothing, or
    where that cannot be known from what the question sees. The answer begins at `answer_at`.

    name_ever: whether it was there; name_moment: when first; name_rank: how many stand before it in a list of all;
    name_then: what came later, the soonest; name_next: what follows in the list; a number of NAMES or len(NAMES) for
    nothing; name_place: where it was last; name_motion: which way it moves; of PLACES and MOTIONS. Of a time that a
    question gives: name_moment, its frame; name_rank, how many had come by then; and since_came and since_left, all
    that came and left after it, a bit for each of NAMES. follows: of the token before an answer, and of each name in
    it, what the answer names next, where that is not what comes next in the list.
    sees_F: which frames the question sees; is_whole: whether those were read after all that came before them.
    """
    told = {key: [IGNORE] * len(named) for key in RECALL}
    numbers = {NAMES.index(thing.name): o for o, thing in enumerate(witness.world.things)}
    came = {NAMES.index(witness.world.things[o].name): n for o, n in witness.first_seen(moment).items()}
    listed = sorted(came, key=lambda name: (came[name], name))
    knows_all = is_whole and bool(sees_F[: moment + 1].all())
    news = _news(witness, asked, moment) if asked.kind == "new" and knows_all else []
    is_listed = asked.kind not in ("new", "order", "there")
    if not is_listed and knows_all:
        said = [at for at in range(answer_at, len(named)) if named[at] >= 0]
        for at, name in zip([answer_at - 1, *said], [*(named[at] for at in said), len(NAMES)], strict=True):
            told["follows"][at] = name
    for at, name in enumerate(named):
        if name == -1:
            continue
        first = came.get(name)
        if name == SINCE:
            if asked.kind != "new":
                continue
            since = _since(witness, asked)
            if sees_F[since]:
                told["name_moment"][at] = since
            if knows_all:
                told["name_rank"][at] = sum(first <= since for first in came.values())
                for key, verb in (("since_came", "appears"), ("since_left", "leaves")):
                    told[key][at] = sum(1 << name for name, happened in news if happened == verb)
        elif first is None:
            told["name_ever"][at] = 0
        elif sees_F[first]:
            told["name_ever"][at], told["name_moment"][at] = 1, first
            is_here = witness.seen_NO[moment, numbers[name]]
            last = witness.last_seen(moment, numbers[name])
            if sees_F[last] and (place := witness.place_words(last, numbers[name])) is not None:
                told["name_place"][at] = PLACES.index(place)
            if is_here and knows_all and (motion := witness.motion_words(moment, numbers[name])) is not None:
                told["name_motion"][at] = MOTIONS.index(motion)
            if knows_all:
                told["name_rank"][at] = listed.index(name)
                if is_listed:
                    told["name_next"][at] = [*listed, len(NAMES)][listed.index(name) + 1]
                later = sorted((n, other) for other, n in came.items() if n > first)
                if not later:
                    told["name_then"][at] = len(NAMES)
                elif len(later) == 1 or later[0][0] < later[1][0]:
                    told["name_then"][at] = later[0][1]
    return told


def _since(witness: Witness, asked: Asked) -> int:
    """The moment that a question gives the time of."""
    return int(np.abs(witness.times_s + witness.offset_s - asked.used.start_s).argmin())


def _news(witness: Witness, asked: Asked, moment: int) -> list[tuple[int, str]]:
    """What happened since then, as the answer tells it: a number of NAMES, and the verb."""
    happened = witness.happened(_since(witness, asked), moment)
    return [(NAMES.index(witness.world.things[o].name), verb) for _, o, verb in happened]

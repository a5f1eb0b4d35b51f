"""Training data for the built-in model: worlds, painted, with questions packed behind the frames they are about.

What streaming does to a model is in it: frames far apart, times of a long stream, stretches in which nothing happens,
blocks read after their recent window alone, questions that see the recent window and what was recalled, and tokens
that were dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from mini_lessons import IGNORE, IMAGE, NAMES, RECALL, SIDE, SINCE, frame_facts, patch_labels, recall
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from millpond.stream import time_words
from millpond.stream.render import render
from millpond.stream.truth import NOTHING, WORDINGS, Asked, Witness
from millpond.stream.wide_world import make_wide_world
from millpond.stream.world import make_world

# Shapes: B clips, F frames, S tokens of a packed sequence, P patches (12x12), C pooled cells (6x6), V visual tokens of
# a frame: its cells and the one that ends it, K names of objects, Q questions of a clip.

FIRST_TRAINING_SEED = 1_000_000
"""Worlds with smaller seeds are never trained on: tests, demos and evaluation draw theirs from there."""
FRAME_TOKENS = SIDE * SIDE + 1
HARD = (
    *("new",) * 9,
    *("list", "count_all") * 3,
    *("after", "order", "when", "read_when", "last_seen") * 2,
    *("last", "count_now", "motion", "there", "count_group"),
)
"""Kinds of questions that are asked that much more often than others: they come last, and need the most."""
NEED_TURNS = ("count_all", "first", "last", "list", "count_group", "order", "after", "new")
"""Kinds that rest on more moments than one: asked of those who see all frames, or all in which something came."""
RECALLED = 8
MOST_KNOWN = 100_000
"""Texts whose tokens are remembered."""
NO_MARK = 0.1
"""The share of questions that are asked without the mark at their end."""


@dataclass(frozen=True)
class Mix:
    """What a stage of training is shown. Frames are drawn from min_frames to max_frames for each batch.

    wide: the share of worlds that are wide ones.
    window: the share of batches whose frames are read after the recent ones alone.
    drop: the share of batches some of whose tokens are left out.
    thin: those lose at least this share of what says nothing, and of what says the same again. They are much
    shorter, and what happened when can be learned from them as well.
    """

    min_frames: int
    max_frames: int
    clips: int
    questions: int
    wide: float = 0.8
    window: float = 0.0
    drop: float = 0.0
    thin: float = 0.0


class Words:
    """The token ids that the packing needs, from the model's own tokenizer."""

    def __init__(self, tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, tuple[int, ...]] = {}
        self.prefix = self.ids("<|im_start|>user")
        self.video_id = tokenizer.convert_tokens_to_ids("<video>")
        self.pad_id = tokenizer.convert_tokens_to_ids("<|pad|>")

    def ids(self, text: str) -> tuple[int, ...]:
        if text not in self._known:
            if len(self._known) > MOST_KNOWN:
                self._known.clear()
            self._known[text] = tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._known[text]

    def named(self, ids: tuple[int, ...]) -> list[int]:
        """For each token: which of NAMES it ends, -1 where it ends none; SINCE for the last digit of a time."""
        texts = [token.removeprefix("▁") for token in self._tokenizer.convert_ids_to_tokens(ids)]
        named = [-1] * len(ids)
        for at in range(1, len(ids)):
            if f"{texts[at - 1]} {texts[at]}" in NAMES:
                named[at] = NAMES.index(f"{texts[at - 1]} {texts[at]}")
            elif texts[at] == "s" and texts[at - 1].isdigit():
                named[at] = SINCE
        return named

    def question(self, asked: Asked) -> tuple[tuple[int, ...], tuple[int, ...]]:
        question = self.ids(f"{asked.question}<|im_end|><|im_start|>assistant")
        return question, self.ids(f"{asked.answer}<|im_end|>")


def draw_clip(rng: np.random.Generator, num_frames: int, seed: int, wide: float = 0.8):
    """A painted world: pictures, coverage, and the witness who saw it, at times that vary in step and start."""
    step_s = float(rng.choice([1.0, 1.0, 1.0, 1.0, 0.5, 2.0, 5.0, 30.0]))
    longer = num_frames + (int(rng.integers(0, num_frames)) if num_frames > 2 and rng.random() < 0.3 else 0)
    make = make_wide_world if rng.random() < wide else make_world
    most = {"max_things": 8} if make is make_wide_world and rng.random() < 0.25 else {}
    world = make(seed, duration_s=longer * step_s, step_s=step_s, **most)
    steps = np.sort(rng.choice(longer, num_frames, replace=False))
    phase_s = float(rng.uniform(0, step_s)) if rng.random() < 0.1 else 0.0
    times = steps * step_s + phase_s
    # Streams last: as often in the first minutes as in the first day.
    offset_s = float(int(10 ** rng.uniform(0, 4.9))) if rng.random() < 0.4 else 0.0
    if steps[0] > 0:
        offset_s -= float(steps[0] * step_s) * (rng.random() < 0.5)
    painting = render(world, times, width=IMAGE, height=IMAGE)
    return painting, Witness(world, times, offset_s=max(offset_s, -float(times[0])))


@dataclass(frozen=True, eq=False)
class Seen:
    """What a sequence shows of a clip. Made by `draw_seen`, read by `pack`.

    window: how many frames a frame's tokens are read after, itself among them.
    kept_FV: which visual tokens are in the sequence.
    """

    window: int
    kept_FV: np.ndarray

    @property
    def is_whole(self) -> bool:
        return self.window >= len(self.kept_FV)


class Shares(NamedTuple):
    """How much is left out of what says nothing, and of what says again what its cell said in the frame before."""

    empty: float
    again: float


NOTHING_LOST = Shares(0.0, 0.0)


def draw_shares(rng: np.random.Generator, mix: Mix) -> Shares:
    """For all clips of a batch: they are about as long as each other then. Little has to be filled up, and nobody who
    learns from a part of it waits long for the others."""
    if rng.random() >= mix.drop:
        return NOTHING_LOST
    return Shares(rng.uniform(max(0.2, mix.thin), 1.0), rng.uniform(mix.thin, max(0.9, mix.thin)))


def draw_seen(
    rng: np.random.Generator, coarse_FC: np.ndarray, shares: Shares, most_whole: int, window: int | None
) -> Seen:
    """What becomes empty stays: it says that something left. most_whole: of the newest frames, this many at most are
    whole."""
    num_frames = len(coarse_FC)
    kept_FV = np.ones((num_frames, FRAME_TOKENS), dtype=bool)
    same_FC = np.zeros(coarse_FC.shape, dtype=bool)
    same_FC[1:] = coarse_FC[1:] == coarse_FC[:-1]
    same_FC[0] = coarse_FC[0] == 0
    lost_FC = same_FC & (rng.random(coarse_FC.shape) < np.where(coarse_FC == 0, shares.empty, shares.again))
    lost_FC[max(0, num_frames - int(rng.integers(1, most_whole + 1))) :] = False
    kept_FV[:, :-1] = ~lost_FC
    return Seen(num_frames if window is None else window, kept_FV)


def draw_questions(
    witness: Witness, rng: np.random.Generator, count: int, kinds: tuple[str, ...]
) -> list[tuple[int, Asked]]:
    """Questions with the moment that each is asked at; half of them at the last moment."""
    last = len(witness.times_s) - 1
    asked: list[tuple[int, Asked]] = []
    said: set[tuple[int, str]] = set()
    for _ in range(count * 3):
        moment = last if rng.random() < 0.5 else int(rng.integers(0, last + 1))
        one = witness.ask(kinds[int(rng.integers(len(kinds)))], moment, rng)
        if one is None or (moment, one.question) in said or (_is_easy(one, witness) and rng.random() < 0.6):
            continue
        said.add((moment, one.question))
        if rng.random() < NO_MARK:
            one = replace(one, question=one.question.rstrip("?."))
        asked.append((moment, one))
        if len(asked) == count:
            break
    return asked


def _is_easy(asked: Asked, witness: Witness) -> bool:
    """Whether the answer is the one that guessing would give: nothing is new, or it was there from the beginning."""
    began_s = float(witness.times_s[0]) + witness.offset_s
    return asked.answer == NOTHING or (asked.kind == "when" and asked.used.start_s == began_s)


class Packed(NamedTuple):
    """One clip as tokens: its context, and behind it its questions, side by side. Made by `pack`.

    sees_QF: which frames each question sees.
    """

    context: dict[str, list[int]]
    questions: dict[str, list[int]]
    sees_QF: np.ndarray


def pack(
    words: Words, witness: Witness, asked: list[tuple[int, Asked]], seen: Seen, rng: np.random.Generator
) -> Packed:
    """A question attends to the frames up to its moment and to itself, at the positions that it would have had if it
    had been asked right then: training on many questions a clip equals asking each of them alone. Where frames are read
    after the recent ones alone, questions about single moments see the recent ones and a few that were recalled.
    """
    prefix = list(words.prefix)
    context = {"ids": prefix, "frames": [-1] * len(prefix), "cells": [-1] * len(prefix)}
    ends = []
    for moment, kept_V in enumerate(seen.kept_FV):
        time_ids = words.ids(f"{time_words(float(witness.times_s[moment]) + witness.offset_s)} s")
        visual = np.flatnonzero(kept_V).tolist()
        context["ids"] += [*time_ids, *[words.video_id] * len(visual)]
        context["frames"] += [moment] * (len(time_ids) + len(visual))
        context["cells"] += [-1] * len(time_ids) + visual
        ends.append(len(context["ids"]))
    context["positions"] = list(range(ends[-1]))
    questions: dict[str, list[int]] = {key: [] for key in ("ids", "positions", "labels", "kinds", "question", *RECALL)}
    sees_QF = np.zeros((len(asked), len(ends)), dtype=bool)
    for number, (moment, one) in enumerate(asked):
        question, answer = words.question(one)
        num = len(question) + len(answer)
        questions["ids"] += [*question, *answer]
        questions["positions"] += range(ends[moment], ends[moment] + num)
        # The label of a position is the token that follows it.
        questions["labels"] += [IGNORE] * (len(question) - 1) + list(answer) + [IGNORE]
        questions["kinds"] += [list(WORDINGS).index(one.kind)] * num
        questions["question"] += [number] * num
        sees_QF[number] = frames_seen(one, moment, witness, seen, rng)
        named = words.named((*question, *answer))
        told = recall(witness, one, moment, named, len(question), sees_QF[number], is_whole=seen.is_whole)
        for key, values in told.items():
            questions[key] += values
    return Packed(context, questions, sees_QF)


def join(packed: list[Packed], pad_id: int, window: int | None) -> dict[str, np.ndarray]:
    """Clips as one batch: contexts filled up to one length, then questions likewise.

    mask: what questions see, (B, questions' tokens, all tokens); window_mask: what contexts see of themselves, where
    that is not all that came before.
    """
    fills = {"ids": pad_id, "labels": IGNORE, "positions": 0, "kinds": -1, "question": -1, "frames": -1, "cells": -1}
    fills |= dict.fromkeys(RECALL, IGNORE)
    num_context = max(len(one.context["ids"]) for one in packed)
    num_asking = max(1, *(len(one.questions["ids"]) for one in packed))
    batch = {name: np.full((len(packed), num_context + num_asking), fill) for name, fill in fills.items()}
    masks, window_masks = [], []
    for row, one in enumerate(packed):
        for begin, part in ((0, one.context), (num_context, one.questions)):
            for name, values in part.items():
                batch[name][row, begin : begin + len(values)] = values
        mask = np.zeros((num_asking, num_context + num_asking), dtype=bool)
        asks, length = np.array(one.questions["question"], dtype=int), len(one.context["ids"])
        frames = np.array(one.context["frames"])
        sees_Q = np.concatenate([np.ones((len(one.sees_QF), 1), bool), one.sees_QF], axis=1)  # the prefix, always
        mask[: len(asks), :length] = sees_Q[asks][:, frames + 1]
        own = np.tril(asks[:, None] == asks[None, :])
        mask[: len(asks), num_context : num_context + len(asks)] = own
        mask[len(asks) :, 0] = True  # what fills up sees something
        masks.append(mask)
        if window is not None:
            of = np.full(num_context, frames[-1])
            of[:length] = frames
            near = (of[None, :] < 0) | (of[:, None] - of[None, :] < window)
            window_masks.append(np.tril(near))
    batch["mask"] = np.stack(masks)
    batch["question_length"] = np.array(max(np.bincount(one.questions["question"]).max(initial=1) for one in packed))
    if window is not None:
        batch["window_mask"] = np.stack(window_masks)
    return batch


def frames_seen(asked: Asked, moment: int, witness: Witness, seen: Seen, rng: np.random.Generator) -> np.ndarray:
    """Which frames a question sees: all up to its moment, or the recent ones and what was recalled for it: what it is
    about, frames in which something came or left, any others."""
    sees_F = np.arange(len(witness.times_s)) <= moment
    if seen.is_whole or asked.kind == "motion" or rng.random() < 0.3:
        return sees_F
    recent_F = sees_F & (np.arange(len(sees_F)) > moment - seen.window)
    told_F = witness.times_s + witness.offset_s
    used_F = sees_F & (told_F >= asked.used.start_s) & (told_F <= asked.used.start_s + 1e-6)
    if asked.answer in ("no", NOTHING):
        used_F = np.zeros_like(used_F)
    share = RECALLED / max(1, len(sees_F))
    if asked.kind in NEED_TURNS or rng.random() < 0.5:
        used_F |= _turns(witness, moment, rng)
        share /= 4
    return recent_F | used_F | (sees_F & (rng.random(len(sees_F)) < share * rng.random()))


def _turns(witness: Witness, moment: int, rng: np.random.Generator) -> np.ndarray:
    """The frames up to a moment in which something came for the first time, and most of those in which it was gone."""
    seen_NO = witness.seen_NO[: moment + 1]
    turns_F = np.zeros(len(witness.times_s), dtype=bool)
    turns_F[list(witness.first_seen(moment).values())] = True
    left_F = np.flatnonzero((seen_NO[:-1] & ~seen_NO[1:]).any(axis=1)) + 1
    turns_F[left_F[rng.random(len(left_F)) < 0.7]] = True
    return turns_F


class Clips(IterableDataset):
    """An endless stream of batches, the same for the same seed, from the step `first` on. Each step draws from a
    generator of its own, so that neither interruptions nor the number of those who paint change what comes.

    part: which part of every batch, and of how many: as long as the others, with clips of its own.
    """

    def __init__(
        self, tokenizer, mix: Mix, seed: tuple[int, ...], first: int = 0, part: tuple[int, int] = (0, 1)
    ) -> None:
        self.words, self.mix, self.seed, self.first, self.part = Words(tokenizer), mix, seed, first, part

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        torch.set_num_threads(1)
        painter = get_worker_info()
        mine, num_painters = (painter.id, painter.num_workers) if painter else (0, 1)
        for step in itertools.count(self.first + mine, num_painters):
            yield self.step(step)

    def step(self, number: int) -> dict[str, Tensor]:
        """The part's clips of one step."""
        mix, rng = self.mix, np.random.default_rng([*self.seed, number])
        num_frames = int(rng.integers(mix.min_frames, mix.max_frames + 1))
        # Short clips come in larger numbers, so that a batch costs about the same.
        clips = max(1, mix.clips * mix.max_frames // num_frames)
        clips = min(clips, mix.clips * 2) if mix.max_frames > 1 else clips
        window = int(rng.integers(4, 10)) if rng.random() < mix.window else None
        shares = draw_shares(rng, mix)
        number_of_part, num_parts = self.part
        rng = np.random.default_rng([*self.seed, number, number_of_part])
        seeds = [FIRST_TRAINING_SEED + int(rng.integers(2**40)) for _ in range(max(1, clips // num_parts))]
        return self.batch(rng, seeds, num_frames, shares, window)

    def batch(
        self,
        rng: np.random.Generator,
        seeds: list[int],
        num_frames: int,
        shares: Shares = NOTHING_LOST,
        window: int | None = None,
    ) -> dict[str, Tensor]:
        """A clip of each of these worlds."""
        packed, shown = zip(*(self._clip(rng, num_frames, seed, shares, window) for seed in seeds), strict=True)
        batch = join(list(packed), self.words.pad_id, window)
        batch |= {name: np.stack([one[name] for one in shown]) for name in shown[0]}
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def _clip(
        self, rng: np.random.Generator, num_frames: int, seed: int, shares: Shares, window: int | None
    ) -> tuple[Packed, dict[str, np.ndarray]]:
        mix = self.mix
        painting, witness = draw_clip(rng, num_frames, seed, mix.wide)
        coarse_FC = patch_labels(painting.cover_NOHW, witness, IMAGE // SIDE, 0.08)
        seen = draw_seen(rng, coarse_FC, shares, 2 if mix.thin else 8, window)
        # Few frames have not much to be asked about.
        num_questions = min(mix.questions, 6 + 2 * num_frames)
        asked = draw_questions(witness, rng, num_questions, (*WORDINGS, *HARD))
        facts = frame_facts(witness)
        if not seen.is_whole:
            facts["ever"][:] = IGNORE  # no frame can know
        shown = {
            **facts,
            "kept": seen.kept_FV,
            "pictures": painting.rgb_NHW3,
            "fine": patch_labels(painting.cover_NOHW, witness, IMAGE // SIDE // 2, 0.3),
            "coarse": coarse_FC,
        }
        return pack(self.words, witness, asked, seen, rng), shown

"""Training data for the built-in model: worlds, painted, with questions packed behind the frames they are about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from millpond.stream import time_words
from millpond.stream.render import render
from millpond.stream.truth import NOTHING, WORDINGS, Asked, Witness
from millpond.stream.world import COLORS, SHAPES, make_world

# Shapes: B clips, F frames, S tokens of a packed sequence, P patches (12x12), C pooled cells (6x6).

IMAGE = 96
FIRST_TRAINING_SEED = 1_000_000
"""Worlds with smaller seeds are never trained on: tests, demos and evaluation draw theirs from there."""
FRAME_TOKENS = 37
HARD = ("when",) * 4 + ("new",) * 3 + ("last",) * 2 + ("motion", "count_all", "list")
"""Kinds of questions that are asked that much more often than others: they come last, and need the most."""
IGNORE = -100
PLACES = ("left", "right", "top", "bottom", "center")


@dataclass(frozen=True)
class Mix:
    """What a stage of training is shown. Frames are drawn from min_frames to max_frames for each batch."""

    min_frames: int
    max_frames: int
    clips: int
    questions: int


class Words:
    """The token ids that the packing needs, from the model's own tokenizer."""

    def __init__(self, tokenizer) -> None:
        self._tokenizer = tokenizer
        self.prefix = self.ids("<|im_start|>user")
        self.video_id = tokenizer.convert_tokens_to_ids("<video>")
        self.pad_id = tokenizer.convert_tokens_to_ids("<|pad|>")

    def ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def frame(self, time_s: float) -> list[int]:
        return self.ids(f"{time_words(time_s)} s") + [self.video_id] * FRAME_TOKENS

    def question(self, asked: Asked) -> tuple[list[int], list[int]]:
        question = self.ids(f"{asked.question}<|im_end|><|im_start|>assistant")
        return question, self.ids(f"{asked.answer}<|im_end|>")


def draw_clip(rng: np.random.Generator, num_frames: int, seed: int):
    """A painted world: pictures, coverage, and the witness who saw it, at times that vary in step and start."""
    step_s = float(rng.choice([1.0, 1.0, 1.0, 0.5, 2.0]))
    longer = num_frames + (int(rng.integers(0, num_frames)) if num_frames > 2 and rng.random() < 0.3 else 0)
    world = make_world(seed, duration_s=longer * step_s, step_s=step_s)
    steps = np.sort(rng.choice(longer, num_frames, replace=False))
    phase_s = float(rng.uniform(0, step_s)) if rng.random() < 0.2 else 0.0
    times = steps * step_s + phase_s
    offset_s = float(rng.integers(0, 600)) if rng.random() < 0.3 else 0.0
    if steps[0] > 0:
        offset_s -= float(steps[0] * step_s) * (rng.random() < 0.5)
    painting = render(world, times, width=IMAGE, height=IMAGE)
    return painting, Witness(world, times, offset_s=max(offset_s, -float(times[0])))


def draw_questions(witness: Witness, rng: np.random.Generator, count: int) -> list[tuple[int, Asked]]:
    """Questions with the moment that each is asked at; half of them at the last moment."""
    kinds, last = [*WORDINGS, *HARD], len(witness.times_s) - 1
    asked: list[tuple[int, Asked]] = []
    for _ in range(count * 4):
        moment = last if rng.random() < 0.5 else int(rng.integers(0, last + 1))
        one = witness.ask(kinds[int(rng.integers(len(kinds)))], moment, rng)
        if one is None or (_is_easy(one, witness) and rng.random() < 0.6):
            continue
        asked.append((moment, one))
        if len(asked) == count:
            break
    return asked


def _is_easy(asked: Asked, witness: Witness) -> bool:
    """Whether the answer is the one that guessing would give: nothing is new, or it was there from the beginning."""
    began_s = float(witness.times_s[0]) + witness.offset_s
    return asked.answer == NOTHING or (asked.kind == "when" and asked.used.start_s == began_s)


def pack(words: Words, witness: Witness, asked: list[tuple[int, Asked]]) -> dict[str, np.ndarray]:
    """One sequence: prefix, frames, then the questions side by side.

    A question attends to the frames up to its moment and to itself, at the positions that it would have had if it
    had been asked right then: training on many questions a clip equals asking each of them alone.
    """
    ids, positions, groups = list(words.prefix), list(range(len(words.prefix))), [-1] * len(words.prefix)
    ends = []
    for moment in range(len(witness.times_s)):
        frame = words.frame(float(witness.times_s[moment]) + witness.offset_s)
        positions += range(len(ids), len(ids) + len(frame))
        ids += frame
        groups += [moment] * len(frame)
        ends.append(len(ids))
    num_context = len(ids)
    labels, kinds, until = [IGNORE] * num_context, [-1] * num_context, [0] * num_context
    for number, (moment, one) in enumerate(asked):
        question, answer = words.question(one)
        piece = question + answer
        positions += range(ends[moment], ends[moment] + len(piece))
        ids += piece
        groups += [10_000 + number] * len(piece)
        # The label of a position is the token that follows it.
        labels += [IGNORE] * (len(question) - 1) + answer + [IGNORE]
        kinds += [list(WORDINGS).index(one.kind)] * len(piece)
        until += [ends[moment]] * len(piece)
    groups_S, until_S = np.array(groups), np.array(until)
    order = np.arange(len(ids))
    causal = order[:, None] >= order[None, :]
    in_context = order[None, :] < num_context
    seen = np.where(groups_S[:, None] < 10_000, in_context, order[None, :] < until_S[:, None])
    same = groups_S[:, None] == groups_S[None, :]
    return {
        "ids": np.array(ids),
        "positions": np.array(positions),
        "labels": np.array(labels),
        "kinds": np.array(kinds),
        "question": np.where(groups_S >= 10_000, groups_S - 10_000, -1),
        "mask": causal & (seen | same),
    }


def patch_labels(cover_FOHW: np.ndarray, witness: Witness, cell: int, share: float) -> np.ndarray:
    """For each cell of `cell` pixels: 1 + colour * 4 + shape of what covers it most, 0 where nothing covers `share`."""
    num_frames, num_things = cover_FOHW.shape[:2]
    side = IMAGE // cell
    if num_things == 0:
        return np.zeros((num_frames, side * side), dtype=np.int64)
    pooled = cover_FOHW.reshape(num_frames, num_things, side, cell, side, cell).mean((3, 5))
    things = witness.world.things
    names = np.array([1 + COLORS.index(t.color) * len(SHAPES) + SHAPES.index(t.shape) for t in things])
    best = pooled.argmax(1)
    return np.where(pooled.max(1) > share, names[best], 0).reshape(num_frames, side * side)


def place_labels(side: int = 6) -> list[int]:
    """Which of PLACES each pooled cell lies in, row by row; IGNORE on the diagonals, where two would do."""
    labels = []
    for y in range(side):
        for x in range(side):
            dx, dy = (x + 0.5) / side - 0.5, (y + 0.5) / side - 0.5
            if max(abs(dx), abs(dy)) < 0.11:
                labels.append(PLACES.index("center"))
            elif abs(abs(dx) - abs(dy)) < 0.06:
                labels.append(IGNORE)
            else:
                words = ("left", "right") if abs(dx) > abs(dy) else ("top", "bottom")
                labels.append(PLACES.index(words[(dx if abs(dx) > abs(dy) else dy) > 0]))
    return labels


class Clips(IterableDataset):
    """An endless stream of batches for one stage, the same for the same seed."""

    def __init__(self, tokenizer, mix: Mix, seed: int) -> None:
        self.words, self.mix, self.seed = Words(tokenizer), mix, seed

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        while True:
            yield self.batch(rng, lambda: FIRST_TRAINING_SEED + int(rng.integers(2**40)))

    def batch(self, rng: np.random.Generator, draw_seed) -> dict[str, Tensor]:
        num_frames = int(rng.integers(self.mix.min_frames, self.mix.max_frames + 1))
        # Short clips come in larger numbers, so that a batch costs about the same.
        clips = max(1, self.mix.clips * self.mix.max_frames // num_frames)
        clips = min(clips, self.mix.clips * 2) if self.mix.max_frames > 1 else clips
        packed, pictures, fine, coarse = [], [], [], []
        for _ in range(clips):
            painting, witness = draw_clip(rng, num_frames, draw_seed())
            packed.append(pack(self.words, witness, draw_questions(witness, rng, self.mix.questions)))
            pictures.append(painting.rgb_NHW3)
            fine.append(patch_labels(painting.cover_NOHW, witness, 8, 0.3))
            coarse.append(patch_labels(painting.cover_NOHW, witness, 16, 0.12))
        length = max(len(p["ids"]) for p in packed)
        out = {name: [] for name in packed[0]}
        fills = {"ids": self.words.pad_id, "labels": IGNORE, "positions": 0, "kinds": -1, "question": -1}
        for p in packed:
            extra = length - len(p["ids"])
            for name, fill in fills.items():
                out[name].append(np.pad(p[name], (0, extra), constant_values=fill))
            mask = np.pad(p["mask"], ((0, extra), (0, extra)))
            mask[np.arange(length), np.arange(length)] = True
            out["mask"].append(mask)
        batch = {name: torch.from_numpy(np.stack(values)) for name, values in out.items()}
        batch["pictures"] = torch.from_numpy(np.stack(pictures))
        batch["fine"], batch["coarse"] = torch.from_numpy(np.stack(fine)), torch.from_numpy(np.stack(coarse))
        return batch

"""`millpond bench mini`: how often the built-in model is right, through the whole pipeline, and blind."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..memory import MemoryConfig
from ..stream import Frame
from ..stream.truth import Asked
from .bench import Bench
from .bench_worlds import FIRST_SEED, KINDS, NUM_WORLDS, ask_at_end, make_clip
from .config import EngineConfig
from .engine import Engine
from .eval.origin import origin
from .question import Question
from .session import Session

LENGTHS = (16, 64)
_WORLDS_AT_ONCE = 8


@dataclass(frozen=True)
class MiniBench(Bench):
    """Worlds that training never saw, frames of 320x240 at 1 fps, a question of every kind after the last frame, in
    canonical words; full compute, nothing compressed.

    lengths: how many frames, in turn.
    kinds: of questions.
    wide: whether the worlds are wide ones.
    """

    lengths: tuple[int, ...] = LENGTHS
    kinds: tuple[str, ...] = KINDS
    wide: bool = True

    about = (
        "mini: answers right, to the letter, on synthetic worlds that training never saw, through the whole "
        "pipeline with nothing compressed, beside the same model given black frames. Keys: lengths (for each number of "
        "frames accuracy, interval (95 %), blind_accuracy, num_questions, by_type with the same of each kind); "
        "accuracy, interval, blind_accuracy, by_type, num_questions (of the first length), num_worlds; command, "
        "machine, commit."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """repeats: how many times NUM_WORLDS worlds are asked about."""
        lengths = {str(number): self._measure(model, repeats, number) for number in self.lengths}
        return {
            **next(iter(lengths.values())),
            "lengths": lengths,
            "num_worlds": NUM_WORLDS * repeats,
            **origin(sys.argv),
        }

    def _measure(self, model: str, repeats: int, num_frames: int) -> dict[str, Any]:
        engine = Engine(
            EngineConfig(
                model="millpond/mini" if model == "default" else model,
                reuse="none",
                memory=MemoryConfig(recent_frames=num_frames),
                chunk_frames=16,
                max_new_tokens=64,
            )
        )
        right: dict[str, list[bool]] = defaultdict(list)
        blind: dict[str, list[bool]] = defaultdict(list)
        for first in range(FIRST_SEED, FIRST_SEED + NUM_WORLDS * repeats, _WORLDS_AT_ONCE):
            worlds = []
            for seed in range(first, first + _WORLDS_AT_ONCE):
                clip = make_clip(seed, num_frames, wide=self.wide)
                worlds.append((clip.frames, ask_at_end(clip, seed, self.kinds)))
            for scores, looks in ((right, True), (blind, False)):
                for kind, hit in _score(engine, worlds, looks):
                    scores[kind].append(hit)
        everything = {"all": [hit for hits in right.values() for hit in hits]}
        everything_blind = {"all": [hit for hits in blind.values() for hit in hits]}
        return {
            **_figures(everything, everything_blind, "all"),
            "by_type": {kind: _figures(right, blind, kind) for kind in self.kinds if right[kind]},
        }

    def table(self, result: dict[str, Any]) -> str:
        return "\n\n".join("\n".join(_lines(number, result)) for number in result["lengths"])


def _figures(right: dict[str, list[bool]], blind: dict[str, list[bool]], kind: str) -> dict[str, Any]:
    num, hits = len(right[kind]), sum(right[kind])
    return {
        "accuracy": hits / num,
        "interval": wilson(hits, num),
        "blind_accuracy": sum(blind[kind]) / num,
        "num_questions": num,
    }


def _lines(number: str, result: dict[str, Any]) -> Iterator[str]:
    rows = result["lengths"][number]
    yield f"{rows['num_questions']} questions on {result['num_worlds']} worlds of {number} frames"
    yield f"{'':12} {'looks':>8} {'blind':>8} {'questions':>10}   95 % interval"
    for kind, row in [*rows["by_type"].items(), ("all", rows)]:
        low, high = row["interval"]
        yield (
            f"{kind:12} {row['accuracy']:8.3f} {row['blind_accuracy']:8.3f} {row['num_questions']:10d}   "
            f"{low:.3f} to {high:.3f}"
        )


def wilson(hits: int, num: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927)."""
    z, share = 1.959964, hits / num
    middle = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z / (1 + z * z / num) * ((share * (1 - share) + z * z / (4 * num)) / num) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def _score(engine: Engine, clips: list[tuple[list[Frame], list[Asked]]], looks: bool) -> Iterator[tuple[str, bool]]:
    sessions: list[Session] = []
    for frames, _ in clips:
        session = engine.session(frames[0].stream_id)
        for frame in frames:
            session.push(frame if looks else Frame(np.zeros_like(frame.rgb_HW3), frame.pts_s, frame.stream_id))
        sessions.append(session)
    asked = [(session, one) for session, (_, questions) in zip(sessions, clips, strict=True) for one in questions]
    answers = engine.ask([(session, Question(one.question)) for session, one in asked])
    for (_, one), answer in zip(asked, answers, strict=True):
        yield one.kind, answer.text == one.answer
    engine.close()

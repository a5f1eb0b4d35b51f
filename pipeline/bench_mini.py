"""`millpond bench mini`: how often the built-in model is right, through the whole pipeline, and blind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..memory import MemoryConfig
from ..stream import Frame
from ..stream.render import render
from ..stream.truth import NOTHING, WORDINGS, Asked, Witness
from ..stream.world import make_world
from .bench import Bench
from .config import EngineConfig
from .engine import Engine
from .question import Question
from .session import Session

# Training takes its seeds from a million on; see demos/mini_data.py.
FIRST_SEED = 0
NUM_WORLDS = 32
NUM_FRAMES = 16
_WORLDS_AT_ONCE = 8


class MiniBench(Bench):
    """Worlds that training never saw, 16 frames of 320x240 at 1 fps, a question of every kind in canonical words."""

    about = (
        "mini: answers right, to the letter, on synthetic worlds that training never saw, through the whole pipeline, "
        "beside the same model given black frames. Keys: accuracy, blind_accuracy, interval (95 % for accuracy), "
        "by_type (accuracy, blind_accuracy, num_questions of each), num_questions, num_worlds, num_frames."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """repeats: how many times NUM_WORLDS worlds are asked about."""
        engine = Engine(
            EngineConfig(
                model="millpond/mini" if model == "default" else model,
                reuse="none",
                memory=MemoryConfig(recent_frames=NUM_FRAMES),
                chunk_frames=NUM_FRAMES,
                max_new_tokens=32,
            )
        )
        right: dict[str, list[bool]] = defaultdict(list)
        blind: dict[str, list[bool]] = defaultdict(list)
        num_worlds = NUM_WORLDS * repeats
        for first in range(FIRST_SEED, FIRST_SEED + num_worlds, _WORLDS_AT_ONCE):
            worlds = [clip_of(seed) for seed in range(first, first + _WORLDS_AT_ONCE)]
            for scores, looks in ((right, True), (blind, False)):
                for kind, hit in _score(engine, worlds, looks):
                    scores[kind].append(hit)
        hits, misses = sum(map(sum, right.values())), sum(len(h) - sum(h) for h in right.values())
        num = hits + misses
        return {
            "accuracy": hits / num,
            "blind_accuracy": sum(map(sum, blind.values())) / num,
            "interval": wilson(hits, num),
            "by_type": {
                kind: {
                    "accuracy": sum(right[kind]) / len(right[kind]),
                    "blind_accuracy": sum(blind[kind]) / len(blind[kind]),
                    "num_questions": len(right[kind]),
                }
                for kind in WORDINGS
                if right[kind]
            },
            "num_questions": num,
            "num_worlds": num_worlds,
            "num_frames": NUM_FRAMES,
        }

    def table(self, result: dict[str, Any]) -> str:
        low, high = result["interval"]
        lines = [
            f"{result['num_questions']} questions on {result['num_worlds']} worlds of {result['num_frames']} frames",
            f"{'':12} {'looks':>8} {'blind':>8} {'questions':>10}",
        ]
        for kind, row in result["by_type"].items():
            lines.append(f"{kind:12} {row['accuracy']:8.3f} {row['blind_accuracy']:8.3f} {row['num_questions']:10d}")
        lines.append(
            f"{'all':12} {result['accuracy']:8.3f} {result['blind_accuracy']:8.3f}   "
            f"(95 % interval {low:.3f} to {high:.3f})"
        )
        return "\n".join(lines)


def wilson(hits: int, num: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927)."""
    z, share = 1.959964, hits / num
    middle = (share + z * z / (2 * num)) / (1 + z * z / num)
    half = z / (1 + z * z / num) * ((share * (1 - share) + z * z / (4 * num)) / num) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def clip_of(seed: int) -> tuple[list[Frame], list[Asked]]:
    """A world's frames, and questions of all kinds about them, asked after the last."""
    world = make_world(seed, duration_s=float(NUM_FRAMES), aspect=4 / 3)
    times_s = [float(t) for t in range(NUM_FRAMES)]
    pictures = render(world, times_s, width=320, height=240).rgb_NHW3
    frames = [Frame(rgb, t, f"world-{seed}", n) for n, (rgb, t) in enumerate(zip(pictures, times_s, strict=True))]
    witness, rng = Witness(world, times_s), np.random.default_rng(seed)
    drawn = (draw(witness, kind, NUM_FRAMES - 1, rng) for kind in WORDINGS)
    return frames, [one for one in drawn if one is not None]


def draw(witness: Witness, kind: str, number: int, rng: np.random.Generator) -> Asked | None:
    """A question of this kind after that frame, of several one whose answer is not "nothing" where there is one."""
    drawn = [witness.ask(kind, number, rng, canonical=True) for _ in range(4)]
    return next((one for one in drawn if one is not None and one.answer != NOTHING), drawn[0])


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

"""`millpond bench streaming`: what reuse costs in right answers, asked while a stream runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..encoders import VideoLLM
from ..encoders.reuse import Reuser
from ..encoders.reuse.delta import DeltaReuse
from ..encoders.reuse.none import NoReuse
from ..encoders.reuse.stc import STCCacher
from ..memory import MemoryConfig
from ..stream import Frame
from ..stream.render import render
from ..stream.truth import Asked, Witness
from ..stream.world import make_world
from .bench import Bench
from .bench_mini import FIRST_SEED, KINDS, NUM_FRAMES, draw, wilson
from .bench_shapes import BUILT_IN_SHAPE, machine, make_model
from .config import EngineConfig
from .engine import Engine
from .question import Question

NUM_WORLDS = 32
_ASKED_AFTER = (4, 8, 12, 16)  # frames
_WORLDS_AT_ONCE = 8

# Fallback to dense frames is off: it would hide what reuse costs where dense is as fast.
METHODS: dict[str, Reuser] = {
    "none": NoReuse(),
    "stc2": STCCacher(every_blocks=2),
    "stc4": STCCacher(every_blocks=4),
    "delta": DeltaReuse(falls_back=False),
}


class StreamingBench(Bench):
    """Worlds of `bench mini`, asked about while they run: every kind of question, at one of four moments."""

    about = (
        "streaming: right answers of the built-in model with features reused, beside the same questions with every "
        "frame computed whole, asked while the streams run. Keys: methods, each with name, accuracy, interval (95 %), "
        "points (below none, of 100), num_lost and num_won (questions that only one of both answers right), "
        "recomputed_share; num_questions, num_worlds, machine."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """model: "default" is the built-in one. repeats: how many times NUM_WORLDS worlds."""
        built_in = make_model(BUILT_IN_SHAPE if model == "default" else model)
        right: dict[str, list[bool]] = {name: [] for name in METHODS}
        shares: dict[str, list[float]] = {name: [] for name in METHODS}
        num_worlds = NUM_WORLDS * repeats
        for first in range(FIRST_SEED, FIRST_SEED + num_worlds, _WORLDS_AT_ONCE):
            worlds = [_streamed(seed) for seed in range(first, first + _WORLDS_AT_ONCE)]
            for name, reuse in METHODS.items():
                hits, share = _try(built_in, reuse, worlds)
                right[name] += hits
                shares[name] += share
        whole = right["none"]
        return {
            "methods": [
                {
                    "name": name,
                    "accuracy": sum(hits) / len(hits),
                    "interval": wilson(sum(hits), len(hits)),
                    "points": 100 * (sum(whole) - sum(hits)) / len(hits),
                    "num_lost": sum(w and not h for w, h in zip(whole, hits, strict=True)),
                    "num_won": sum(h and not w for w, h in zip(whole, hits, strict=True)),
                    "recomputed_share": float(np.mean(shares[name])),
                }
                for name, hits in right.items()
            ],
            "num_questions": len(whole),
            "num_worlds": num_worlds,
            "machine": machine(built_in.spec.device),
        }

    def table(self, result: dict[str, Any]) -> str:
        lines = [
            f"{result['num_questions']} questions on {result['num_worlds']} running worlds; {result['machine']}",
            f"{'reuse':8} {'computed':>9} {'right':>7}  {'95 % interval':>15} {'points lost':>12} {'lost/won':>9}",
        ]
        for row in result["methods"]:
            low, high = row["interval"]
            lines.append(
                f"{row['name']:8} {row['recomputed_share']:9.3f} {row['accuracy']:7.3f}  {low:.3f} to {high:.3f} "
                f"{row['points']:12.2f} {row['num_lost']:5d}/{row['num_won']}"
            )
        return "\n".join(lines)


def _streamed(seed: int) -> tuple[list[Frame], dict[int, list[Asked]]]:
    """A world's frames, and questions by the number of frames after which they are asked."""
    world = make_world(seed, duration_s=float(NUM_FRAMES), aspect=4 / 3)
    times_s = [float(t) for t in range(NUM_FRAMES)]
    pictures = render(world, times_s, width=320, height=240).rgb_NHW3
    frames = [Frame(rgb, t, f"world-{seed}", n) for n, (rgb, t) in enumerate(zip(pictures, times_s, strict=True))]
    rng = np.random.default_rng(seed)
    asked: dict[int, list[Asked]] = {after: [] for after in _ASKED_AFTER}
    for number, kind in enumerate(KINDS):
        after = _ASKED_AFTER[(seed + number) % len(_ASKED_AFTER)]
        one = draw(Witness(world, times_s), kind, after - 1, rng)
        if one is not None:
            asked[after].append(one)
    return frames, asked


def _try(
    model: VideoLLM, reuse: Reuser, worlds: list[tuple[list[Frame], dict[int, list[Asked]]]]
) -> tuple[list[bool], list[float]]:
    """Which answers are right, moment by moment, and the share of patches computed for each world."""
    config = EngineConfig(reuse=reuse, memory=MemoryConfig(recent_frames=NUM_FRAMES), chunk_frames=4, max_new_tokens=32)
    right: list[bool] = []
    with Engine(config, model=model) as engine:
        sessions = [engine.session(frames[0].stream_id) for frames, _ in worlds]
        for number in range(NUM_FRAMES):
            for session, (frames, _) in zip(sessions, worlds, strict=True):
                session.push(frames[number])
            asked = [
                (session, one)
                for session, (_, by_moment) in zip(sessions, worlds, strict=True)
                for one in by_moment.get(number + 1, ())
            ]
            if asked:
                answers = engine.ask([(session, Question(one.question)) for session, one in asked])
                right += [answer.text == one.answer for (_, one), answer in zip(asked, answers, strict=True)]
        return right, [session.intake.eyes.stats.recomputed_share for session in sessions]

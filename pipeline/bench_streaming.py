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
from ..stream.truth import Asked
from .bench import Bench
from .bench_mini import wilson
from .bench_shapes import BUILT_IN_SHAPE, machine, make_model
from .bench_worlds import FIRST_SEED, NUM_WORLDS, ask_along, make_clip
from .config import EngineConfig
from .engine import Engine
from .question import Question

NUM_FRAMES = 16
WORLDS = ("plain", "wide")
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
    """Worlds of 16 frames, asked about while they run: every kind of question, at one of four moments."""

    about = (
        "streaming: right answers of the built-in model with features reused, beside the same questions with every "
        "frame computed whole, asked while the streams run. Keys: methods, each on plain and on wide worlds, with "
        "name, worlds, recomputed_share, accuracy, interval (95 %), points (below none, of 100), num_lost and num_won "
        "(questions that only one of both answers right), num_questions; num_worlds (of each sort), machine."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """model: "default" is the built-in one. repeats: how many times NUM_WORLDS worlds."""
        built_in = make_model(BUILT_IN_SHAPE if model == "default" else model)
        num_worlds = NUM_WORLDS * repeats
        methods = [row for sort in WORLDS for row in _measure(built_in, num_worlds, sort)]
        return {"methods": methods, "num_worlds": num_worlds, "machine": machine(built_in.spec.device)}

    def table(self, result: dict[str, Any]) -> str:
        asked = ", ".join(
            f"{next(row['num_questions'] for row in result['methods'] if row['worlds'] == sort)} of {sort} ones"
            for sort in WORLDS
        )
        lines = [
            f"questions on {result['num_worlds']} running worlds: {asked}; {result['machine']}",
            f"{'worlds':7} {'reuse':8} {'computed':>9} {'right':>7}  {'95 % interval':>15} {'points lost':>12} "
            f"{'lost/won':>9}",
        ]
        for row in result["methods"]:
            low, high = row["interval"]
            lines.append(
                f"{row['worlds']:7} {row['name']:8} {row['recomputed_share']:9.3f} {row['accuracy']:7.3f}  "
                f"{low:.3f} to {high:.3f} {row['points']:12.2f} {row['num_lost']:5d}/{row['num_won']}"
            )
        return "\n".join(lines)


def _measure(model: VideoLLM, num_worlds: int, sort: str) -> list[dict[str, Any]]:
    """A row for each of METHODS, on so many worlds of one sort."""
    right: dict[str, list[bool]] = {name: [] for name in METHODS}
    shares: dict[str, list[float]] = {name: [] for name in METHODS}
    for first in range(FIRST_SEED, FIRST_SEED + num_worlds, _WORLDS_AT_ONCE):
        worlds = [_streamed(seed, sort == "wide") for seed in range(first, first + _WORLDS_AT_ONCE)]
        for name, reuse in METHODS.items():
            hits, share = _try(model, reuse, worlds)
            right[name] += hits
            shares[name] += share
    whole = right["none"]
    return [
        {
            "name": name,
            "worlds": sort,
            "recomputed_share": float(np.mean(shares[name])),
            "accuracy": sum(hits) / len(hits),
            "interval": wilson(sum(hits), len(hits)),
            "points": 100 * (sum(whole) - sum(hits)) / len(hits),
            "num_lost": sum(w and not h for w, h in zip(whole, hits, strict=True)),
            "num_won": sum(h and not w for w, h in zip(whole, hits, strict=True)),
            "num_questions": len(whole),
        }
        for name, hits in right.items()
    ]


def _streamed(seed: int, wide: bool) -> tuple[list[Frame], dict[int, list[Asked]]]:
    """A world's frames, and questions by the number of frames after which they are asked."""
    clip = make_clip(seed, NUM_FRAMES, wide=wide)
    return clip.frames, ask_along(clip, seed, _ASKED_AFTER)


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

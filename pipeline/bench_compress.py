"""`millpond bench compress`: tokens to the language model and prefill time, by compressor, against accuracy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..encoders import FrameTokens, Row, VideoLLM
from ..encoders.compressors import COMPRESSORS, Compressor, take
from ..memory import MemoryConfig
from ..stream import Frame, Span
from ..stream.truth import Asked
from .bench import Bench
from .bench_mini import wilson
from .bench_shapes import BUILT_IN_SHAPE, machine, make_model
from .bench_worlds import FIRST_SEED, NUM_WORLDS, ask_at_end, make_clip
from .config import EngineConfig
from .engine import Engine
from .question import Question

NUM_FRAMES, RECENT_FRAMES = 16, 4
KEEP_TOKENS = 9  # of the built-in model's 36 a frame
_WORLDS_AT_ONCE = 8
_PREFILL_SHAPE, _PREFILL_LAYERS, _PREFILL_FRAMES = "so400m-384", 24, 8
RECENT_ONLY = "(recent only)"


class _Tried(NamedTuple):
    """One compressor on some worlds: which answers were right, and tokens of frames before and after."""

    right: tuple[bool, ...] = ()
    num_seen_tokens: int = 0
    num_kept_tokens: int = 0
    num_frames: int = 0

    @property
    def share(self) -> float:
        return self.num_kept_tokens / self.num_seen_tokens

    def __add__(self, other: object) -> _Tried:
        assert isinstance(other, _Tried)
        return _Tried(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class CompressBench(Bench):
    """Worlds of `bench mini`; the newest 4 of 16 frames are read whole, the 12 before them as a compressor leaves them,
    and all of them are in context: what is measured is the compressor, not the memory."""

    about = (
        "compress: every compressor, about a quarter of the tokens, on the built-in model's questions: the newest 4 of "
        "16 frames whole, the 12 before compressed, all in context. Keys: compressors, each with name, settings, "
        "tokens_per_frame (that the language model reads of a compressed frame), token_share, prefill_share (time that "
        "a language model of Qwen2-0.5B's shape takes to read frames of so many tokens, over whole ones), accuracy, "
        "interval (95 %), num_questions; num_worlds, machine."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """model: "default" is the built-in one. repeats: how many times NUM_WORLDS worlds, and timings of prefill."""
        tried = dict.fromkeys([*COMPRESSORS, RECENT_ONLY], _Tried())
        built_in = make_model(BUILT_IN_SHAPE if model == "default" else model)
        for first in range(FIRST_SEED, FIRST_SEED + NUM_WORLDS * repeats, _WORLDS_AT_ONCE):
            worlds = []
            for seed in range(first, first + _WORLDS_AT_ONCE):
                clip = make_clip(seed, NUM_FRAMES)
                worlds.append((clip.frames, ask_at_end(clip, seed)))
            for name in tried:
                tried[name] += _try(built_in, name, worlds)
        prefill = _prefill_shares({name: one.share for name, one in tried.items() if name != RECENT_ONLY}, repeats)
        rows = []
        for name, one in tried.items():
            keeps = name != RECENT_ONLY
            rows.append(
                {
                    "name": name,
                    "settings": _settings_of(_made(name)) if keeps else "",
                    "tokens_per_frame": one.num_kept_tokens / one.num_frames if keeps else 0.0,
                    "token_share": one.share if keeps else 0.0,
                    "prefill_share": prefill[name] if keeps else 0.0,
                    "accuracy": sum(one.right) / len(one.right),
                    "interval": wilson(sum(one.right), len(one.right)),
                    "num_questions": len(one.right),
                }
            )
        return {"compressors": rows, "num_worlds": NUM_WORLDS * repeats, "machine": machine(built_in.spec.device)}

    def table(self, result: dict[str, Any]) -> str:
        rows = sorted(result["compressors"], key=lambda row: -row["accuracy"])
        lines = [
            f"{rows[0]['num_questions']} questions on {result['num_worlds']} worlds; {result['machine']}",
            f"{'compressor':20} {'tokens':>7} {'share':>7} {'prefill':>8} {'right':>7}  95 % interval",
        ]
        for row in rows:
            low, high = row["interval"]
            lines.append(
                f"{row['name']:20} {row['tokens_per_frame']:7.1f} {row['token_share']:7.3f} "
                f"{row['prefill_share']:8.3f} {row['accuracy']:7.3f}  {low:.3f} to {high:.3f}"
            )
        return "\n".join(lines)


def _made(name: str) -> Compressor:
    """The compressor with a quarter of a frame's tokens, where it takes a count; else as it comes."""
    recipe = COMPRESSORS[name]()
    takes_count = any(f.name == "keep_tokens" and f.default is not None for f in fields(recipe))
    return replace(recipe, keep_tokens=KEEP_TOKENS) if takes_count else recipe


def _settings_of(recipe: Compressor) -> str:
    keep = getattr(recipe, "keep_tokens", None)
    return "" if keep is None else f"keep_tokens={keep}"


def _try(model: VideoLLM, name: str, worlds: Sequence[tuple[list[Frame], list[Asked]]]) -> _Tried:
    """One compressor on some worlds."""
    config = EngineConfig(
        reuse="none",
        compressor="none" if name == RECENT_ONLY else _made(name),
        memory=MemoryConfig(
            recent_frames=RECENT_FRAMES, recall_blocks=0 if name == RECENT_ONLY else NUM_FRAMES, retriever="recent"
        ),
        chunk_frames=NUM_FRAMES,
        max_new_tokens=32,
    )
    asked = []
    with Engine(config, model=model) as engine:
        for frames, questions in worlds:
            # A compressor that looks at a question gets all that will be asked of the world.
            sought = " ".join(one.question for one in questions)
            session = engine.session(frames[0].stream_id, question=sought)
            for frame in frames:
                session.push(frame)
            asked += [(session, one) for one in questions]
        answers = engine.ask([(session, Question(one.question)) for session, one in asked])
        intakes = [session.intake for session in engine.sessions]
        return _Tried(
            tuple(answer.text == one.answer for (_, one), answer in zip(asked, answers, strict=True)),
            sum(intake.num_seen_tokens for intake in intakes),
            sum(intake.num_kept_tokens for intake in intakes),
            sum(session.memory.stats.num_appended for session in engine.sessions),
        )


def _prefill_shares(shares: dict[str, float], repeats: int) -> dict[str, float]:
    """The time that a language model of Qwen2-0.5B's shape takes to read what is left of frames, over whole ones."""
    model = make_model(_PREFILL_SHAPE, num_text_layers=_PREFILL_LAYERS)
    took_s: dict[str, list[float]] = {name: [] for name in ("", *shares)}
    whole = _random_tokens(model)
    for _ in range(max(3, repeats)):
        for name, taken in took_s.items():  # all in turn, so that noise hits all alike
            share = shares.get(name, 1.0)
            parts = [_leave(tokens, share) for tokens in whole]
            context = model.new_context()
            started_s = time.perf_counter()
            model.read([Row(context, tuple(parts))])
            taken.append(time.perf_counter() - started_s)
    usual_s = statistics.median(took_s[""])
    return {name: statistics.median(took_s[name]) / usual_s for name in shares}


def _random_tokens(model: VideoLLM) -> list[FrameTokens]:
    """Whole frames for that model to read; what they show makes no difference to the time."""
    frame = Frame(np.random.default_rng(0).integers(0, 256, (384, 384, 3), dtype=np.uint8), 0.0)
    (tokens,) = model.see([frame])
    return [replace(tokens, span=Span(float(t), float(t))) for t in range(_PREFILL_FRAMES)]


def _leave(tokens: FrameTokens, share: float) -> FrameTokens:
    num = max(1, round(share * tokens.num_tokens))
    return take(tokens, torch.linspace(0, tokens.num_tokens - 1, num).round().to(torch.int64).unique())

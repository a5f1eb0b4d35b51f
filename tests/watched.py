"""What tests of sessions share: loaded models, engines of them, and pictures to push."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForImageTextToText,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
)

from millpond.encoders import VideoLLM, load_model
from millpond.encoders.load import BUILT_IN
from millpond.memory import MemoryConfig
from millpond.pipeline import Engine, EngineConfig, Session
from millpond.stream import Frame

from .tiny_models import TINY_MODELS, spread

MINI = BUILT_IN["millpond/mini"]
ROOMY = MemoryConfig(recent_frames=64)


@cache
def tiny(family: str) -> VideoLLM:
    """A small random model of this family, in float32."""
    with TemporaryDirectory() as folder:
        return load_model(TINY_MODELS[family].save(Path(folder)), device="cpu", dtype="float32")


@cache
def mini() -> VideoLLM:
    """The built-in model, in float32."""
    return load_model("millpond/mini", device="cpu", dtype="float32")


def save_mini_at_random(folder: Path, seed: int = 0) -> Path:
    """The built-in model's architecture and words, with weights so random that its answers vary."""
    shutil.copytree(MINI, folder, dirs_exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # Words in are not words out: tied, a random model repeats what it reads.
        config = LlavaOnevisionConfig.from_pretrained(MINI, tie_word_embeddings=False)
        config.text_config.tie_word_embeddings = False
        model = LlavaOnevisionForConditionalGeneration(config)
        spread(model)
    model.save_pretrained(folder)
    return folder


def load_theirs(folder: Path) -> Any:
    """The checkpoint as transformers itself loads it."""
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def engine_of(model: VideoLLM, **settings: Any) -> Engine:
    """An engine that forgets nothing and says little, but for what the settings say."""
    return Engine(EngineConfig(**{"memory": ROOMY, "max_new_tokens": 8, **settings}), model=model)


def picture(seed: int, height: int = 48, width: int = 80) -> np.ndarray:
    """Coarse coloured noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    return coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].astype(np.uint8)


def pictures(num: int, *, seed: int = 0, step_s: float = 1.0, height: int = 48, width: int = 80) -> list[Frame]:
    """Frames that all differ, `step_s` apart."""
    return [Frame(picture(1000 * seed + n, height, width), round(step_s * n, 3), index=n) for n in range(num)]


def still(num: int, *, seed: int = 0, step_s: float = 1.0, start_s: float = 0.0) -> list[Frame]:
    """One picture, again and again."""
    rgb = picture(seed)
    return [Frame(rgb, start_s + step_s * n, index=n) for n in range(num)]


def pushed(engine: Engine, frames: Sequence[Frame], stream_id: str = "stream") -> Session:
    """A new session that got these frames."""
    session = engine.session(stream_id)
    for frame in frames:
        session.push(frame)
    return session


def ids_after(engine: Engine, frames: Sequence[Frame], question: str) -> tuple[int, ...]:
    """The answer's tokens of a new session that saw these frames."""
    session = pushed(engine, frames)
    ids = session.ask(question).token_ids
    session.close()
    return ids

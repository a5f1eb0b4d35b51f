"""What benchmarks of encoding measure on: towers of published shapes with random weights, and clips."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..encoders import VideoLLM, load_model
from ..stream import Frame, RateSampler, SourceError, open_source

BUILT_IN_SHAPE = "millpond/mini"

# SigLIP's vision towers as published; SmolVLM's has the second one's.
_TOWERS: dict[str, dict[str, int]] = {
    "so400m-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    },
    "b-512": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    },
}

SHAPES = (*_TOWERS, BUILT_IN_SHAPE)

# The recording that is also looked at at ten frames a second, where little changes from one to the next.
_ALSO_AT_10_FPS = "vtest.avi"

_SYNTHETIC = "synthetic://shapes?seed={seed}&duration_s={length_s}&rate_hz=10&width=640&height=480"


class Clip(NamedTuple):
    """Frames of one recording at one rate, decoded."""

    name: str
    fps: float
    frames: tuple[Frame, ...]


def make_model(shape: str, *, num_text_layers: int = 1) -> VideoLLM:
    """A row of SHAPES, or whatever `load_model` takes.

    A tower's shape comes with random weights in bfloat16 and with a language model of Qwen2-0.5B's width, of the
    built-in model's words: LLaVA-OneVision-0.5B, where the tower is so400m-384 and num_text_layers is 24.
    """
    if shape not in _TOWERS:
        return load_model(shape, dtype="float32" if shape == BUILT_IN_SHAPE else "auto")
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    from ..encoders.families.llava_onevision import LlavaOnevision

    # Words are the built-in model's: they need no download.
    words: Any = load_model(BUILT_IN_SHAPE, device="cpu")
    tower = _TOWERS[shape]
    config = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **tower, "vision_use_head": False},
        text_config={
            "model_type": "qwen2",
            "vocab_size": words.spec.vocab_size,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": num_text_layers,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
        },
        image_token_index=4,
        video_token_index=5,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaOnevisionForConditionalGeneration(config).to(torch.bfloat16)
    model.generation_config.eos_token_id = None
    side_px = tower["image_size"]
    processor = {
        "size": {"height": side_px, "width": side_px},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }
    return LlavaOnevision(
        model.to("cuda" if torch.cuda.is_available() else "cpu"),
        words.tokenizer,
        words.chat_template,
        name=shape,
        settings={"video": processor},
    )


def real_clips(folder: Path, max_frames: int) -> list[Clip]:
    """The start of every recording in a folder at 2 fps, and of vtest.avi at 10 fps as well.

    Raises ValueError where there is no folder, or no recording in it.
    """
    if not folder.is_dir():
        raise ValueError(f"clips must be a folder with recordings; got {str(folder)!r}, which is none")
    clips = []
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        for fps in (2.0, 10.0) if path.name == _ALSO_AT_10_FPS else (2.0,):
            try:
                clips.append(Clip(path.name, fps, _decode(str(path), fps, max_frames)))
            except SourceError:
                break  # a text beside the recordings
    if not clips:
        raise ValueError(f"no file in {str(folder)!r} is a recording; got {len(list(folder.iterdir()))} files there")
    return clips


def synthetic_clips(max_frames: int) -> list[Clip]:
    """Two worlds of moving shapes, one of them at 10 fps too, where there are no recordings at hand."""
    clips = []
    for seed, fps in ((1, 2.0), (1, 10.0), (2, 2.0)):
        uri = _SYNTHETIC.format(seed=seed, length_s=max_frames / fps)
        clips.append(Clip(f"shapes-{seed}", fps, _decode(uri, fps, max_frames)))
    return clips


def hard_clips(num_frames: int) -> list[Clip]:
    """Where reuse has nothing to win, or all: pure noise, two pictures in turn, and a picture that stands still."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (num_frames, 384, 384, 3), dtype=np.uint8)
    first, second = (_decode(_SYNTHETIC.format(seed=seed, length_s=8), 2.0, 16)[-1].rgb_HW3 for seed in (1, 2))
    return [
        Clip("noise", 2.0, _frames(noise)),
        Clip("alternating", 2.0, _frames([(first, second)[n % 2] for n in range(num_frames)])),
        Clip("still", 2.0, _frames([first] * num_frames)),
    ]


def machine(model_device: torch.device) -> str:
    """What the figures were measured on, in words."""
    gpu = f", {torch.cuda.get_device_name(model_device)}" if model_device.type == "cuda" else ""
    torch_words = f"torch {torch.__version__.partition('+')[0]}, {torch.get_num_threads()} threads"
    return f"{platform.machine()}, {os.cpu_count()} cores{gpu}, {torch_words}"


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given, so that a clock read now tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _decode(uri: str, fps: float, max_frames: int) -> tuple[Frame, ...]:
    with open_source(uri) as source:
        return tuple(islice(source.sampled(RateSampler(fps)), max_frames))


def _frames(pictures: Sequence[np.ndarray]) -> tuple[Frame, ...]:
    return tuple(Frame(picture, n / 2.0, "clip", n) for n, picture in enumerate(pictures))

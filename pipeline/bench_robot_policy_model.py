"""pi0 at its real shape with random weights, and what it is shown: cameras that stand still, and cameras that move."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..encoders.policies import Observation, PI0Policy
from ..encoders.policies.eyes import PI0Eyes
from ..stream import Frame
from .bench_real_models import DTYPE, drawing_on, free_bytes
from .bench_real_tower import Moving, moving_clips

# Shapes: C cameras, 3 colours, H rows, W columns, 1 robot, T tokens of the prefix, S numbers of a state, A action
# steps, J numbers of an action.

_GIB = 2**30
# Beside the weights: activations, caches, the interpreter and its libraries.
_WORKING_BYTES = 2 * _GIB
_WORDS_SEED, _SCENE_SEED = 0, 1
# A clip "in which little changes" stands for a fixed camera, one "in which much does" for one on a wrist.
_KINDS = {"little": "fixed", "much": "wrist"}

_SMALL_WORDS: dict[str, Any] = {
    "model_type": "gemma",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 400,
}
# What PI0Config is given. Nothing: the sizes of lerobot/pi0_base. The small one is for trying the benchmark out.
PI0_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "pi0": {},
    "pi0-small": {
        "vlm_config": {
            "model_type": "paligemma",
            "text_config": _SMALL_WORDS,
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": 112,
                "patch_size": 14,
                "vision_use_head": False,
                "projection_dim": 64,
            },
            "projection_dim": 64,
            "image_token_id": 400,
        },
        "dit_config": {**_SMALL_WORDS, "hidden_size": 32, "intermediate_size": 48},
        "chunk_size": 10,
        "num_inference_steps": 4,
    },
}


class Scene(NamedTuple):
    """What one kind of camera shows a policy, moment after moment, and the clip that it is from, in squares."""

    kind: str
    moving: Moving
    pixels_C3HW: tuple[Tensor, ...]


class Asked(NamedTuple):
    """What does not change from moment to moment."""

    ids_1T: Tensor
    state_1S: Tensor
    noise_1AJ: Tensor


def make_pi0(shape: str, device: torch.device) -> Any:
    """A pi0 of one of PI0_SHAPES, random weights drawn there in bfloat16; never in float32."""
    from transformers import PI0Config, PI0ForConditionalGeneration

    config = PI0Config(**deepcopy(dict(shape_of(shape))))  # which takes what it is given apart
    with drawing_on(device, _SCENE_SEED):
        return PI0ForConditionalGeneration(config).eval()


def shape_of(shape: str) -> Mapping[str, Any]:
    """What a shape's config is given. Raises ValueError for an unknown one."""
    if shape not in PI0_SHAPES:
        raise ValueError(f"no shape of pi0 is named {shape!r}; there are: {', '.join(PI0_SHAPES)}")
    return PI0_SHAPES[shape]


def count_parameters(shape: str) -> int:
    """How many numbers a model of the shape has; none of them is made."""
    return sum(parameter.numel() for parameter in make_pi0(shape, torch.device("meta")).parameters())


def lack_of_room(num_parameters: int, device: torch.device) -> str:
    """Why a model has no room on the device, in words; empty where it has."""
    wanted = num_parameters * DTYPE.itemsize + _WORKING_BYTES
    free = free_bytes(device)
    if wanted <= free:
        return ""
    return (
        f"{num_parameters / 1e9:.2f} billion parameters in bfloat16 and what is measured on them need about "
        f"{wanted / _GIB:.1f} GiB; {free / _GIB:.1f} GiB of this {device.type}'s memory are free"
    )


def ask(policy: PI0Policy, num_cameras: int, num_words: int) -> Asked:
    """A prompt, a state and a noise, drawn at random."""
    rng = torch.Generator().manual_seed(_WORDS_SEED)
    config = policy.model.config
    words = torch.randint(1, 300, (num_words,), generator=rng)
    images = torch.full((num_cameras * policy.tokens_per_camera,), int(config.vlm_config.image_token_id))
    made = (
        torch.cat([images, words])[None],
        torch.randn(1, config.max_state_dim, generator=rng).to(policy.dtype),
        torch.randn(1, policy.chunk_size, policy.action_dim, generator=rng).to(policy.dtype),
    )
    return Asked(*(one.to(policy.device) for one in made))


def scenes(eyes: PI0Eyes, *, num_cameras: int, num_moments: int, num_blocks: int, folder: Path | None) -> list[Scene]:
    """A scene for each kind of camera: clips' frames in squares, each camera some frames ahead of the one before.

    folder: of recordings; None: synthetic ones.
    """
    num_frames = max(1 + num_blocks, num_moments + num_cameras)
    made = []
    for moving in moving_clips(num_frames, folder):
        frames: tuple[Frame, ...] = tuple(eyes.square(frame) for frame in moving.clip.frames)
        ahead = len(frames) // num_cameras
        shown = (
            [frames[(moment + camera * ahead) % len(frames)] for camera in range(num_cameras)]
            for moment in range(num_moments)
        )
        squared = moving._replace(clip=moving.clip._replace(frames=frames))
        made.append(Scene(_KINDS[moving.change], squared, tuple(eyes.pixels(views) for views in shown)))
    return made


def observe(asked: Asked, pixels_C3HW: Tensor, x_CPD: Tensor) -> Observation:
    """One moment."""
    return Observation(asked.ids_1T, asked.state_1S, x_CPD, pixels_C3HW=pixels_C3HW)

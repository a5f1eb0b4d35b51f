"""A small random pi0 from its config class, and what it is given."""

from __future__ import annotations

from typing import Any

import torch

from millpond.encoders.policies import Observation, PI0Policy

SIDE_PX, PATCH_PX = 56, 14
TOKENS = (SIDE_PX // PATCH_PX) ** 2
NUM_LAYERS = 4
CHUNK, JOINTS, STATE = 6, 5, 7
IMAGE_ID = 99


def tiny_pi0(seed: int = 0, *, attention: str = "sdpa") -> Any:
    from transformers import PI0Config, PI0ForConditionalGeneration

    text = {
        "model_type": "gemma",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": NUM_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "vocab_size": 98,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIDE_PX,
        "patch_size": PATCH_PX,
        "vision_use_head": False,
    }
    config = PI0Config(
        vlm_config={
            "model_type": "paligemma",
            "text_config": text,
            "vision_config": {**vision, "projection_dim": 32},
            "projection_dim": 32,
            "image_token_id": IMAGE_ID,
        },
        dit_config={**text, "hidden_size": 16, "intermediate_size": 24},
        chunk_size=CHUNK,
        max_state_dim=STATE,
        max_action_dim=JOINTS,
        num_inference_steps=3,
    )
    config._attn_implementation = attention
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = PI0ForConditionalGeneration(config).eval()
        # As drawn, attention is nearly even and every token nearly alike: nothing that a saving does would show.
        for name, parameter in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.data.mul_(12.0)
            elif "proj" in name or "position_embedding" in name:
                parameter.data.mul_(4.0)
    return model


def inputs(num_cameras: int = 2, *, seed: int = 0, num_words: int = 5, num_padding: int = 0) -> dict[str, Any]:
    """What transformers' own `sample_actions` takes."""
    rng = torch.Generator().manual_seed(seed)
    words = torch.randint(1, 90, (num_words,), generator=torch.Generator().manual_seed(num_words))
    ids = torch.cat([torch.full((num_cameras * TOKENS,), IMAGE_ID), words, torch.zeros(num_padding, dtype=torch.int64)])
    given: dict[str, Any] = {
        "state": torch.randn(1, STATE, generator=rng),
        "input_ids": ids[None],
        "pixel_values": torch.rand(1, num_cameras, 3, SIDE_PX, SIDE_PX, generator=rng) * 2 - 1,
        "pixel_attention_mask": torch.ones(1, num_cameras, dtype=torch.bool),
        "noise": torch.randn(1, CHUNK, JOINTS, generator=rng),
    }
    if num_padding:
        mask = torch.ones_like(given["input_ids"])
        mask[0, -num_padding:] = 0
        given["attention_mask"] = mask
    return given


def observe(policy: PI0Policy, given: dict[str, Any], **more: Any) -> Observation:
    """The same as ours takes it."""
    pixels = given["pixel_values"][0]
    return Observation(
        ids_1T=given["input_ids"],
        state_1S=given["state"],
        x_CPD=policy.see(pixels),
        mask_1T=given.get("attention_mask"),
        pixels_C3HW=pixels,
        **more,
    )

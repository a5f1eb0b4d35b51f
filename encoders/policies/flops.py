"""What a chunk of pi0 costs in operations, from its sizes and from how many rows each layer computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .observation import Chunk

# A multiplication and an addition are two. Counted: matrix products, attention's included. Not: norms, softmax,
# embeddings, and the choosing of savings, all small beside them.


@dataclass(frozen=True, slots=True)
class GemmaSize:
    """One stack of Gemma layers."""

    num_layers: int
    hidden: int
    intermediate: int
    num_heads: int
    num_kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: Any) -> GemmaSize:
        """The sizes in a config of transformers."""
        return cls(
            config.num_hidden_layers,
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )

    @property
    def parameters_per_layer(self) -> int:
        """Numbers of a layer's matrices."""
        attention = self.hidden * self.head_dim * (2 * self.num_heads + 2 * self.num_kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    def layer_flops(self, num_rows: int, num_slots: int) -> int:
        """One layer for some rows that attend to some slots."""
        return 2 * num_rows * self.parameters_per_layer + 4 * num_rows * num_slots * self.num_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class ChunkFlops:
    """What one chunk costs, by its three parts."""

    tower: int
    prefix: int
    denoising: int

    @property
    def total(self) -> int:
        return self.tower + self.prefix + self.denoising


def chunk_flops(config: Any, chunk: Chunk, num_steps: int, *, num_cameras: int, tower_share: float = 1.0) -> ChunkFlops:
    """A chunk's cost as it was computed.

    config: transformers' PI0Config. tower_share: of the patches, those that went through the tower.
    """
    return ChunkFlops(
        int(tower_flops(config, num_cameras) * tower_share),
        prefix_flops(config, chunk.rows_per_layer, chunk.slots_per_layer),
        num_steps * step_flops(config, chunk.slots_per_layer),
    )


def tower_flops(config: Any, num_cameras: int) -> int:
    """All patches of all cameras through SigLIP and the projector."""
    vision = config.vlm_config.vision_config
    num_patches = (vision.image_size // vision.patch_size) ** 2
    hidden = vision.hidden_size
    layer = 2 * num_patches * hidden * (4 * hidden + 2 * vision.intermediate_size) + 4 * num_patches**2 * hidden
    embed = 2 * num_patches * 3 * vision.patch_size**2 * hidden
    project = 2 * num_patches * hidden * config.vlm_config.text_config.hidden_size
    return int(num_cameras * (vision.num_hidden_layers * layer + embed + project))


def prefix_flops(config: Any, rows_per_layer: Sequence[int], slots_per_layer: Sequence[int]) -> int:
    """The prefix through the language half."""
    size = GemmaSize.of(config.vlm_config.text_config)
    if not len(rows_per_layer) == len(slots_per_layer) == size.num_layers:
        raise ValueError(
            f"there must be a number for each of {size.num_layers} layers; got {len(rows_per_layer)} of rows and "
            f"{len(slots_per_layer)} of slots"
        )
    return sum(size.layer_flops(rows, slots) for rows, slots in zip(rows_per_layer, slots_per_layer, strict=True))


def step_flops(config: Any, slots_per_layer: Sequence[int]) -> int:
    """One denoising step of the action expert."""
    size = GemmaSize.of(config.dit_config)
    steps, queries = config.chunk_size, config.chunk_size + 1
    layers = sum(size.layer_flops(queries, slots + queries) for slots in slots_per_layer)
    actions = 2 * steps * config.max_action_dim * size.hidden  # in, and out again
    state = 2 * config.max_state_dim * size.hidden
    time = 2 * steps * (2 * size.hidden * size.hidden + size.hidden * size.hidden)
    return layers + 2 * actions + state + time

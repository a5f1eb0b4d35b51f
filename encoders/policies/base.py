"""Saving: what of a policy's prefix is left out. The contract, the list of what there is, and "none"."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from ...stream.table import Table

# Shapes: T tokens of the prefix, N visual tokens of all cameras, D channels, R rows that are computed in a layer,
# U slots whose keys a layer holds, Q queries, K key/value heads, 1 robot, C cameras, 3 colours, H rows, W columns.


class Watch(Enum):
    """Whose attention a saving wants to see in a layer of the prefix."""

    NOBODY = "nobody's"
    WORDS = "the prompt's words'"
    ALL = "all tokens'"


@dataclass(frozen=True, slots=True, eq=False)
class Prefix:
    """One prefix before its first layer. Made by `PI0Policy.read`, read by savings, written by nobody.

    x_TD: the embedded tokens. image_N: int64, where visual tokens stand, camera by camera. words_T: bool, where the
    prompt's words do; padding is in neither. fresh_N: bool, visual tokens that must be computed and kept.
    pixels_C3HW: what the tower read, or None. same_as: ids and mask, which differ where the task does.
    """

    x_TD: Tensor
    image_N: Tensor
    words_T: Tensor
    fresh_N: Tensor
    pixels_C3HW: Tensor | None
    num_cameras: int
    num_layers: int
    is_cut: bool
    same_as: tuple[int, ...]


class Held(NamedTuple):
    """What a layer's actions and tokens can attend to: keys and values, and which of the prefix's tokens they are."""

    k_1KUD: Tensor
    v_1KUD: Tensor
    slots_U: Tensor


class SavingRun:
    """One episode's state. This one saves nothing; others override what they need. Not thread-safe: one per robot.

    For each chunk: `begin`; then for each layer of the prefix `rows`, `held` and, if watched, `saw`; then for each
    denoising step `saw_action` of the layers watched; then `end`. Where anything raises between, `reset` is called.
    """

    def reset(self) -> None:
        """Forgets the episode: a new one begins."""

    def begin(self, prefix: Prefix) -> None:
        """A chunk begins. Raises ValueError for what this saving cannot work on; nothing has changed then."""

    def rows(self, layer: int, alive_R: Tensor) -> Tensor:
        """Which tokens, of those computed in the layer before, are computed in this one: int64, increasing."""
        return alive_R

    def held(self, layer: int, alive_R: Tensor, k_1KRD: Tensor, v_1KRD: Tensor) -> Held:
        """What this layer holds, given the keys (rotated) and values of the tokens that it computed."""
        return Held(k_1KRD, v_1KRD, alive_R)

    def watches(self, layer: int) -> Watch:
        """Whose attention `saw` is to be told of in this layer."""
        return Watch.NOBODY

    def saw(self, layer: int, shares_QU: Tensor, slots_U: Tensor) -> None:
        """Attention of the watched queries, mean over heads, float32: each row sums to 1."""

    def watches_action(self, layer: int) -> bool:
        """Whether `saw_action` is to be told of this layer."""
        return False

    def saw_action(self, layer: int, shares_U: Tensor, slots_U: Tensor) -> None:
        """Attention of the action steps to the prefix in one denoising step, mean over heads and steps, float32."""

    def end(self) -> None:
        """The chunk is whole."""

    @property
    def num_bytes(self) -> int:
        """What is held for this episode."""
        return 0


class Saving(ABC):
    """A frozen recipe that says what of a prefix is left out; `start()` gives the state of one episode.

    Promises, checked for every row of SAVINGS: an episode's first chunk is exact, and so is the one after a reset, a
    cut or a new instruction; tokens marked fresh are computed in every layer; words are always computed; the same
    observations after `start()` give the same actions; state is bounded; after an error the episode starts anew.
    """

    @abstractmethod
    def start(self) -> SavingRun:
        """The state of a new episode."""


@dataclass(frozen=True, slots=True)
class NoSaving(Saving):
    """Every token is computed in every layer.

    Baseline: the policy as it was trained.
    Differs from the paper: None.
    """

    def start(self) -> SavingRun:
        return SavingRun()


SAVINGS: Table[Saving] = Table(
    "saving",
    __package__ or "",
    {"none": "base:NoSaving", "vla_cache": "vla_cache:VLACache", "vla_pruner": "vla_pruner:VLAPruner"},
)


def at_depth(num_layers: int, layer_of_32: int) -> int:
    """The layer as deep in a policy's language half as that one is in the 32 of OpenVLA's, where papers count."""
    return min(num_layers - 1, round(layer_of_32 * num_layers / 32))


def check_share(name: str, given: float, *, above: float = 0.0) -> None:
    """Refuses what is no share. Raises ValueError."""
    if isinstance(given, bool) or not above <= given <= 1.0:
        raise ValueError(f"{name} is a share, {above:g} to 1; got {given!r}")


def without(alive_R: Tensor, dropped: Tensor, num_tokens: int) -> Tensor:
    """The tokens of `alive_R` that are not among the dropped."""
    is_dropped_T = torch.zeros(num_tokens, dtype=torch.bool, device=alive_R.device)
    is_dropped_T[dropped] = True
    return alive_R[~is_dropped_T[alive_R]]

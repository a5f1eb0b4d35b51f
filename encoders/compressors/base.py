"""Compressor: fewer visual tokens per frame. What every method promises, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..sight import Need, Sight, missing_needs
from ..tokens import FrameTokens
from .budgets import NO_LIMIT, Budget, capped_count

# Shapes: T tokens, K tokens kept, D channels of the language model, E DeepStack taps.

EVIDENCE = {
    Need.PIXELS: "change_T",
    Need.CLS: "cls_T",
    Need.RECEIVED: "received_RT",
    Need.FEATURES: "features_TC",
    Need.TEXT: "text_MD",
    Need.ACTION: "action_T",
}


class Room(NamedTuple):
    """How many of a frame's grid tokens may stay: at least, and at most; 1 <= least <= most <= T."""

    least: int
    most: int

    def fit(self, num_tokens: int) -> int:
        """The nearest count that there is room for."""
        return capped_count(num_tokens, self.least, self.most)


class Picked(NamedTuple):
    """What a method keeps of a frame's grid tokens.

    index_K: int64, increasing, into the grid's tokens.
    merged_KD: what these tokens become where others were merged into them; None: they stay as they are.
    """

    index_K: Tensor
    merged_KD: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Compressor(ABC):
    """A frozen recipe; `start()` gives the state that it keeps for one stream.

    Promises, checked for every row: one token is left at least, and never more than were given; never fewer than the
    budget's floor where there are as many, never more than it grants; kept_T increases; x, positions and DeepStack
    levels are gathered with the same indices; tokens that a family appends after the grid stay; the input is not
    written; the same frames after `start()` give the same tokens, alone or beside other streams; the state is bounded.

    needs: what it cannot do without. uses: what it looks at where it is to be had.
    look_ahead_frames: how many later frames it wants to see first; 0: causal.
    may_drop_frames: whether a frame may leave no token at all. FrameTokens holds one at least, so no row does so far.
    is_offline_as_published: the paper looks at the whole video; ours does not, and the paper's numbers are not ours.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    uses: ClassVar[frozenset[Need]] = frozenset()
    look_ahead_frames: ClassVar[int] = 0
    may_drop_frames: ClassVar[bool] = False
    is_offline_as_published: ClassVar[bool] = False

    at_most: Budget = NO_LIMIT

    @abstractmethod
    def start(self) -> CompressorRun:
        """The compression of one new stream."""


class CompressorRun(ABC):
    """One stream's compression. Not thread-safe: one per stream."""

    def __init__(self, recipe: Compressor) -> None:
        self._recipe = recipe
        self._allowance = recipe.at_most.start()
        self._shape: tuple[tuple[int, int], int] | None = None

    def compress(self, sight: Sight) -> FrameTokens:
        """The tokens that stay of the next block. Blocks come in order of time.

        Raises ValueError where something needed is missing or a feature is not finite; the stream's state is then as
        if the block had not come.
        """
        tokens = sight.tokens
        num_places = tokens.grid_hw[0] * tokens.grid_hw[1]
        check_sight(sight, self._recipe)
        shape = (tokens.grid_hw, int(tokens.x_TD.shape[1]))
        if shape != self._shape:
            self.restart()
            self._shape = shape
        num_appended = tokens.num_tokens - num_places
        at_s = tokens.span.start_s
        most = min(num_places, max(self._recipe.at_most.floor_tokens, self._allowance.grant(at_s) - num_appended))
        room = Room(least=min(num_places, self._recipe.at_most.floor_tokens), most=most)
        picked = self.pick(sight, tokens.x_TD[:num_places].detach().float(), room)
        if not room.least <= picked.index_K.shape[0] <= room.most:
            raise ValueError(
                f"{type(self._recipe).__name__} must keep {room.least} to {room.most} of {num_places} tokens; "
                f"got {picked.index_K.shape[0]}"
            )
        appended = torch.arange(num_places, tokens.num_tokens, device=picked.index_K.device)
        kept = take(tokens, torch.cat([picked.index_K, appended]), picked.merged_KD)
        self._allowance.spend(at_s, kept.num_tokens)
        return kept

    @abstractmethod
    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        """What stays of x_TD: the grid's tokens in raster order, float32, finite, not to be written."""

    @abstractmethod
    def restart(self) -> None:
        """Forget earlier frames: the first frame comes next, or the grid has changed its size."""

    @property
    def num_bytes(self) -> int:
        """Bytes of tensors held for the stream."""
        return 0


@dataclass(frozen=True, kw_only=True)
class FrameCompressor(Compressor):
    """A compressor that looks at one frame at a time, and so keeps no state but the budget's."""

    @abstractmethod
    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        """As `CompressorRun.pick`."""

    def start(self) -> CompressorRun:
        return _FrameRun(self)


class _FrameRun(CompressorRun):
    def __init__(self, recipe: FrameCompressor) -> None:
        super().__init__(recipe)
        self._pick = recipe.pick

    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        return self._pick(sight, x_TD, room)

    def restart(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class NoCompressor(FrameCompressor):
    """Keeps every token.

    Baseline: what the model was trained on.
    Differs from the paper: None.

    at_most: stays without a limit.
    """

    def __post_init__(self) -> None:
        if self.at_most.tokens_per_s != float("inf"):
            raise ValueError(f"no compressor can keep to {self.at_most}; take another, such as uniform")

    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        return Picked(torch.arange(x_TD.shape[0], device=x_TD.device))


def take(tokens: FrameTokens, index_K: Tensor, merged_x: Tensor | None = None) -> FrameTokens:
    """Some of the tokens, with their places, positions and DeepStack levels, in memory of their own.

    index_K: int64, increasing. merged_x: features for the first of them, in place of their own, in any dtype.
    """
    # Places and positions stay on the CPU where a family leaves them there.
    x_KD = tokens.x_TD.index_select(0, index_K.to(tokens.x_TD.device))
    if merged_x is not None:
        x_KD[: merged_x.shape[0]] = merged_x.to(x_KD.dtype)
    return replace(
        tokens,
        x_TD=x_KD,
        kept_T=tokens.kept_T.index_select(0, index_K.to(tokens.kept_T.device)),
        pos_3T=tokens.pos_3T.index_select(1, index_K.to(tokens.pos_3T.device)),
        deep_ETD=None
        if tokens.deep_ETD is None
        else tokens.deep_ETD.index_select(1, index_K.to(tokens.deep_ETD.device)),
    )


def check_sight(sight: Sight, recipe: Compressor) -> None:
    """Refuses, with a sentence, what a method cannot work on. Raises ValueError."""
    tokens, name = sight.tokens, type(recipe).__name__
    num_places = tokens.grid_hw[0] * tokens.grid_hw[1]
    # kept_T increases, so the first num_places of them are the whole grid where the last of these is its last place.
    if tokens.num_tokens < num_places or int(tokens.kept_T[num_places - 1]) != num_places - 1:
        raise ValueError(f"{name} compresses whole grids, once; got {tokens!r}")
    offered = [need for need, field in EVIDENCE.items() if getattr(sight, field) is not None]
    missing_needs(name, recipe.needs, offered, f"what was seen at {tokens.span}")
    looked_at = [need for need in offered if need in recipe.needs | recipe.uses]
    given = {EVIDENCE[need]: getattr(sight, EVIDENCE[need]) for need in looked_at} | {"x_TD": tokens.x_TD}
    if tokens.deep_ETD is not None:
        given["deep_ETD"] = tokens.deep_ETD
    for field, values in given.items():
        # Infinite change is how the first picture says that there was none before.
        bad = values.isnan() if field == "change_T" else ~values.isfinite()
        if bool(bad.any()):
            raise ValueError(
                f"{int(bad.sum())} values of {field} are not finite at {tokens.span}; check the model's dtype"
            )


def check_compressor(compressor: Compressor, offered: frozenset[Need], where: str) -> None:
    """Refuses a compressor that needs what is not offered, or frames that are yet to come. Raises ValueError."""
    name = type(compressor).__name__
    missing_needs(name, compressor.needs, offered, where)
    if compressor.look_ahead_frames > 0:
        raise ValueError(
            f"{name} wants to see {compressor.look_ahead_frames} later frames first, and {where} has none to wait for; "
            "take another: millpond list"
        )

"""Novel: a place is kept when it shows something that the last one kept there did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..block import KVBlock
from ..owned import storage_bytes
from .base import Picked, Pruner, PrunerRun, best
from .held import MOST_PLACES, Held, distance, spread
from .places import pairs, places

# Shapes: T tokens, V visual tokens, S of them that are kept, N places held, M of both, W blocks, C channels of one
# token's key, or value, in the first layer.

_NOISE_BLOCKS = 64
_NOISE_QUANTILE = 0.25


@dataclass(frozen=True, kw_only=True)
class Novel(Pruner):
    """Drops a token whose first-layer key and value are near those of the last one kept at its place.

    1. How new a token is: the distance to what is held for its place, as a share of the spread of the block's tokens;
       root mean square over keys and values. A place that is not held is new; so is one silent for refresh_blocks.
    2. New is what exceeds the stream's own noise: noise_multiple times a low quantile, over places and over the last 64
       blocks, of the distances between one block and the next, within least and most. So slow drift is not noise.
    3. Of more than keep_tokens, the newest stay; the others still compare with what is held, and ask again.

    The first layer, since before rotation its keys and values depend on nothing but the token: all others also change
    with what was read before, and so hide what is new in the picture. On the built-in model it tells changed places
    from unchanged ones with an AUC of 0.99, where the layers above reach 0.96 down to 0.84.

    Baseline: temporal redundancy, as Eventful Transformers and TimeChat-Online use it before the language model.
    Differs from the paper: None.

    keep_tokens: most visual tokens that a block keeps.
    refresh_blocks: a place is silent for fewer blocks than this, where there is room; at least 1.
    noise_multiple: how many times the noise a change must be, at least 1.
    least: lowest threshold, in shares of the spread.
    most: highest threshold, in shares of the spread.
    """

    refresh_blocks: int = 128
    noise_multiple: float = 3.0
    least: float = 0.05
    most: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refresh_blocks < 1:
            raise ValueError(f"refresh_blocks must be at least 1; got {self.refresh_blocks}")
        if not self.noise_multiple >= 1:
            raise ValueError(f"noise_multiple must be at least 1; got {self.noise_multiple}")
        if not 0 < self.least <= self.most <= 2:
            raise ValueError(f"least and most must be in order, in (0, 2]; got {self.least} and {self.most}")

    def start(self) -> PrunerRun:
        return _Run(self)


class _Look(NamedTuple):
    """One block's visual tokens: where they are, their keys and values in the first layer."""

    place_3V: Tensor
    x_2VC: Tensor


class _Run(PrunerRun):
    def __init__(self, recipe: Novel) -> None:
        super().__init__(recipe)
        self._by = recipe
        self._held: Held | None = None
        self._last: _Look | None = None
        self._noise_W = torch.empty(0)

    def pick(self, block: KVBlock, following: Sequence[KVBlock]) -> Picked:
        x_2TC = torch.stack([x[0].transpose(0, 1).flatten(1) for x in (block.k_LKTD, block.v_LKTD)])
        look, spread_2 = (
            _Look(places(block), x_2TC[:, block.visual].clone(memory_format=torch.contiguous_format)),
            spread(x_2TC),
        )
        held, last = self._held, self._last
        if held is None or last is None or not held.is_like(x_2TC):
            held, last = Held.nothing(x_2TC), look
        held = held._replace(x_2NC=held.x_2NC.to(x_2TC.device))
        noise_W = self._noise_W if last is look else self._with_noise(_new(look, last, spread_2))
        threshold = self._threshold(noise_W)
        at = pairs(look.place_3V, held.place_3N)
        new_M = distance(look.x_2VC[:, at.ours_M], held.x_2NC[:, at.theirs_M], spread_2)
        # In units of what is due: above 1, a place wants to speak; one that never did, before those that did.
        alone_V = distance(look.x_2VC, look.x_2VC.float().mean(1, keepdim=True), spread_2)
        urge_V = 1 + (1 + alone_V) / threshold
        silent_M = (held.silent_N[at.theirs_M] + 1.5) / self._by.refresh_blocks
        urge_V[at.ours_M] = torch.maximum(new_M / threshold, silent_M)
        num_due = max(1, int((urge_V > 1).sum()))
        index_S = best(block, urge_V, min(num_due, self._by.keep_tokens))
        self._noise_W, self._last = noise_W, look
        self._held = held.after(at, index_S, look.place_3V, look.x_2VC, self._by.refresh_blocks)
        return Picked(index_S.to(block.k_LKTD.device))

    def _with_noise(self, new_M: Tensor) -> Tensor:
        """The low quantiles of the last blocks, this one's included."""
        if not new_M.numel():
            return self._noise_W
        low = new_M.sort().values[int(_NOISE_QUANTILE * (new_M.numel() - 1))]
        return torch.cat([self._noise_W[-(_NOISE_BLOCKS - 1) :], low[None]])

    def _threshold(self, noise_W: Tensor) -> float:
        # A low quantile over time too: while the camera pans, even the stillest places move.
        num = noise_W.numel()
        noise = float(noise_W.sort().values[int(_NOISE_QUANTILE * (num - 1))]) if num else 0.0
        return min(self._by.most, max(self._by.least, self._by.noise_multiple * noise))

    @property
    def num_bytes(self) -> int:
        return sum(x.nbytes for x in self._tensors)

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        return (self._noise_W, *(self._held or ()), *(self._last or ()))

    def check(self) -> None:
        pinned_bytes = storage_bytes(self._tensors)
        if pinned_bytes != self.num_bytes:
            raise RuntimeError(f"the books say {self.num_bytes} bytes, but {pinned_bytes} are pinned")
        if self._held is not None:
            counts = {x.shape[dim] for x, dim in zip(self._held, (1, 1, 0), strict=True)}
            if len(counts) > 1 or max(counts) > MOST_PLACES:
                raise RuntimeError(f"places, keys and ages of {counts} places are held, {MOST_PLACES} at most")
        if self._noise_W.numel() > _NOISE_BLOCKS:
            raise RuntimeError(f"the noise of {self._noise_W.numel()} blocks is held, of {_NOISE_BLOCKS} at most")


def _new(look: _Look, last: _Look, spread_2: Tensor) -> Tensor:
    """How far tokens are from those at their places in the block before; places that both have."""
    at = pairs(look.place_3V, last.place_3V)
    last_2VC = last.x_2VC.to(look.x_2VC.device)
    return distance(look.x_2VC[:, at.ours_M], last_2VC[:, at.theirs_M], spread_2)

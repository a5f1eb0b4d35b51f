"""Held: what stands for each place of a stream's pictures, and how near two looks at a place are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .places import Pairs

# Shapes: T tokens, V visual tokens, S of them that are kept, N places held, C channels of one token's key, or value.

# Of several grids, when a stream changes its picture size: those first kept go first.
MOST_PLACES = 4096


class Held(NamedTuple):
    """For each place: its position, its key and value in one layer, and for how many blocks it was silent.

    Positions and silences are on the CPU. Nothing in it is written: a change makes another one, in tensors of its own.
    """

    place_3N: Tensor
    x_2NC: Tensor
    silent_N: Tensor

    @classmethod
    def nothing(cls, like_2TC: Tensor) -> Held:
        """No place, for tokens of this shape."""
        no_place, no_age = torch.empty(3, 0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        return cls(no_place, like_2TC.new_empty(2, 0, like_2TC.shape[2]), no_age)

    def is_like(self, x_2TC: Tensor) -> bool:
        """Whether these tokens can be compared with it."""
        return (self.x_2NC.shape[2], self.x_2NC.dtype) == (x_2TC.shape[2], x_2TC.dtype)

    def after(self, at: Pairs, index_S: Tensor, place_3V: Tensor, x_2VC: Tensor, refresh_blocks: int) -> Held:
        """What is held once these of a block's tokens were kept; `at` says which of them lie at which held place."""
        num_places, num_tokens = self.silent_N.shape[0], place_3V.shape[1]
        row_V = torch.full((num_tokens,), num_places)  # past the last row: no row yet
        row_V[at.ours_M] = at.theirs_M
        is_new_S = row_V[index_S] == num_places
        again_S, first_S = index_S[~is_new_S], index_S[is_new_S]
        silent_N, x_2NC = self.silent_N + 1, self.x_2NC.clone()
        silent_N[row_V[again_S]] = 0
        x_2NC[:, row_V[again_S]] = x_2VC[:, again_S]
        # First words at staggered ages: what was said all at once is not refreshed all at once.
        staggered_S = first_S * refresh_blocks // num_tokens
        return Held(
            torch.cat([self.place_3N, place_3V[:, first_S]], dim=1),
            torch.cat([x_2NC, x_2VC[:, first_S]], dim=1),
            torch.cat([silent_N, staggered_S]),
        )._newest()

    def _newest(self) -> Held:
        if self.silent_N.shape[0] <= MOST_PLACES:
            return self
        stays = slice(-MOST_PLACES, None)
        return Held(self.place_3N[:, stays].clone(), self.x_2NC[:, stays].clone(), self.silent_N[stays].clone())


def spread(x_2TC: Tensor) -> Tensor:
    """Mean square distance of tokens from their mean, for keys and for values (2,)."""
    x_2TC = x_2TC.float()
    return (x_2TC - x_2TC.mean(1, keepdim=True)).square().sum(2).mean(1).clamp_min(1e-12)


def distance(x_2VC: Tensor, other_2VC: Tensor, spread_2: Tensor) -> Tensor:
    """Root mean square over keys and values of the distance, in shares of the spread: float32 (V,), on the CPU."""
    square_2V = (x_2VC.float() - other_2VC.float()).square().sum(2) / spread_2[:, None]
    return square_2V.mean(0).sqrt().cpu()

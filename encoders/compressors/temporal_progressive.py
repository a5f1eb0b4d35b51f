"""Progressive compression: a frame says what earlier frames have not."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..sight import Sight
from .base import Compressor, CompressorRun, Picked, Room
from .picks import farthest_first
from .scorers import cosines, novelty
from .temporal_noise import USUAL_NOISE, NoiseFloor, NoiseRule

# Shapes: T tokens, D channels, K tokens kept, S places whose look is known.


@dataclass(frozen=True, kw_only=True)
class Progressive(Compressor):
    """Sends what is farthest from all that was said, up to keep_tokens a frame; an image is a still video.

    1. How unsaid a place is: where its look is known, 1 - cosine to that look; else, distance to the nearest said one.
    2. Of these, the farthest first (k-centre), until no token is farther than the stream's noise from a said one.
    3. What is now said, itself or by a token like it in the same frame, is known until it looks different or is
       refresh_blocks old. A picture shown again sends further detail, until all is said.

    Paper: PVC: Progressive Visual Token Compression for Unified Image and Video Processing (arXiv 2412.09613)
    Differs from the paper: training-free. The paper's tower attends over earlier frames and learns to send what is
        new in 64 tokens a frame; here a k-centre pick over what was said stands in, and the paper's results are not
        this method's.

    keep_tokens: most tokens of a frame.
    refresh_blocks: blocks after which what was said is forgotten, and may be said again.
    noise: what counts as said, in novelty (1 - cosine).
    at_most: tokens per second, and the floor per frame.
    """

    keep_tokens: int = 64
    refresh_blocks: int = 64
    noise: NoiseRule = USUAL_NOISE

    def __post_init__(self) -> None:
        if self.keep_tokens < 1 or self.refresh_blocks < 1:
            raise ValueError(
                f"keep_tokens and refresh_blocks must be at least 1; got {self.keep_tokens} and {self.refresh_blocks}"
            )

    def start(self) -> CompressorRun:
        return _Run(self)


class _Run(CompressorRun):
    def __init__(self, recipe: Progressive) -> None:
        super().__init__(recipe)
        self._by = recipe
        self._floor = NoiseFloor(recipe.noise)
        self.restart()

    def restart(self) -> None:
        self._look_TD: Tensor | None = None
        self._is_known_T = torch.empty(0, dtype=torch.bool)
        self._age_T = torch.empty(0)
        self._floor.reset()

    def pick(self, sight: Sight, x_TD: Tensor, room: Room) -> Picked:
        if self._look_TD is None:
            self._look_TD = torch.zeros_like(x_TD)
            self._is_known_T = torch.zeros(x_TD.shape[0], dtype=torch.bool, device=x_TD.device)
            self._age_T = torch.zeros(x_TD.shape[0], device=x_TD.device)
        is_known_T = self._is_known_T & (self._age_T + 1 < self._by.refresh_blocks)
        changed_T = novelty(x_TD, self._look_TD)
        said_within = self._floor.threshold(changed_T[is_known_T])
        still_true_T = is_known_T & (changed_T <= said_within)
        unsaid_T: Tensor | None = None
        if bool(is_known_T.any()):
            elsewhere_T = _distance(x_TD, self._look_TD[still_true_T])
            # A token that moved here was said at another place, but not that it is here: known places ask themselves.
            unsaid_T = torch.where(is_known_T, changed_T, elsewhere_T)
            # Of what is all said, the longest silent first; far below any threshold.
            unsaid_T = unsaid_T + 1e-7 * self._age_T.clamp_max(1e4)
        most = room.fit(self._by.keep_tokens)
        index_K = farthest_first(x_TD, most, unsaid_T, enough=said_within, least=room.least)

        by_these_T = _distance(x_TD, x_TD[index_K])
        unsaid_T = by_these_T if unsaid_T is None else torch.minimum(unsaid_T, by_these_T)
        unsaid_T[index_K] = 0.0
        now_said_T = (unsaid_T <= said_within) & ~still_true_T
        now_said_T[index_K] = True
        self._look_TD = torch.where(now_said_T[:, None], x_TD, self._look_TD)
        self._is_known_T = is_known_T | now_said_T
        self._age_T = torch.where(now_said_T, 0.0, self._age_T + 1.0)
        return Picked(index_K)

    @property
    def num_bytes(self) -> int:
        if self._look_TD is None:
            return 0
        return self._look_TD.nbytes + self._is_known_T.nbytes + self._age_T.nbytes


def _distance(x_TD: Tensor, said_SD: Tensor) -> Tensor:
    """1 - cosine to the nearest of these; 2, the farthest there is, from none."""
    if said_SD.shape[0] == 0:
        return torch.full((x_TD.shape[0],), 2.0, device=x_TD.device)
    return 1.0 - cosines(x_TD, said_SD).amax(-1)
